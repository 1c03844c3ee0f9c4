"""A standby's replicas as a platform: each restore point of a replica can be read like a machine that is off.

``record.py`` is what a replica's folder says of itself; ``replication/standby`` writes it.
"""
