"""A repository whose objects nobody can remove before a date, its owner included.

``store.py`` has everything that a restore needs stored locked, ``keeper.py`` renews the locks of what is
still needed, ``purge.py`` removes what is not once its lock has ended, and ``recover.py`` brings back what
somebody deleted or replaced meanwhile. docs/storage.md, "Object lock", defines what is promised.
"""
