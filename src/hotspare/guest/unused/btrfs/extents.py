"""What is in use of a Btrfs file system's logical addresses, by its extent tree.

After the Btrfs developer documentation, "On-disk format": an EXTENT_ITEM or METADATA_ITEM for each run in
use, whoever uses it, and a BLOCK_GROUP_ITEM with the sum for each chunk, there or in a tree of its own.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hotspare.block.ranges import Ranges
from hotspare.guest.unused.btrfs.chunks import Chunk
from hotspare.guest.unused.btrfs.superblock import Superblock, TreeRoot
from hotspare.guest.unused.btrfs.tree import Leaf, TreeReader
from hotspare.guest.unused.unused import KeepAll

_EXTENT, _METADATA, _BLOCK_GROUP = 168, 169, 192
_REFERENCES = (172, 176, 178, 182, 184)
"""Who uses an extent, where that does not fit into its item."""
_BLOCK_GROUP_ITEM = struct.Struct("<QQQ")
_LIMIT = 2**62
_RUNS_MAX = 16_000_000
"""Runs in use: 16 bytes of memory each, a few times over."""

Bounds = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _BlockGroup:
    start: int
    length: int
    used: int
    kind: int


def read_used(
    trees: TreeReader,
    superblock: Superblock,
    chunks: list[Chunk],
    extent_tree: TreeRoot,
    group_tree: TreeRoot | None,
) -> Ranges:
    """Give the logical addresses in use, after comparing them with all counters.

    Args:
        trees: to read with.
        superblock: of the file system.
        chunks: all of them.
        extent_tree: where it begins.
        group_tree: the tree of block groups, if these are not in the extent tree.

    Raises:
        KeepAll: anything about it is wrong, or in too many pieces.
        SourceLost, StorageError, RepositoryDamaged: it cannot be read.
    """
    groups: list[_BlockGroup] = []
    runs: list[Bounds] = []
    count = 0
    for leaf in trees.leaves(extent_tree):
        groups += _block_groups(leaf, set(leaf.items["kind"].tolist()) - {_EXTENT, _METADATA, *_REFERENCES})
        runs.append(_runs(leaf, superblock))
        count += len(runs[-1])
        if count > _RUNS_MAX:
            raise KeepAll("what it uses is in too many pieces")
    if group_tree is not None:
        if groups:
            raise KeepAll("its block groups are in two places")
        for leaf in trees.leaves(group_tree):
            groups += _block_groups(leaf, set(leaf.items["kind"].tolist()))
    used = _joined(runs)
    _check_sums(used, superblock, chunks, groups)
    return used


def _block_groups(leaf: Leaf, kinds: set[int]) -> list[_BlockGroup]:
    """Read the block group items of a leaf, in which ``kinds`` are all that may be such."""
    if kinds - {_BLOCK_GROUP}:
        raise KeepAll("its extent tree has items of an unknown type")
    found = []
    for at in np.flatnonzero(leaf.items["kind"] == _BLOCK_GROUP):
        item = leaf.item(int(at))
        if len(item) != _BLOCK_GROUP_ITEM.size:
            raise KeepAll("one of its block groups makes no sense")
        used, _, kind = _BLOCK_GROUP_ITEM.unpack(item)
        key = leaf.items[at]
        found.append(_BlockGroup(int(key["object"]), int(key["offset"]), used, kind))
    return found


def _runs(leaf: Leaf, superblock: Superblock) -> Bounds:
    """Give what the extents of a leaf cover, joined where they touch."""
    kinds = leaf.items["kind"]
    chosen = leaf.items[(kinds == _EXTENT) | (kinds == _METADATA)]
    starts, lengths = chosen["object"], chosen["offset"]
    lengths = np.where(chosen["kind"] == _METADATA, np.uint64(superblock.node_size), lengths)
    sector = np.uint64(superblock.sector_size)
    sensible = (starts < _LIMIT) & (lengths > 0) & (lengths < _LIMIT)
    sensible &= (starts % sector == 0) & (lengths % sector == 0)
    if not bool(np.all(sensible)):
        raise KeepAll("one of its extents makes no sense")
    first = starts.astype(np.int64)
    return _joined([np.column_stack((first, first + lengths.astype(np.int64)))]).bounds


def _joined(runs: list[Bounds]) -> Ranges:
    """Join runs where they touch; that they do not overlap is checked."""
    rows = np.concatenate(runs) if runs else np.empty((0, 2), dtype=np.int64)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    if bool(np.any(rows[1:, 0] < rows[:-1, 1])):
        raise KeepAll("two of its extents overlap")
    return Ranges.of(rows)


def _check_sums(used: Ranges, superblock: Superblock, chunks: list[Chunk], groups: list[_BlockGroup]) -> None:
    """Compare extents with block groups, these with chunks, and the sums with the superblock."""
    groups = sorted(groups, key=lambda group: group.start)
    found = [(group.start, group.length, group.kind) for group in groups]
    if found != [(chunk.start, chunk.length, chunk.kind) for chunk in chunks]:
        raise KeepAll("its block groups do not agree with its chunks")
    in_groups = sum(group.used for group in groups)
    if used.total != in_groups or in_groups != superblock.bytes_used:
        counted = f"its superblock counts {superblock.bytes_used} bytes in use, its block groups {in_groups}"
        raise KeepAll(f"{counted}, its extents {used.total}")
    for group in groups:
        if used.within(group.start, group.start + group.length).total != group.used:
            raise KeepAll("the counters of its block groups do not agree with its extents")
