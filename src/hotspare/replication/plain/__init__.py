"""A bare file or block device that is replicated without a hypervisor: what differs is found by comparing.

``source.py`` reads it at one instant, as far as that can be had; ``service.py`` lets an agent look after it.
"""
