"""A lab of tiny real virtual machines, for tests and the demonstration.

``LabGuest`` is what you want; CONTRIBUTING.md shows it at work. Everything here is built from packages of
the host's own distribution and runs under libvirt with software emulation, so it needs root, not KVM.
"""

from lab.disks import DiskSpec
from lab.errors import CommandError, LabError
from lab.guest import LabGuest
from lab.host import connection, ensure_host
from lab.naming import domain_name
from lab.sweep import sweep

__all__ = [
    "CommandError",
    "DiskSpec",
    "LabError",
    "LabGuest",
    "connection",
    "domain_name",
    "ensure_host",
    "sweep",
]
