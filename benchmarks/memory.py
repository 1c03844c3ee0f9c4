"""Whether memory stays bounded when disks grow."""

import shutil
from pathlib import Path

from benchmarks.disks import make_sparse_disk
from benchmarks.measure import Cost, settle
from benchmarks.programs import Hotspare
from hotspare.units import GIB, TIB

LIMIT = 300 << 20
"""Bytes that no backup may take."""
LARGE = 1 * TIB
CONTENT = 1 * GIB


def measure_large_disk(donor: Path, folder: Path) -> Cost:
    """Back up a disk of 1 TiB, a hole but for 1 GiB in thousands of places."""
    program = Hotspare(folder)
    disk = folder / "large.raw"
    try:
        make_sparse_disk(disk, LARGE, donor, CONTENT)
        program.start_over()
        settle()
        return program.back_up(disk)
    finally:
        program.clear()
        disk.unlink(missing_ok=True)


def room_is_there(folder: Path, needed: int) -> bool:
    """Tell whether the file system of ``folder`` has room for the benchmark."""
    return shutil.disk_usage(folder).free >= needed
