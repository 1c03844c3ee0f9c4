"""The superblock of an XFS file system: what lies where, and which features it has.

After *XFS Algorithms & Data Structures* (the on-disk format document of xfsprogs), "Superblocks". All
numbers are big-endian, but for checksums.
"""

import struct
from dataclasses import dataclass

import google_crc32c

from hotspare.guest.unused.unused import KeepAll
from hotspare.guest.unused.volume_bytes import VolumeBytes
from hotspare.units import GIB, MIB, TIB

_MAGIC = b"XFSB"
_BYTES = 512
_INT = struct.Struct(">I")

_V4_FEATURES = (
    0x0010 | 0x0020 | 0x0040 | 0x0080 | 0x0100 | 0x0400 | 0x0800 | 0x1000 | 0x2000 | 0x4000 | 0x8000
)
"""Attributes, link counts, quota, two alignments, log version 2, sectors, unwritten extents, directories
version 2, names without case, more features. Missing: 0x0200, shared read-only mounts, which nothing
supports any more."""
_V4_LOG_VERSION_2 = 0x0400
_V4_MORE_FEATURES = 0x8000
_MORE_LAZY_COUNTERS = 0x02
_MORE_FEATURES = _MORE_LAZY_COUNTERS | 0x08 | 0x80 | 0x100 | 0x200
"""Lazy counters, attributes version 2, 32-bit project ids, checksums (version 5), file types in
directories."""
_READ_ONLY_RMAP = 0x2
_READ_ONLY_FEATURES = 0x1 | _READ_ONLY_RMAP | 0x4 | 0x8
"""Free inode btree, reverse mapping, reflinks, counts of the inode btrees' blocks."""
_META_UUID = 0x4
_NEEDS_REPAIR = 0x10
_FEATURES = 0x1 | 0x2 | _META_UUID | 0x8 | 0x20 | 0x40 | 0x80
"""File types, sparse inode chunks, another UUID in metadata, times beyond 2038, 64-bit extent counts,
exchange of ranges, parent pointers. Missing: metadata directories with realtime groups (0x100) and zones
(0x200, 0x400)."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """What the superblock says, checked for sense."""

    block_size: int
    sector_size: int
    blocks: int
    group_blocks: int
    group_count: int
    log_start: int
    """Byte of the volume."""
    log_size: int
    """Bytes."""
    log_block: tuple[int, int]
    """The allocation group that the log is in, and its first block in that."""
    free_blocks: int
    """As counted by the superblock: lazily, if ``lazy_counters``."""
    has_checksums: bool
    """Version 5; version 4 otherwise."""
    lazy_counters: bool
    has_reverse_mapping: bool
    uuid: bytes
    metadata_uuid: bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return self.blocks * self.block_size

    def blocks_of_group(self, number: int) -> int:
        """Give the length of an allocation group: all but the last have the same."""
        return min(self.group_blocks, self.blocks - number * self.group_blocks)


def read_geometry(reader: VolumeBytes) -> Geometry:
    """Read the first superblock.

    Raises:
        KeepAll: it is damaged, or has a feature or state with which nothing is proven.
        SourceLost, StorageError, RepositoryDamaged: it cannot be read.
    """
    block = reader.read(0, _BYTES)
    if block[:4] != _MAGIC:
        raise KeepAll("it has no XFS superblock")
    version = struct.unpack_from(">H", block, 100)[0]
    if version & 0xF not in {4, 5}:
        raise KeepAll(f"its XFS version {version & 0xF} is not known")
    has_checksums = version & 0xF == 5
    sector_size = struct.unpack_from(">H", block, 102)[0]
    if sector_size not in {512, 1024, 2048, 4096} or block[121] != sector_size.bit_length() - 1:
        raise KeepAll("its superblock makes no sense (sector size)")
    if has_checksums:
        verify_checksum(reader.read(0, sector_size), 224, "its superblock")
        _check_features(block)
    else:
        _check_old_features(block, version)
    if block[126]:
        raise KeepAll("mkfs.xfs has not finished it")
    geometry = _geometry(block, version, has_checksums=has_checksums, sector_size=sector_size)
    if geometry.size > reader.size:
        raise KeepAll("it is larger than its volume")
    return geometry


def verify_checksum(block: bytes, at: int, what: str) -> None:
    """Compare a block's CRC-32C, which lies at ``at`` (little-endian) and counts itself as zero.

    Raises:
        KeepAll: it differs.
    """
    expected = int.from_bytes(block[at : at + 4], "little")
    if google_crc32c.value(block[:at] + bytes(4) + block[at + 4 :]) != expected:
        raise KeepAll(f"the checksum of {what} is wrong")


def _check_features(block: bytes) -> None:
    compatible, read_only, incompatible, logged = struct.unpack_from(">IIII", block, 208)
    if incompatible & _NEEDS_REPAIR:
        raise KeepAll("it is marked as in need of a repair (xfs_repair)")
    unknown = (compatible, read_only & ~_READ_ONLY_FEATURES, incompatible & ~_FEATURES, logged)
    if any(unknown):
        raise KeepAll(f"it has features that are not known ({', '.join(f'{bits:#x}' for bits in unknown)})")


def _check_old_features(block: bytes, version: int) -> None:
    more, more_misplaced = struct.unpack_from(">II", block, 200)
    if not version & _V4_MORE_FEATURES:
        more = more_misplaced = 0
    if (version & ~0xF & ~_V4_FEATURES) or more & ~_MORE_FEATURES or more_misplaced not in {0, more}:
        raise KeepAll(f"it has features that are not known ({version:#x}, {more:#x}, {more_misplaced:#x})")


def _geometry(block: bytes, version: int, *, has_checksums: bool, sector_size: int) -> Geometry:
    block_size, blocks, realtime_blocks = struct.unpack_from(">IQQ", block, 4)
    log_start = struct.unpack_from(">Q", block, 48)[0]
    group_blocks, group_count = struct.unpack_from(">II", block, 84)
    log_blocks = struct.unpack_from(">I", block, 96)[0]
    group_bits = block[124]
    if realtime_blocks:
        raise KeepAll("it has a realtime device")
    if not log_start:
        raise KeepAll("its journal is on another device")
    log_group, log_block = log_start >> group_bits, log_start & ((1 << group_bits) - 1)
    sensible = (
        block_size in {1 << bits for bits in range(10 if has_checksums else 9, 17)}
        and block[120] == block_size.bit_length() - 1
        and sector_size <= block_size
        and 16 * MIB <= group_blocks * block_size <= TIB
        and (group_blocks - 1).bit_length() == group_bits
        and group_count == -(-blocks // group_blocks)
        and blocks - (group_count - 1) * group_blocks >= 64
    )
    if not sensible:
        raise KeepAll("its superblock makes no sense (sizes)")
    reach = min(group_blocks, blocks - log_group * group_blocks)
    if log_blocks < 512 or log_blocks * block_size > 2 * GIB or log_block + log_blocks > reach:
        raise KeepAll("its superblock makes no sense (journal)")
    more = _INT.unpack_from(block, 200)[0] if version & _V4_MORE_FEATURES else 0
    uuid, incompatible = block[32:48], _INT.unpack_from(block, 216)[0]
    return Geometry(
        block_size=block_size,
        sector_size=sector_size,
        blocks=blocks,
        group_blocks=group_blocks,
        group_count=group_count,
        log_start=(log_group * group_blocks + log_block) * block_size,
        log_size=log_blocks * block_size,
        log_block=(log_group, log_block),
        free_blocks=struct.unpack_from(">Q", block, 144)[0],
        has_checksums=has_checksums,
        lazy_counters=has_checksums or bool(more & _MORE_LAZY_COUNTERS),
        has_reverse_mapping=has_checksums and bool(_INT.unpack_from(block, 212)[0] & _READ_ONLY_RMAP),
        uuid=uuid,
        metadata_uuid=block[248:264] if has_checksums and incompatible & _META_UUID else uuid,
    )
