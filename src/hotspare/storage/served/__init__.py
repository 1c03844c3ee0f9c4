"""A store that our own program serves from a folder of another host, over SSH or any other pipe.

``protocol.py`` is what goes over the wire, ``access.py`` what a client may do, ``server.py`` the one end and
``client.py`` the other, upon ``connection.py``. ``ssh.py`` says how the server is reached.
"""
