"""Unused blocks of ext2, ext3 and ext4, by their block bitmaps.

A file system is believed only when all of it agrees: its features are known, it stands still, the checksums
that it has are right, the free counters of the superblock and of every group are those of the bitmaps, and no
structure of its own lies in free space. One block bitmap that fails its checksum is reason enough to keep
all: damage, or a view that is not of one instant, seldom comes alone, and the file system has to be checked
before anything else.
"""

import numpy as np
from numpy.typing import NDArray

from hotspare.block.device import BlockReader
from hotspare.block.ranges import Ranges
from hotspare.guest.unused.ext.activity import check_journal, check_mount_guard
from hotspare.guest.unused.ext.checksum import crc32c
from hotspare.guest.unused.ext.files import Files
from hotspare.guest.unused.ext.groups import Groups, read_blocks, read_groups
from hotspare.guest.unused.ext.superblock import OFFSET, SIZE, RoCompat, Superblock
from hotspare.guest.unused.ext.swap import find_swap_files
from hotspare.guest.unused.free_runs import FreeRuns
from hotspare.guest.unused.unused import KeepAll, Quiet, UnusedBlocks
from hotspare.units import MIB

_BATCH = 1 * MIB
"""Bytes of bitmaps that are worked on at once."""


def ext_unused(volume: BlockReader, quiet: Quiet) -> UnusedBlocks:
    """Find what an ext2, ext3 or ext4 file system does not use; see ``FindUnused``.

    ``free`` is what ``dumpe2fs`` calls free blocks. ``scratch`` is what swap files hold, without their
    headers.

    Raises:
        KeepAll: see ``FindUnused``.
        SourceLost, StorageError, RepositoryDamaged: the volume cannot be read.
    """
    if volume.size < OFFSET + SIZE:
        raise KeepAll("it is too small for a file system")
    raw = bytearray(SIZE)
    volume.read_into(OFFSET, memoryview(raw))
    superblock = Superblock.parse(bytes(raw), volume.size)
    superblock.check_quiet(quiet)
    groups = read_groups(volume, superblock)
    files = Files(volume, superblock, groups)
    check_journal(files, superblock)
    check_mount_guard(volume, superblock, quiet)
    free, remarks = _free(volume, superblock, groups)
    swap = find_swap_files(files, superblock)
    structures = Ranges(groups.metadata.bounds * superblock.block_size)
    if any(
        len(one & other) for one, other in ((structures, free), (swap.content, free | structures)) if len(one)
    ):
        raise KeepAll("its block bitmaps call free what is in use")
    return UnusedBlocks(superblock.kind, superblock.size, free, swap.content, (*remarks, *swap.remarks))


def _free(volume: BlockReader, superblock: Superblock, groups: Groups) -> tuple[Ranges, tuple[str, ...]]:
    """Go through the bitmaps of all groups, and compare them with every counter."""
    runs = FreeRuns(superblock.block_size * superblock.ratio, superblock.first_block * superblock.block_size)
    per_group = superblock.clusters_per_group
    step = max(1, _BATCH // superblock.block_size)
    for first in range(0, superblock.groups, step):
        end = min(superblock.groups, first + step)
        bitmaps = _bitmaps(volume, superblock, groups, first, end)
        clusters = min(superblock.clusters, end * per_group) - first * per_group
        beyond = (end - first) * per_group - clusters
        if beyond:  # the last group is shorter, and what it has not is not free
            flat = bitmaps.reshape(-1)
            _mark(flat, np.array([clusters]), np.array([clusters + beyond]))
        free = per_group - np.bitwise_count(bitmaps).sum(axis=1, dtype=np.int64)
        if not np.array_equal(free, groups.free_clusters[first:end]):
            raise KeepAll("the free counter of a group is not what its block bitmap says")
        runs.add_bitmap(bitmaps.reshape(-1), clusters)
    if runs.free * superblock.ratio != superblock.free_blocks:
        raise KeepAll("the free counter of its superblock is not what its block bitmaps say")
    remarks = ("its free space is in too many pieces: the smallest are kept",) if runs.incomplete else ()
    # A last cluster may reach over the end of the file system.
    return Ranges(np.minimum(runs.ranges().bounds, superblock.size)), remarks


def _bitmaps(
    volume: BlockReader, superblock: Superblock, groups: Groups, first: int, end: int
) -> NDArray[np.uint8]:
    """Give the block bitmaps of some groups, a row each: read and checked, or made where none was written."""
    length = superblock.clusters_per_group // 8
    bitmaps = np.zeros((end - first, length), dtype=np.uint8)
    there = np.flatnonzero(~groups.uninitialised[first:end])
    if len(there) < end - first:
        _mark_metadata(bitmaps, superblock, groups, first, end)
    if len(there):
        places = groups.block_bitmaps[first + there]
        found = read_blocks(volume, places, superblock.block_size)[:, :length]
        if superblock.ro_compat & RoCompat.METADATA_CSUM:
            mask = np.uint32(0xFFFFFFFF if superblock.descriptor_size >= 64 else 0xFFFF)
            sums = crc32c(found, superblock.checksum_seed) & mask
            if not np.array_equal(sums, groups.bitmap_sums[first + there]):
                raise KeepAll("the checksum of a block bitmap is wrong")
        bitmaps[there] = found
    return bitmaps


def _mark_metadata(
    bitmaps: NDArray[np.uint8], superblock: Superblock, groups: Groups, first: int, end: int
) -> None:
    """Mark what the structures of all groups take in the clusters of some."""
    start = superblock.first_block + first * superblock.blocks_per_group
    stop = superblock.first_block + end * superblock.blocks_per_group
    taken = groups.metadata.within(start, stop).bounds - start
    # Neighbours may share a cluster, so that what comes out of the rounding can overlap.
    clusters = Ranges.of(
        np.column_stack((taken[:, 0] // superblock.ratio, -(-taken[:, 1] // superblock.ratio)))
    )
    _mark(bitmaps.reshape(-1), clusters.bounds[:, 0], clusters.bounds[:, 1])


def _mark(octets: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
    """Set runs of bits, the lowest of a byte first. None of them is empty."""
    first, last = starts >> 3, (ends - 1) >> 3
    head = (0xFF << (starts & 7)) & 0xFF
    tail = 0xFF >> (7 - ((ends - 1) & 7))
    short = first == last
    np.bitwise_or.at(octets, first, np.where(short, head & tail, head).astype(np.uint8))
    np.bitwise_or.at(octets, last, np.where(short, head & tail, tail).astype(np.uint8))
    for begin, end in zip((first + 1).tolist(), last.tolist(), strict=True):
        octets[begin:end] = 0xFF
