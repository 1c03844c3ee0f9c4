"""What was left out of a disk, an extra of its restore point: docs/repository-format.md, "Restore points"."""

import numpy as np

from hotspare.block.ranges import NOTHING, Ranges
from hotspare.errors import RepositoryDamaged
from hotspare.repository.point import PointDisk, RestorePoint
from hotspare.repository.repository import Repository
from hotspare.units import GIB

_PAIR = 16
_LIST_MAX = 1 * GIB
"""Bytes of a list; it is read into memory as a whole."""


def extra_name(disk: str) -> str:
    """Give the name of the extra of a disk."""
    return f"unused/{disk}"


def left_out_of(repository: Repository, point: RestorePoint, disk: PointDisk) -> Ranges:
    """Read what was left out of a disk. Raises ``RepositoryDamaged``, ``StorageError``."""
    extra = point.find_extra(extra_name(disk.name))
    if extra is None:
        return NOTHING
    if extra.size > _LIST_MAX:
        raise _damage()
    content = bytearray(extra.size)
    repository.disk(extra).read_into(0, memoryview(content))
    return decode_ranges(bytes(content), disk.size)


def encode_ranges(ranges: Ranges) -> bytes:
    """Give gaps and lengths by turns, as 64-bit numbers: small ones, which compress well."""
    edges = ranges.bounds.reshape(-1)
    return np.diff(edges, prepend=0).astype("<u8").tobytes()


def decode_ranges(data: bytes, size: int) -> Ranges:
    """Read what ``encode_ranges`` gave for something of ``size`` bytes.

    Raises:
        RepositoryDamaged: it is no such list.
    """
    steps = np.frombuffer(data[: len(data) // _PAIR * _PAIR], dtype="<u8")
    # Sums of what is bounded do not wrap around.
    good = len(data) % _PAIR == 0 and len(steps) <= 2 * size and bool((steps <= size).all())
    good = good and bool((steps[1:] > 0).all())
    edges = np.cumsum(steps.astype(np.int64)) if good else np.zeros(0, dtype=np.int64)
    if not good or (len(edges) and (edges[-1] > size or edges.min() < 0)):
        raise _damage()
    return Ranges(edges.reshape(-1, 2))


def _damage() -> RepositoryDamaged:
    return RepositoryDamaged(
        "A list of what was left out of a disk is not what was written",
        meaning="The restore point itself does not need it",
        hint="The next backup reads the disk in full",
    )
