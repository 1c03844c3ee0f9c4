"""The superblock of ext2/3/4: what features there are, and where inodes lie."""

import struct
from dataclasses import dataclass
from enum import IntFlag

from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.files.file_system import NeedsAppliance
from hotspare.guest.files.nodes import damaged

ROOT = 2
"""The inode of the root."""
_MAGIC = 0xEF53
_OFFSET = 1024
_BLOCK_SIZE_MAX = 64 * 1024
_WINDOW = 64 * 1024
"""Bytes; inode tables begin on blocks and inodes are of a power of two, so that none crosses its end."""


class Compatible(IntFlag):
    """Features that any reader may ignore; those that are known to be harmless to a reader."""

    HAS_JOURNAL = 0x4
    EXT_ATTR = 0x8
    RESIZE_INODE = 0x10
    DIR_INDEX = 0x20
    SPARSE_SUPER2 = 0x200
    FAST_COMMIT = 0x400
    STABLE_INODES = 0x800
    ORPHAN_FILE = 0x1000


class Incompatible(IntFlag):
    """Features that a reader has to know; those that are read right."""

    FILETYPE = 0x2
    META_BG = 0x10
    EXTENTS = 0x40
    BITS_64 = 0x80
    MMP = 0x100
    FLEX_BG = 0x200
    EA_INODE = 0x400
    CSUM_SEED = 0x2000
    LARGEDIR = 0x4000
    INLINE_DATA = 0x8000
    ENCRYPT = 0x10000


class ReadOnlyCompatible(IntFlag):
    """Features that only a writer has to know; those that are read right."""

    SPARSE_SUPER = 0x1
    LARGE_FILE = 0x2
    HUGE_FILE = 0x8
    GDT_CSUM = 0x10
    DIR_NLINK = 0x20
    EXTRA_ISIZE = 0x40
    QUOTA = 0x100
    BIGALLOC = 0x200
    METADATA_CSUM = 0x400
    READONLY = 0x1000
    PROJECT = 0x2000
    ORPHAN_PRESENT = 0x10000


_NEEDS_RECOVERY = 0x4
_REFUSED_NAMES = {
    0x1: "compression",
    0x8: "it is the journal of another file system",
    0x1000: "data in directories",
    0x20000: "folders that ignore case",
}


@dataclass(frozen=True, slots=True)
class Superblock:
    """What a reader needs of it."""

    kind: str
    """``ext2``, ``ext3`` or ``ext4``, as ``blkid`` calls it."""
    size: int
    """Bytes of the file system."""
    block_size: int
    cluster_size: int
    blocks: int
    first_data_block: int
    inodes: int
    inodes_per_group: int
    inode_size: int
    descriptor_size: int
    blocks_per_group: int
    first_meta_group: int
    incompatible: int
    compatible: int
    ro_compatible: int
    clean: bool

    @property
    def groups(self) -> int:
        """How many block groups there are."""
        return -(-(self.blocks - self.first_data_block) // self.blocks_per_group)


def read_superblock(reader: CachedReader) -> Superblock:
    """Read and check it.

    Raises:
        NeedsAppliance: it has features that are not known to be read right, or its journal is not empty.
        FileSystemUnreadable: it makes no sense.
    """
    raw = reader.read(_OFFSET, 1024)
    if len(raw) < 1024 or struct.unpack_from("<H", raw, 56)[0] != _MAGIC:
        raise damaged("ext", "it has no superblock")
    inodes, blocks_low = struct.unpack_from("<II", raw, 0)
    first_data, log_block, log_cluster, per_group, _, inodes_per_group = struct.unpack_from(
        "<IIIIII", raw, 20
    )
    state, creator, revision = struct.unpack_from("<H", raw, 58)[0], *struct.unpack_from("<II", raw, 72)
    inode_size, compatible, incompatible, ro_compatible = 128, 0, 0, 0
    if revision > 0:
        (inode_size,) = struct.unpack_from("<H", raw, 88)
        compatible, incompatible, ro_compatible = struct.unpack_from("<III", raw, 92)
    kind = _kind(compatible, incompatible, ro_compatible)
    _check_features(kind, compatible, incompatible, ro_compatible)
    if creator != 0 or revision > 1:
        raise NeedsAppliance(kind, "it was not made by Linux, or in a newer revision of the format")
    wide = bool(incompatible & Incompatible.BITS_64)
    log_cluster = log_cluster if ro_compatible & ReadOnlyCompatible.BIGALLOC else log_block
    if max(log_block, log_cluster) > 20 or 1024 << log_block > _BLOCK_SIZE_MAX or log_cluster < log_block:
        raise damaged(kind, "the size of its blocks makes no sense")
    blocks = blocks_low | (struct.unpack_from("<I", raw, 0x150)[0] << 32 if wide else 0)
    found = Superblock(
        kind=kind,
        size=blocks * (1024 << log_block),
        block_size=1024 << log_block,
        cluster_size=1024 << log_cluster,
        blocks=blocks,
        first_data_block=first_data,
        inodes=inodes,
        inodes_per_group=inodes_per_group,
        inode_size=inode_size,
        descriptor_size=struct.unpack_from("<H", raw, 254)[0] if wide else 32,
        blocks_per_group=per_group,
        first_meta_group=struct.unpack_from("<I", raw, 260)[0],
        incompatible=incompatible,
        compatible=compatible,
        ro_compatible=ro_compatible,
        clean=state & 3 == 1,
    )
    _check_geometry(found)
    return found


def _kind(compatible: int, incompatible: int, ro_compatible: int) -> str:
    beyond_ext3 = incompatible & ~0x16 or ro_compatible & ~0x7
    if beyond_ext3:
        return "ext4"
    return "ext3" if compatible & Compatible.HAS_JOURNAL else "ext2"


def _check_features(kind: str, compatible: int, incompatible: int, ro_compatible: int) -> None:
    if incompatible & _NEEDS_RECOVERY:
        raise NeedsAppliance(kind, "its journal has to be replayed: it was in use when the point was taken")
    unknown = {
        "compatible": compatible & ~_all(Compatible),
        "incompatible": incompatible & ~_all(Incompatible),
        "read-only compatible": ro_compatible & ~_all(ReadOnlyCompatible),
    }
    for sort, bits in unknown.items():
        if bits:
            name = _REFUSED_NAMES.get(bits, f"{sort} features {bits:#x}") if sort == "incompatible" else ""
            raise NeedsAppliance(
                kind, f"it uses what is not proven to be read right: {name or f'{sort} {bits:#x}'}"
            )


def _all(flags: type[IntFlag]) -> int:
    return sum(flags)


def _check_geometry(found: Superblock) -> None:
    sound = (
        found.blocks > found.first_data_block
        and found.first_data_block <= 1
        and 0 < found.blocks_per_group <= 8 * found.cluster_size * (found.cluster_size // found.block_size)
        and 0 < found.inodes_per_group <= 8 * found.block_size
        and 128 <= found.inode_size <= found.block_size
        and found.inode_size & (found.inode_size - 1) == 0
        and 32 <= found.descriptor_size <= 1024
        and found.descriptor_size & (found.descriptor_size - 1) == 0
        and ROOT <= found.inodes <= found.groups * found.inodes_per_group
    )
    if not sound:
        raise damaged(found.kind, "the numbers in its superblock contradict each other")


class InodeTable:
    """Finds the bytes of inodes."""

    def __init__(self, reader: CachedReader, superblock: Superblock) -> None:
        self._reader = reader
        self._superblock = superblock
        self._tables: dict[int, int] = {}
        self._window = b""
        self._window_start = 0

    def raw(self, number: int) -> bytes:
        """Give an inode's bytes; they may be any."""
        superblock = self._superblock
        if not 0 < number <= superblock.inodes:
            raise damaged(superblock.kind, f"there is no inode {number}")
        group, index = divmod(number - 1, superblock.inodes_per_group)
        start = self._tables.get(group)
        if start is None:
            start = self._tables[group] = self._table(group)
        size = superblock.inode_size
        at = start + index * size - self._window_start
        if not 0 <= at <= len(self._window) - size:
            # Inodes of one folder lie together mostly: they are cut out of one larger piece.
            self._window_start = (start + index * size) // _WINDOW * _WINDOW
            self._window = self._reader.read(self._window_start, _WINDOW)
            at = start + index * size - self._window_start
        raw = self._window[at : at + size]
        if len(raw) < size:
            raise damaged(superblock.kind, f"inode {number} is beyond the end of the volume")
        return raw

    def _table(self, group: int) -> int:
        """Give the offset of a group's inode table."""
        superblock = self._superblock
        per_block = superblock.block_size // superblock.descriptor_size
        meta, index = divmod(group, per_block)
        if superblock.incompatible & Incompatible.META_BG and meta >= superblock.first_meta_group:
            first = superblock.first_data_block + meta * per_block * superblock.blocks_per_group
            block = first + (1 if self._has_superblock(meta * per_block) else 0)
            if meta == 0:
                block = 1 + _OFFSET // superblock.block_size
        else:
            block = 1 + _OFFSET // superblock.block_size + meta
        raw = self._reader.read(
            block * superblock.block_size + index * superblock.descriptor_size, superblock.descriptor_size
        )
        if len(raw) < superblock.descriptor_size:
            raise damaged(superblock.kind, f"the descriptor of group {group} is beyond the end of the volume")
        (table,) = struct.unpack_from("<I", raw, 8)
        if superblock.descriptor_size >= 64:
            table |= struct.unpack_from("<I", raw, 0x28)[0] << 32
        if not superblock.first_data_block < table < superblock.blocks:
            raise damaged(superblock.kind, f"the inodes of group {group} lie outside of it")
        return int(table) * superblock.block_size

    def _has_superblock(self, group: int) -> bool:
        """Tell whether a group begins with a copy of the superblock."""
        superblock = self._superblock
        if superblock.compatible & Compatible.SPARSE_SUPER2:
            raw = self._reader.read(_OFFSET + 0x24C, 8)
            return group == 0 or group in struct.unpack("<II", raw)
        if group <= 1 or not superblock.ro_compatible & ReadOnlyCompatible.SPARSE_SUPER:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1
