"""Reading the trees of Btrfs.

After the Btrfs developer documentation, "On-disk format": blocks of a tree have a header, and keys in
ascending order; a key is (object id, type, offset). In nodes each key has a pointer to a block that begins
with this key, in leaves an item.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hotspare.guest.unused.btrfs.chunks import ChunkMap
from hotspare.guest.unused.btrfs.superblock import Superblock, TreeRoot
from hotspare.guest.unused.unused import KeepAll
from hotspare.guest.unused.volume_bytes import VolumeBytes

_HEADER = struct.Struct("<32x16sQ8x16xQQIB")
_HEADER_BYTES = _HEADER.size
_LEVELS_MAX = 8
_KEY = [("object", "<u8"), ("kind", "u1"), ("offset", "<u8")]
_POINTER = np.dtype([*_KEY, ("block", "<u8"), ("generation", "<u8")])
_ITEM = np.dtype([*_KEY, ("start", "<u4"), ("size", "<u4")])

Keys = NDArray[np.void]
"""Structured, with the fields ``object``, ``kind``, ``offset`` and more."""
Key = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf, checked."""

    items: Keys
    data: bytes
    """What ``start`` of an item counts in."""

    def item(self, at: int) -> bytes:
        """Give the bytes of one item."""
        start = int(self.items["start"][at])
        return self.data[start : start + int(self.items["size"][at])]


class TreeReader:
    """Reads trees that lie on one device.

    Args:
        reader: of the device's volume.
        superblock: of the file system.
        chunks: where logical addresses lie.
    """

    def __init__(self, reader: VolumeBytes, superblock: Superblock, chunks: ChunkMap) -> None:
        self._reader = reader
        self._superblock = superblock
        self._chunks = chunks
        self._budget = min(superblock.bytes_used, superblock.device_size) // superblock.node_size

    def leaves(self, root: TreeRoot) -> Iterator[Leaf]:
        """Yield all leaves of a tree, in the order of their addresses, which is not that of the keys.

        Raises:
            KeepAll: anything about the tree is wrong, or not on this device.
            SourceLost, StorageError, RepositoryDamaged: it cannot be read.
        """
        if root.level >= _LEVELS_MAX:
            raise _wrong(root, "levels")
        pointers = np.array([(0, 0, 0, root.logical, root.generation)], dtype=_POINTER)
        for level in range(root.level, 0, -1):
            below: list[Keys] = [pointers[:0]] * len(pointers)
            for at in self._in_place_order(root, pointers):
                block = self._block(root, pointers[at], level)
                found = self._keys(root, block, _POINTER)
                self._check_keys(root, found, pointers, at, is_top=level == root.level)
                below[at] = found
            pointers = np.concatenate(below)
        for at in self._in_place_order(root, pointers):
            block = self._block(root, pointers[at], 0)
            items = self._keys(root, block, _ITEM)
            self._check_keys(root, items, pointers, at, is_top=root.level == 0)
            yield self._leaf(root, items, block)

    def _in_place_order(self, root: TreeRoot, pointers: Keys) -> list[int]:
        self._budget -= len(pointers)
        if self._budget < 0:
            raise _wrong(root, "more blocks than are in use")
        if len(np.unique(pointers["block"])) != len(pointers):
            raise _wrong(root, "a loop")
        return [int(at) for at in np.argsort(pointers["block"], kind="stable")]

    def _block(self, root: TreeRoot, pointer: np.void, level: int) -> bytes:
        """Read the first sound copy of a block on this device."""
        superblock = self._superblock
        logical, generation = int(pointer["block"]), int(pointer["generation"])
        if generation > superblock.generation:
            raise _wrong(root, "a block newer than the superblock")
        copies = self._chunks.copies(logical, superblock.node_size)
        if not copies:
            raise KeepAll("a part of its metadata is on another device")
        expected = (superblock.metadata_fsid, logical, generation, root.owner, level)
        for place in copies:
            block = self._reader.read(place, superblock.node_size)
            fsid, address, found_generation, owner, _, found_level = _HEADER.unpack_from(block)
            checksum = superblock.checksum(block[32:])
            found = (fsid, address, found_generation, owner, found_level)
            if block[: len(checksum)] == checksum and found == expected:
                return block
        raise _wrong(root, "a block is damaged, or of another tree")

    @staticmethod
    def _keys(root: TreeRoot, block: bytes, kind: np.dtype[np.void]) -> Keys:
        count = _HEADER.unpack_from(block)[4]
        if _HEADER_BYTES + count * kind.itemsize > len(block):
            raise _wrong(root, "a block has too many keys")
        return np.frombuffer(block, dtype=kind, count=count, offset=_HEADER_BYTES)

    @staticmethod
    def _check_keys(root: TreeRoot, keys: Keys, pointers: Keys, at: int, *, is_top: bool) -> None:
        """See to it that keys ascend, begin with that of the pointer, and end before that of the next one."""
        if is_top:
            if not len(keys) and root.level:
                raise _wrong(root, "an empty node")
        elif not len(keys) or _key(keys[0]) != _key(pointers[at]):
            raise _wrong(root, "the first key of a block")
        elif at + 1 < len(pointers) and _key(keys[-1]) >= _key(pointers[at + 1]):
            raise _wrong(root, "the last key of a block")
        objects, kinds, offsets = keys["object"], keys["kind"], keys["offset"]
        ascending = (objects[:-1] < objects[1:]) | (
            (objects[:-1] == objects[1:])
            & ((kinds[:-1] < kinds[1:]) | ((kinds[:-1] == kinds[1:]) & (offsets[:-1] < offsets[1:])))
        )
        if not bool(np.all(ascending)):
            raise _wrong(root, "the order of keys")

    @staticmethod
    def _leaf(root: TreeRoot, items: Keys, block: bytes) -> Leaf:
        starts = items["start"].astype(np.int64)
        ends = starts + items["size"]
        if len(items) and (int(starts.min()) < items.nbytes or int(ends.max()) > len(block) - _HEADER_BYTES):
            raise _wrong(root, "an item beyond its block")
        return Leaf(items, block[_HEADER_BYTES:])


def _key(one: np.void) -> Key:
    return int(one["object"]), int(one["kind"]), int(one["offset"])


def _wrong(root: TreeRoot, what: str) -> KeepAll:
    return KeepAll(f"its tree {root.owner} makes no sense ({what})")
