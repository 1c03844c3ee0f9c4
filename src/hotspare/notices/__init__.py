"""Telling people: what is to be told waits in a durable outbox, and is sent apart from all other work.

Whoever notices something only writes it down (``telling.py``), so no receiver that is slow or gone ever
holds a backup up. Sending is ``delivery.py``.
"""
