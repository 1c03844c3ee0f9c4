"""The block groups of ext2/3/4: their descriptors, and the blocks that their own structures take.

Layout: "Ext4 Disk Layout" of the kernel's documentation, sections on block groups, meta block groups,
flexible block groups and sparse superblocks.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hotspare.block.device import BlockReader
from hotspare.block.ranges import Ranges
from hotspare.guest.unused.ext.checksum import crc16, crc16_of, crc32c
from hotspare.guest.unused.ext.superblock import Compat, Incompat, RoCompat, Superblock
from hotspare.guest.unused.unused import KeepAll
from hotspare.units import KIB, MIB

Numbers = NDArray[np.int64]

_CHECKSUM_AT = 0x1E
_READ_MAX = 4 * MIB
_KNOWN_FLAGS = 0x7
_BLOCK_UNINIT, _INODE_UNINIT = 0x2, 0x1


@dataclass(frozen=True, slots=True)
class Groups:
    """What the descriptors say: an element of each array for each group, in order."""

    block_bitmaps: Numbers
    """Block numbers."""
    inode_bitmaps: Numbers
    inode_tables: Numbers
    free_clusters: Numbers
    bitmap_sums: NDArray[np.uint32]
    """CRC-32C of the block bitmap; its lower half only without ``64bit``."""
    uninitialised: NDArray[np.bool_]
    """The block bitmap was never written: all is free but what file system structures take."""
    no_inodes: NDArray[np.bool_]
    """No inode of it was ever used, and its inode table may hold anything."""
    metadata: Ranges
    """Numbers of the blocks that superblocks, descriptors, bitmaps and inode tables take."""


def read_groups(volume: BlockReader, superblock: Superblock) -> Groups:
    """Read and check the descriptors of all groups.

    Raises:
        KeepAll: a checksum is wrong, or they contradict each other or the superblock.
        SourceLost, StorageError, RepositoryDamaged: the volume cannot be read.
    """
    size = superblock.descriptor_size
    blocks = read_blocks(volume, _descriptor_blocks(superblock), superblock.block_size)
    rows = blocks[:, : superblock.descriptors_per_block * size].reshape(-1, size)[: superblock.groups]
    summed = bool(superblock.ro_compat & (RoCompat.METADATA_CSUM | RoCompat.UNINIT_BG))
    if summed and not np.array_equal(_sums(rows, superblock), _u16(rows, _CHECKSUM_AT)):
        raise KeepAll("the checksum of a group descriptor is wrong")
    flags = _u16(rows, 0x12) if summed else np.zeros(len(rows), dtype=np.int64)
    if (flags & ~_KNOWN_FLAGS).any():
        raise KeepAll("a group descriptor has flags that are not known here")
    wide = size >= 64
    places = [
        _u32(rows, low) | (_u32(rows, high) << 32 if wide else 0)
        for low, high in ((0x0, 0x20), (0x4, 0x24), (0x8, 0x28))
    ]
    sums = _u16(rows, 0x18) | (_u16(rows, 0x38) << 16 if wide else 0)
    return Groups(
        block_bitmaps=places[0],
        inode_bitmaps=places[1],
        inode_tables=places[2],
        free_clusters=_u16(rows, 0xC) | (_u16(rows, 0x2C) << 16 if wide else 0),
        bitmap_sums=sums.astype(np.uint32),
        uninitialised=(flags & _BLOCK_UNINIT) != 0,
        no_inodes=(flags & _INODE_UNINIT) != 0,
        metadata=_metadata(superblock, *places),
    )


def read_blocks(volume: BlockReader, numbers: Numbers, block_size: int) -> NDArray[np.uint8]:
    """Read blocks, neighbours at once. The result has a row for each, in the order of ``numbers``.

    Raises:
        KeepAll: the volume ends before one of them.
        SourceLost, StorageError, RepositoryDamaged: the volume cannot be read.
    """
    if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < volume.size // block_size:
        raise KeepAll("it points beyond its own end")
    order = np.argsort(numbers, kind="stable")
    found = np.empty((len(numbers), block_size), dtype=np.uint8)
    breaks = np.flatnonzero(np.diff(numbers[order]) != 1) + 1
    edges = [0, *breaks.tolist(), len(numbers)]
    step = max(1, _READ_MAX // block_size)
    for start, end in pairwise(edges):
        for first in range(start, end, step):
            part = found[first : min(end, first + step)]
            volume.read_into(int(numbers[order[first]]) * block_size, part.reshape(-1).data)
    if np.array_equal(order, np.arange(len(order))):
        return found
    restored = np.empty_like(found)
    restored[order] = found
    return restored


def _descriptor_blocks(superblock: Superblock) -> Numbers:
    """Give the numbers of the blocks with the group descriptors, in the order of the groups."""
    numbers = np.arange(superblock.descriptor_blocks, dtype=np.int64)
    own_block = int(superblock.block_size == KIB)  # the number of the block with the superblock
    plain = own_block + 1 + numbers
    if not superblock.incompat & Incompat.META_BG:
        return plain
    groups = numbers * superblock.descriptors_per_block
    after = has_superblock(superblock, groups).astype(np.int64)
    if superblock.first_block == 0 and own_block:
        after[0] += 1
    spread = superblock.first_block + groups * superblock.blocks_per_group + after
    return np.where(numbers < superblock.first_meta_group, plain, spread)


def has_superblock(superblock: Superblock, groups: Numbers) -> NDArray[np.bool_]:
    """Tell of each group whether it starts with a copy of the superblock."""
    if superblock.compat & Compat.SPARSE_SUPER2:
        return np.isin(groups, (0, *superblock.backup_groups))
    if not superblock.ro_compat & RoCompat.SPARSE_SUPER:
        return np.ones(len(groups), dtype=np.bool_)
    powers = [base**exponent for base in (3, 5, 7) for exponent in range(1, 32)]
    return np.isin(groups, (0, 1, *(power for power in powers if power < superblock.groups)))


def _metadata(superblock: Superblock, *places: Numbers) -> Ranges:
    """Give the blocks of all structures of the file system: they lie inside of it and do not overlap."""
    starts, lengths = _superblock_copies(superblock)
    for numbers, length in zip(places, (1, 1, superblock.inode_table_blocks), strict=True):
        starts = np.concatenate((starts, numbers))
        lengths = np.concatenate((lengths, np.full(len(numbers), length, dtype=np.int64)))
    ends = starts + lengths
    if int(starts.min()) < 0 or int(ends.max()) > superblock.blocks:
        raise KeepAll("a group descriptor points beyond the end of the file system")
    together = Ranges.of(np.column_stack((starts, ends)))
    if together.total != int(lengths.sum()) or int(together.bounds[0, 0]) < superblock.first_block:
        raise KeepAll("its group descriptors contradict each other")
    return together


def _superblock_copies(superblock: Superblock) -> tuple[Numbers, Numbers]:
    """Give where each group's copies of superblock and descriptors start, and how many blocks they take."""
    groups = np.arange(superblock.groups, dtype=np.int64)
    has_copy = has_superblock(superblock, groups)
    in_meta = groups % superblock.descriptors_per_block
    meta = bool(superblock.incompat & Incompat.META_BG)
    old = superblock.first_meta_group if meta else superblock.descriptor_blocks
    old_style = np.where(has_copy, 1 + old + superblock.reserved_descriptor_blocks, 0)
    ends_of_meta = (in_meta <= 1) | (in_meta == superblock.descriptors_per_block - 1)
    new_style = has_copy.astype(np.int64) + ends_of_meta
    is_new = meta & (groups // superblock.descriptors_per_block >= superblock.first_meta_group)
    lengths = np.where(is_new, new_style, old_style)
    if superblock.first_block == 0 and superblock.block_size == KIB:
        lengths[0] += 1  # the boot block, which is in the first cluster
    starts = superblock.first_block + groups * superblock.blocks_per_group
    lengths = np.minimum(lengths, superblock.blocks - starts)
    return starts, lengths


def _sums(rows: NDArray[np.uint8], superblock: Superblock) -> Numbers:
    """Sum each descriptor with its group's number before it and its own checksum left out."""
    numbers = np.arange(len(rows), dtype="<u4").reshape(-1, 1).view(np.uint8)
    if superblock.ro_compat & RoCompat.METADATA_CSUM:
        cleared = rows.copy()
        cleared[:, _CHECKSUM_AT : _CHECKSUM_AT + 2] = 0
        sums = crc32c(np.hstack((numbers, cleared)), superblock.checksum_seed)
    else:
        parts = (numbers, rows[:, :_CHECKSUM_AT], rows[:, _CHECKSUM_AT + 2 :])
        sums = crc16(np.hstack(parts), crc16_of(superblock.uuid, 0xFFFF))
    return (sums & 0xFFFF).astype(np.int64)


def _u16(rows: NDArray[np.uint8], at: int) -> Numbers:
    return rows[:, at].astype(np.int64) | rows[:, at + 1].astype(np.int64) << 8


def _u32(rows: NDArray[np.uint8], at: int) -> Numbers:
    return _u16(rows, at) | _u16(rows, at + 2) << 16
