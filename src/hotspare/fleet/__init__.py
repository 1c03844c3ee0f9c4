"""Where policies meet this host: its platforms and machines, how they stand, what would be done with them.

For commands and the server alike: what it works with it is given (``work.py``).
"""
