"""Stores around a store: each adds one thing to whatever it wraps, and is a ``Backend`` itself."""
