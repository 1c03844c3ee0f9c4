"""The free space of one allocation group of XFS: header (AGF), free list (AGFL), and two btrees.

After *XFS Algorithms & Data Structures*, "AG Free Space Management".
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hotspare.block.ranges import Ranges
from hotspare.guest.unused.unused import KeepAll
from hotspare.guest.unused.volume_bytes import VolumeBytes
from hotspare.guest.unused.xfs.btree import BY_PLACE, BY_SIZE, FreeSpaceTree, read_tree
from hotspare.guest.unused.xfs.geometry import Geometry, verify_checksum


@dataclass(frozen=True, slots=True)
class GroupSpace:
    """What is free in a group."""

    free: Ranges
    """Bytes of the volume."""
    free_blocks: int
    """As many as in ``free``."""
    listed_blocks: int
    """Kept ready for the btrees in the free list: not in ``free``, but free to the file system's own
    count."""
    tree_blocks: int
    """That the btrees of free space and of reverse mappings have grown by: free to that count too."""


@dataclass(frozen=True, slots=True)
class _Header:
    """The AGF."""

    place_root: int
    size_root: int
    place_levels: int
    size_levels: int
    listed: tuple[int, int, int]
    """First and last slot of the free list, and how many are used."""
    free_blocks: int
    longest: int
    tree_blocks: int
    reverse_mapping_blocks: int


def read_group(reader: VolumeBytes, geometry: Geometry, number: int, records_max: int) -> GroupSpace:
    """Read what is free in one allocation group.

    Args:
        reader: of the volume.
        geometry: of the file system.
        number: of the group.
        records_max: more pieces of free space than that are refused.

    Raises:
        KeepAll: anything about it is wrong, or it has too many pieces.
        SourceLost, StorageError, RepositoryDamaged: it cannot be read.
    """
    header = _read_header(reader, geometry, number)
    place = read_tree(reader, geometry, number, BY_PLACE, header.place_root, header.place_levels, records_max)
    size = read_tree(reader, geometry, number, BY_SIZE, header.size_root, header.size_levels, records_max)
    _check_counts(number, header, place, size, lazy=geometry.lazy_counters)
    listed = _read_free_list(reader, geometry, number, header)
    starts = place.records[:, 0]
    bounds = np.column_stack((starts, starts + place.records[:, 1]))
    free = Ranges.of(bounds)
    _check_claims(geometry, number, free, np.concatenate((place.blocks, size.blocks, listed)))
    return GroupSpace(
        free=Ranges(free.bounds * geometry.block_size).moved(_start(geometry, number)),
        free_blocks=header.free_blocks,
        listed_blocks=len(listed),
        tree_blocks=_grown(header, place, size),
    )


def _start(geometry: Geometry, number: int) -> int:
    return number * geometry.group_blocks * geometry.block_size


def _read_header(reader: VolumeBytes, geometry: Geometry, number: int) -> _Header:
    sector = geometry.sector_size
    block = reader.read(_start(geometry, number) + sector, sector)
    magic, version, sequence, length = struct.unpack_from(">4sIII", block)
    if (magic, version, sequence, length) != (b"XAGF", 1, number, geometry.blocks_of_group(number)):
        raise KeepAll(f"the header of its allocation group {number} makes no sense")
    if geometry.has_checksums:
        verify_checksum(block, 216, f"the header of allocation group {number}")
        if block[64:80] != geometry.metadata_uuid:
            raise KeepAll(f"the header of its allocation group {number} is of another file system")
    place_root, size_root, _, place_levels, size_levels = struct.unpack_from(">IIIII", block, 16)
    first, last, count, free, longest, trees = struct.unpack_from(">IIIIII", block, 40)
    mapping = struct.unpack_from(">I", block, 80)[0] if geometry.has_reverse_mapping else 0
    return _Header(
        place_root, size_root, place_levels, size_levels, (first, last, count), free, longest, trees, mapping
    )


def _grown(header: _Header, place: FreeSpaceTree, size: FreeSpaceTree) -> int:
    """Count the blocks of btrees but for their roots."""
    return len(place.blocks) - 1 + len(size.blocks) - 1 + max(0, header.reverse_mapping_blocks - 1)


def _check_counts(
    number: int, header: _Header, place: FreeSpaceTree, size: FreeSpaceTree, *, lazy: bool
) -> None:
    """See to it that both trees hold the same, and as much as the header says."""
    lengths = place.records[:, 1]
    in_place_order = size.records[np.argsort(size.records[:, 0], kind="stable")]
    if not np.array_equal(place.records, in_place_order):
        raise KeepAll(f"the two btrees of free space in allocation group {number} differ")
    agrees = int(lengths.sum()) == header.free_blocks and (
        header.longest == (int(lengths.max()) if len(lengths) else 0)
    )
    if not agrees or (lazy and _grown(header, place, size) != header.tree_blocks):
        raise KeepAll(f"the counters of allocation group {number} do not agree with its free space")


def _read_free_list(
    reader: VolumeBytes, geometry: Geometry, number: int, header: _Header
) -> NDArray[np.int64]:
    """Give the blocks of the free list, a ring of slots."""
    sector = geometry.sector_size
    block = reader.read(_start(geometry, number) + 3 * sector, sector)
    begin = 36 if geometry.has_checksums else 0
    if geometry.has_checksums:
        verify_checksum(block, 32, f"the free list of allocation group {number}")
        if block[:24] != b"XAFL" + number.to_bytes(4, "big") + geometry.metadata_uuid:
            raise KeepAll(f"the free list of allocation group {number} makes no sense")
    slots = np.frombuffer(block, dtype=">u4", offset=begin).astype(np.int64)
    first, last, count = header.listed
    if not count:
        return slots[:0]
    if max(first, last) >= len(slots) or count != (last - first) % len(slots) + 1:
        raise KeepAll(f"the free list of allocation group {number} makes no sense")
    return np.roll(slots, -first)[:count]


def _check_claims(geometry: Geometry, number: int, free: Ranges, taken: NDArray[np.int64]) -> None:
    """See to it that nothing we know to be in use is called free, and no block is used for two things."""
    size = geometry.blocks_of_group(number)
    headers = -(-4 * geometry.sector_size // geometry.block_size)
    claims = [(0, headers)]
    if geometry.log_block[0] == number:
        claims.append(
            (geometry.log_block[1], geometry.log_block[1] + geometry.log_size // geometry.block_size)
        )
    unique = np.unique(taken)
    in_one_place = len(unique) == len(taken) and bool(np.all((taken > 0) & (taken < size)))
    used = Ranges.of(np.column_stack((unique, unique + 1)))
    fixed = Ranges.of(claims)
    if not in_one_place or len(used & fixed) or len(free & (used | fixed)):
        raise KeepAll(f"allocation group {number} has blocks in use that it calls free, or in two uses")
