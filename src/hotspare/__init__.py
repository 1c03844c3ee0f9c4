"""Hotspare: backs up, replicates and instantly recovers virtual machines, on any hypervisor.

The folders stand in the order that data takes; see docs/architecture.md for the picture.
"""

__version__ = "0.1.0"
