"""The two btrees of free space in each allocation group of XFS: one by place, one by size.

After *XFS Algorithms & Data Structures*, "AG Free Space B+trees". Both hold the same records, (first block,
number of blocks), in another order. Every block of a tree is read, level by level, and checked against its
neighbours.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hotspare.guest.unused.unused import KeepAll
from hotspare.guest.unused.volume_bytes import VolumeBytes
from hotspare.guest.unused.xfs.geometry import Geometry, verify_checksum

_NO_SIBLING = 0xFFFFFFFF
_LEVELS_MAX = 9

Records = NDArray[np.int64]
"""Of shape (n, 2): first block within the group, number of blocks."""


@dataclass(frozen=True, slots=True)
class TreeKind:
    """Which of the two trees."""

    name: str
    old_magic: bytes
    magic: bytes
    """Of version 5, with checksums."""
    by_size: bool


BY_PLACE = TreeKind("free space by place", b"ABTB", b"AB3B", by_size=False)
BY_SIZE = TreeKind("free space by size", b"ABTC", b"AB3C", by_size=True)


@dataclass(frozen=True, slots=True)
class FreeSpaceTree:
    """The content of one tree."""

    records: Records
    """In the order of the tree."""
    blocks: NDArray[np.int64]
    """Of the group, that the tree itself lies in."""


@dataclass(frozen=True, slots=True)
class _Block:
    records: Records
    """Of a leaf; of a node: the first record below each pointer."""
    pointers: NDArray[np.int64]
    left: int
    right: int


def read_tree(
    reader: VolumeBytes,
    geometry: Geometry,
    group: int,
    kind: TreeKind,
    root: int,
    levels: int,
    records_max: int,
) -> FreeSpaceTree:
    """Read a whole tree of one allocation group.

    Args:
        reader: of the volume.
        geometry: of the file system.
        group: number of the allocation group.
        kind: which tree.
        root: block of the group.
        levels: 1 if the root is a leaf.
        records_max: how many are read at most.

    Raises:
        KeepAll: anything about it is wrong, or it has too many records.
        SourceLost, StorageError, RepositoryDamaged: it cannot be read.
    """
    if not 1 <= levels <= _LEVELS_MAX:
        raise KeepAll(f"the btree of {kind.name} in group {group} makes no sense (levels)")
    tree = _Tree(reader, geometry, group, kind)
    pointers = np.array([root], dtype=np.int64)
    expected: Records | None = None
    seen = pointers
    for level in range(levels - 1, -1, -1):
        found = tree.level(pointers, level)
        starts = np.array([block.records[0] for block in found if len(block.records)], dtype=np.int64)
        if expected is not None and not np.array_equal(starts, expected):
            raise tree.wrong("keys")
        records = np.concatenate([block.records for block in found])
        if len(records) > records_max:
            raise KeepAll("its free space is in too many pieces")
        tree.check_order(records, is_leaf=level == 0)
        if level:
            pointers, expected = np.concatenate([block.pointers for block in found]), records
            seen = np.concatenate((seen, pointers))
            if len(np.unique(seen)) != len(seen):
                raise tree.wrong("a loop")
    return FreeSpaceTree(records, seen)


class _Tree:
    def __init__(self, reader: VolumeBytes, geometry: Geometry, group: int, kind: TreeKind) -> None:
        self._reader = reader
        self._geometry = geometry
        self._group = group
        self._kind = kind
        self._blocks = geometry.blocks_of_group(group)
        self._start = group * geometry.group_blocks * geometry.block_size
        self._header = 56 if geometry.has_checksums else 16

    def wrong(self, what: str) -> KeepAll:
        return KeepAll(f"the btree of {self._kind.name} in group {self._group} makes no sense ({what})")

    def level(self, pointers: NDArray[np.int64], level: int) -> list[_Block]:
        """Read a level's blocks, in the order of their places, and give them in the order of the tree."""
        if pointers.min() < 0 or pointers.max() >= self._blocks:
            raise self.wrong("pointers")
        read = {int(pointer): self._read(int(pointer), level) for pointer in np.sort(pointers)}
        found = [read[int(pointer)] for pointer in pointers]
        neighbours = [_NO_SIBLING, *(int(pointer) for pointer in pointers), _NO_SIBLING]
        for at, block in enumerate(found):
            if (block.left, block.right) != (neighbours[at], neighbours[at + 2]):
                raise self.wrong("siblings")
            if not len(block.records) and (level or len(found) > 1):
                raise self.wrong("an empty block")
        return found

    def check_order(self, records: Records, *, is_leaf: bool) -> None:
        """See to it that records ascend, lie inside of the group and, in leaves, do not overlap."""
        starts, lengths = records[:, 0], records[:, 1]
        ends = starts + lengths
        if len(records) and (starts.min() < 1 or lengths.min() < 1 or ends.max() > self._blocks):
            raise self.wrong("records")
        if not self._kind.by_size:
            before = ends[:-1] if is_leaf else starts[:-1] + 1
            ascending = bool(np.all(before <= starts[1:]))
        else:
            ranks = lengths * 2**32 + starts
            ascending = bool(np.all(ranks[:-1] < ranks[1:]))
        if not ascending:
            raise self.wrong("order")

    def _read(self, pointer: int, level: int) -> _Block:
        size, header = self._geometry.block_size, self._header
        block = self._reader.read(self._start + pointer * size, size)
        magic, found_level, count, left, right = struct.unpack_from(">4sHHII", block)
        if magic != (self._kind.magic if self._geometry.has_checksums else self._kind.old_magic):
            raise self.wrong("magic number")
        if self._geometry.has_checksums:
            self._check_header(block, pointer)
        room = (size - header) // (12 if level else 8)
        if found_level != level or count > room:
            raise self.wrong("block header")
        records = (
            np.frombuffer(block, dtype=">u4", count=2 * count, offset=header).astype(np.int64).reshape(-1, 2)
        )
        pointers = np.empty(0, dtype=np.int64)
        if level:
            pointers = np.frombuffer(block, dtype=">u4", count=count, offset=header + 8 * room).astype(
                np.int64
            )
        return _Block(records, pointers, left, right)

    def _check_header(self, block: bytes, pointer: int) -> None:
        verify_checksum(block, 52, f"the btree of {self._kind.name} in group {self._group}")
        place, uuid, owner = struct.unpack_from(">Q8x16sI", block, 16)
        sector = (self._start + pointer * self._geometry.block_size) // 512
        if (place, uuid, owner) != (sector, self._geometry.metadata_uuid, self._group):
            raise self.wrong("owner")
