"""Where the content of an inode lies: a tree of extents, or the older blocks of pointers."""

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.files.ext.inode import EXTENTS, Inode
from hotspare.guest.files.ext.superblock import Superblock
from hotspare.guest.files.nodes import damaged
from hotspare.guest.files.runs import Run

_EXTENT_MAGIC = 0xF30A
_DEPTH_MAX = 5
_UNWRITTEN = 32768
"""Lengths above it mark an extent that is allocated, was never written, and reads as zeroes."""
_RUNS_MAX = 4_000_000

Pointers = NDArray[np.uint32]


def map_content(reader: CachedReader, superblock: Superblock, inode: Inode) -> list[Run]:
    """Give the runs of an inode's content that are stored, in order; all lie within the file system.

    Raises:
        FileSystemUnreadable: the map makes no sense.
    """
    mapping = _Mapping(reader, superblock, inode)
    return mapping.by_extents() if inode.flags & EXTENTS else mapping.by_pointers()


class _Mapping:
    def __init__(self, reader: CachedReader, superblock: Superblock, inode: Inode) -> None:
        self._reader = reader
        self._superblock = superblock
        self._inode = inode
        self._visited: set[int] = set()
        self._runs: list[Run] = []
        self._next_block = 0

    def by_extents(self) -> list[Run]:
        for first, count, start in self._extents(self._inode.block, None, 0, 1 << 32):
            if first < self._next_block:
                raise self._wrong("extents that overlap")
            self._next_block = first + (count - _UNWRITTEN if count > _UNWRITTEN else count)
            if count <= _UNWRITTEN:
                self._add(first, start, count)
        return self._runs

    def _extents(self, node: bytes, depth: int | None, low: int, high: int) -> Iterator[tuple[int, int, int]]:
        """Yield (first block, length as stored, place) of the leaves below a node that covers low to high."""
        magic, entries, _, level = struct.unpack_from("<HHHH", node)
        if magic != _EXTENT_MAGIC or entries > (len(node) - 12) // 12 or level > _DEPTH_MAX:
            raise self._wrong("a tree of extents that is none")
        if depth is not None and level != depth:
            raise self._wrong("a tree of extents whose levels contradict each other")
        rows = [struct.unpack_from("<IHHI", node, 12 + 12 * index) for index in range(entries)]
        if level == 0:
            for first, count, start_high, start in rows:
                if count == 0 or not low <= first < high:
                    raise self._wrong("an extent outside of its branch")
                yield first, count, start | start_high << 32
            return
        for index in range(entries):
            first, child_low, child_high, _ = struct.unpack_from("<IIHH", node, 12 + 12 * index)
            following = rows[index + 1][0] if index + 1 < entries else high
            if not low <= first < following <= high:
                raise self._wrong("branches of extents that are not in order")
            yield from self._extents(self._node(child_low | child_high << 32), level - 1, first, following)

    def by_pointers(self) -> list[Run]:
        pointers = np.frombuffer(self._inode.block, dtype="<u4")
        self._add_pointers(pointers[:12], 0)
        per_block = self._superblock.block_size // 4
        wanted = -(-self._inode.size // self._superblock.block_size)
        first = 12
        for level in range(1, 4):
            if first < wanted:
                self._descend(int(pointers[11 + level]), level, first, wanted)
            first += per_block**level
        return self._runs

    def _descend(self, block: int, level: int, first: int, wanted: int) -> None:
        """Add what a block of pointers, ``level`` above the content, maps from the block ``first`` on."""
        if block == 0:
            return
        pointers = np.frombuffer(self._node(block), dtype="<u4")
        if level == 1:
            self._add_pointers(pointers[: max(0, wanted - first)], first)
            return
        span = (self._superblock.block_size // 4) ** (level - 1)
        for index in np.flatnonzero(pointers):
            if first + int(index) * span >= wanted:
                break
            self._descend(int(pointers[index]), level - 1, first + int(index) * span, wanted)

    def _add_pointers(self, pointers: Pointers, first: int) -> None:
        if not len(pointers):
            return
        wide = pointers.astype(np.int64)
        # Where the next pointer is not the next block, or a hole begins or ends, a run is over.
        breaks = np.flatnonzero((np.diff(wide) != 1) | (wide[:-1] == 0)) + 1
        starts = np.concatenate(([0], breaks))
        ends = np.concatenate((breaks, [len(wide)]))
        stored = wide[starts] != 0
        for start, end in zip(starts[stored].tolist(), ends[stored].tolist(), strict=True):
            self._add(first + start, int(wide[start]), end - start)

    def _node(self, block: int) -> bytes:
        """Read a block of the map, once."""
        if block in self._visited:
            raise self._wrong("a map that leads back into itself")
        self._visited.add(block)
        if not self._superblock.first_data_block < block < self._superblock.blocks:
            raise self._wrong("a map outside of the file system")
        size = self._superblock.block_size
        node = self._reader.read(block * size, size)
        if len(node) < size:
            raise self._wrong("a map beyond the end of the volume")
        return node

    def _add(self, first: int, block: int, count: int) -> None:
        superblock = self._superblock
        if block <= superblock.first_data_block:
            raise self._wrong("content where the superblock is")
        if block + count > superblock.blocks:
            raise self._wrong("content outside of the file system")
        size = superblock.block_size
        run = Run(first * size, count * size, block * size)
        if self._runs:
            last = self._runs[-1]
            if last.offset + last.length == run.offset and last.place + last.length == run.place:
                self._runs[-1] = Run(last.offset, last.length + run.length, last.place)
                return
        if len(self._runs) >= _RUNS_MAX:
            raise self._wrong("more pieces than can be")
        self._runs.append(run)

    def _wrong(self, what: str) -> Exception:
        return damaged(self._superblock.kind, f"inode {self._inode.number} has {what}")
