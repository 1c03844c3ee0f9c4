"""Which storage the disks of a machine of this host share with those of others."""

import stat
from pathlib import Path

from hotspare.platforms.platform import Machine


def pools_of(machine: Machine) -> frozenset[str]:
    """Name what a machine's disks lie on: mount points of file systems, folders of volume groups, devices.

    Of a disk that is not there, or is no file or device of this host, nothing is said.
    """
    found = {_pool_of(Path(disk.source)) for disk in machine.disks if disk.source.startswith("/")}
    return frozenset(pool for pool in found if pool)


def _pool_of(path: Path) -> str:
    try:
        if stat.S_ISBLK(path.stat().st_mode):
            # LVM gives each volume group a folder of its own in /dev.
            return str(path if path.parent == Path("/dev") else path.parent)
        return str(next(folder for folder in path.resolve().parents if folder.is_mount()))
    except (OSError, StopIteration):
        return ""
