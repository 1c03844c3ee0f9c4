"""Which blocks of an XFS file system are free.

Free is what the btrees of free space by place hold, as ``xfs_db -c freesp`` counts it, but for the few
blocks of each group's free list (AGFL), which ``freesp`` counts too and which are kept here: btrees grow
into them. All of a file system is checked before anything is given: features, checksums, both btrees
against each other and against the counters, and that the journal holds nothing that would change them when
it is mounted (``log.py``).
"""

from hotspare.block.device import BlockReader
from hotspare.block.ranges import Ranges
from hotspare.guest.unused.unused import KeepAll, Quiet, UnusedBlocks
from hotspare.guest.unused.volume_bytes import VolumeBytes
from hotspare.guest.unused.xfs.geometry import Geometry, read_geometry
from hotspare.guest.unused.xfs.group import GroupSpace, read_group
from hotspare.guest.unused.xfs.log import LogState, check_log

_RECORDS_MAX = 16_000_000
"""Pieces of free space: 16 bytes of memory each, a few times over."""
_RESERVED_BLOCKS = 8192
"""That XFS sets aside when it is mounted, for what must not fail."""


def xfs_unused(volume: BlockReader, quiet: Quiet) -> UnusedBlocks:
    """Find the free blocks of an XFS file system; see ``FindUnused``."""
    reader = VolumeBytes(volume)
    geometry = read_geometry(reader)
    state = check_log(reader, geometry, quiet)
    groups: list[GroupSpace] = []
    left = _RECORDS_MAX
    for number in range(geometry.group_count):
        groups.append(read_group(reader, geometry, number, left))
        left -= len(groups[-1].free)
    _check_total(geometry, groups, state)
    return UnusedBlocks("xfs", geometry.size, Ranges.union([group.free for group in groups]))


def _check_total(geometry: Geometry, groups: list[GroupSpace], state: LogState) -> None:
    """Compare the superblock's count of free blocks with the groups'.

    It counts the free lists and what the btrees have grown by as free. Unmounting writes it exactly. While
    mounted, it has no more than what is free: XFS takes away what it reserves for the growth of its btrees
    (at most a few per cent) and for itself.
    """
    there = sum(group.free_blocks + group.listed_blocks + group.tree_blocks for group in groups)
    missing = there - geometry.free_blocks
    most = geometry.blocks // 8 + _RESERVED_BLOCKS if state is LogState.COVERED else 0
    if not 0 <= missing <= most:
        raise KeepAll(f"its superblock counts {geometry.free_blocks} free blocks, its groups have {there}")
