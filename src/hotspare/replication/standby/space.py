"""Room on the standby: a replica whose file system is full takes no more writes."""

import os
from pathlib import Path

from hotspare.units import MIB, format_bytes

RESERVE = 256 * MIB
"""Bytes that must be free beside a replica. Below it, the source lets go before a write fails."""
_RESERVE_SHARE = 0.02
"""Of a small file system this share is enough."""


def free_space_problem(folder: Path) -> str:
    """Say that too little is free where a replica lies; empty when there is enough."""
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    reserve = min(RESERVE, int(status.f_blocks * status.f_frsize * _RESERVE_SHARE))
    if free >= reserve:
        return ""
    return f"only {format_bytes(free)} are free on the standby in {folder}"
