"""Objects at rest: a flat store of named, immutable byte strings, on whatever keeps them.

``backend.py`` is the contract; each other file is one kind of store, chosen by its URL in
``registry.py``. The repository above it knows no other way to the outside.
"""
