"""Btrfs' own account of its devices: the chunk tree, the device tree, and what is going on between them.

After the Btrfs developer documentation, "On-disk format". The chunk tree says where each chunk has its
stripes, the device tree of each device which chunk takes its bytes: both must tell the same.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hotspare.block.ranges import Ranges
from hotspare.guest.unused.btrfs.chunks import Chunk, ChunkMap, parse_chunk
from hotspare.guest.unused.btrfs.superblock import Superblock, TreeRoot
from hotspare.guest.unused.btrfs.tree import Leaf, TreeReader
from hotspare.guest.unused.unused import KeepAll

_DEVICE_ITEMS, _CHUNK_TREE_OBJECT = 1, 256
_DEVICE_ITEM, _CHUNK_ITEM, _DEVICE_EXTENT, _DEVICE_STATS, _DEVICE_REPLACE = 216, 228, 204, 249, 250
_DEVICE = struct.Struct("<QQQIIIQQQIBB16s16s")
_EXTENT = struct.Struct("<QQQQ16s")
_REPLACE_RUNS = frozenset({1, 4})
"""States of a replacement: started, suspended."""

_ROOT_ITEM, _TEMPORARY_ITEM = 132, 248
_BALANCE = 2**64 - 4
_RELOCATION = 2**64 - 8
_ROOT = struct.Struct("<160xQ8xQ54xB")
"""Generation, address, level."""
_EXTENT_TREE, _DEVICE_TREE, _BLOCK_GROUP_TREE = 2, 4, 11


@dataclass(frozen=True, slots=True)
class Roots:
    """The trees that matter here."""

    extents: TreeRoot
    devices: TreeRoot
    block_groups: TreeRoot | None
    """None if they are in the extent tree."""


def read_chunks(trees: TreeReader, superblock: Superblock, system: list[Chunk]) -> ChunkMap:
    """Read all chunks, and check what is said about devices on the way.

    Args:
        trees: that knows the system chunks only.
        superblock: of the file system.
        system: the chunks in the superblock.

    Raises:
        KeepAll: anything about it is wrong.
        SourceLost, StorageError, RepositoryDamaged: it cannot be read.
    """
    chunks: list[Chunk] = []
    devices: dict[int, tuple[int, ...]] = {}
    for leaf in trees.leaves(superblock.chunk_tree):
        for at, (owner, kind, offset) in _keys(leaf):
            if (owner, kind) == (_CHUNK_TREE_OBJECT, _CHUNK_ITEM):
                chunks.append(parse_chunk(offset, leaf.item(at)))
            elif (owner, kind) == (_DEVICE_ITEMS, _DEVICE_ITEM):
                devices[offset] = _check_device(leaf.item(at), offset, superblock)
            else:
                raise KeepAll("its chunk tree has items of an unknown type")
    if len(devices) != superblock.devices or superblock.device_id not in devices:
        raise KeepAll("its devices are not those that its superblock counts")
    found = ChunkMap(chunks, superblock.device_id)
    if [chunk for chunk in found.chunks if chunk.is_system] != sorted(system, key=lambda chunk: chunk.start):
        raise KeepAll("its system chunks are not those of its superblock")
    stripes = [stripe for chunk in chunks for stripe in chunk.stripes]
    own = {uuid for device, _, uuid in stripes if device == superblock.device_id}
    if own - {superblock.device_uuid} or {device for device, _, _ in stripes} - devices.keys():
        raise KeepAll("its chunks are on devices that it does not have")
    _check_used(found, devices, superblock)
    return found


def read_roots(trees: TreeReader, superblock: Superblock) -> Roots:
    """Find the trees that matter here, and see whether a balance goes on.

    Raises:
        KeepAll: anything about it is wrong, or a balance goes on.
        SourceLost, StorageError, RepositoryDamaged: it cannot be read.
    """
    roots: dict[int, TreeRoot] = {}
    for leaf in trees.leaves(superblock.root_tree):
        kinds = leaf.items["kind"]
        for at in np.flatnonzero((kinds == _ROOT_ITEM) | (kinds == _TEMPORARY_ITEM)):
            owner, kind = int(leaf.items["object"][at]), int(kinds[at])
            if owner in {_BALANCE, _RELOCATION}:
                raise KeepAll("a balance goes on, or was broken off")
            if kind == _ROOT_ITEM and owner in {_EXTENT_TREE, _DEVICE_TREE, _BLOCK_GROUP_TREE}:
                if owner in roots or int(leaf.items["offset"][at]):
                    raise KeepAll("its root tree makes no sense")
                roots[owner] = _root(owner, leaf.item(int(at)))
    expected = {_EXTENT_TREE, _DEVICE_TREE} | (
        {_BLOCK_GROUP_TREE} if superblock.has_block_group_tree else set()
    )
    if roots.keys() != expected:
        raise KeepAll("its root tree makes no sense")
    return Roots(roots[_EXTENT_TREE], roots[_DEVICE_TREE], roots.get(_BLOCK_GROUP_TREE))


def read_allocated(trees: TreeReader, root: TreeRoot, chunks: ChunkMap, superblock: Superblock) -> Ranges:
    """Give the bytes of this device that chunks take, by the device tree, which must agree with them.

    Raises:
        KeepAll: anything about it is wrong, or a device is being replaced.
        SourceLost, StorageError, RepositoryDamaged: it cannot be read.
    """
    found: list[tuple[int, int, int]] = []
    for leaf in trees.leaves(root):
        for at, (owner, kind, offset) in _keys(leaf):
            item = leaf.item(at)
            if kind == _DEVICE_REPLACE:
                _check_replacement(item)
            elif kind == _DEVICE_EXTENT and len(item) == _EXTENT.size:
                if owner == superblock.device_id:
                    found.append((offset, *_EXTENT.unpack(item)[2:4]))
            elif kind != _DEVICE_STATS:
                raise KeepAll("its device tree makes no sense")
    expected = _stripes(chunks)
    if sorted(found) != expected:
        raise KeepAll("its device tree does not agree with its chunks")
    bounds = [(start, start + length) for start, _, length in expected]
    if any(one[1] > other[0] for one, other in pairwise(bounds)):
        raise KeepAll("its chunks overlap on the device")
    if bounds and bounds[-1][1] > superblock.device_size:
        raise KeepAll("its chunks go beyond the device")
    return Ranges.of(bounds)


def _check_replacement(item: bytes) -> None:
    if len(item) < 40 or int.from_bytes(item[32:40], "little") in _REPLACE_RUNS:
        raise KeepAll("one of its devices is being replaced")


def _stripes(chunks: ChunkMap) -> list[tuple[int, int, int]]:
    """Give physical start, logical start of the chunk, and length of all stripes on this device, in order."""
    return sorted(
        (start, chunk.start, chunk.stripe_length)
        for chunk in chunks.chunks
        for start in chunk.starts_on(chunks.device)
    )


def _keys(leaf: Leaf) -> list[tuple[int, tuple[int, int, int]]]:
    items = leaf.items
    return list(
        enumerate(
            zip(items["object"].tolist(), items["kind"].tolist(), items["offset"].tolist(), strict=True)
        )
    )


def _check_device(item: bytes, number: int, superblock: Superblock) -> tuple[int, ...]:
    """Compare a device with the superblock; give its size and how much of it chunks take."""
    if len(item) != _DEVICE.size:
        raise KeepAll("one of its devices makes no sense")
    fields = _DEVICE.unpack(item)
    if fields[-1] != superblock.metadata_fsid:
        raise KeepAll("it was sprouted from a seed")
    if fields[0] != number:
        raise KeepAll("one of its devices makes no sense")
    if number == superblock.device_id and (fields[1], fields[-2]) != (
        superblock.device_size,
        superblock.device_uuid,
    ):
        raise KeepAll("its device is not as its superblock says")
    return fields[1], fields[2]


def _check_used(chunks: ChunkMap, devices: dict[int, tuple[int, ...]], superblock: Superblock) -> None:
    if sum(length for _, _, length in _stripes(chunks)) != devices[superblock.device_id][1]:
        raise KeepAll("the counter of its device does not agree with its chunks")


def _root(owner: int, item: bytes) -> TreeRoot:
    if len(item) < _ROOT.size:
        raise KeepAll("its root tree makes no sense")
    generation, logical, level = _ROOT.unpack_from(item)
    return TreeRoot(owner, logical, level, generation)
