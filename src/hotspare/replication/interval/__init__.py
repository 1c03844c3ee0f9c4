"""Replication every few seconds: what changed is shipped from the platform's snapshots to the standby.

``cycle.py`` is one round, ``shipping.py`` the endless row of them, ``standby.py`` what the standby has to
offer, ``local.py`` and ``remote.py`` a standby in this process and one on another host.
"""
