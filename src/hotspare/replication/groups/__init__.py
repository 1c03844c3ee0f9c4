"""Several machines as one: points of one instant across all of them, and failovers in a set order.

``maker.py`` makes the points, on the source; ``replicas.py`` is what the standby does for that, and
``whole.py`` says which of them count. ``failover.py`` brings all machines up, or home.
"""
