"""Doing a command's work on the host of the machines, and not here.

``wire.py`` is what goes over the connection, ``control.py`` the end where the user is, ``host.py`` the other.
The command itself is the same at both ends; only where its repository and its secrets come from differs.
"""
