"""Who may do what on the server: users, roles, API tokens, approvals, and the record of what was done.

The rules (``roles.py``, ``attempts.py``, ``chain.py``) are pure; what is remembered lies in a small SQLite
database of its own, for the catalog is a cache that may be lost and this is not.
"""
