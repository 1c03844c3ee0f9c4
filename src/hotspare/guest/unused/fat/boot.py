"""The boot sector of FAT12, FAT16 and FAT32: where things lie, and how the volume was left.

After Microsoft's "FAT: General Overview of On-Disk Format" (fatgen103), and what Windows and Linux do where
that leaves room: a FAT32 is what has no 16-bit size of its table.
"""

import struct
from dataclasses import dataclass

from hotspare.guest.unused.unused import KeepAll
from hotspare.guest.unused.volume_bytes import VolumeBytes

_BOOT = struct.Struct("<3s8sHBHBHHBHHHII")
"""Jump, maker, bytes a sector, sectors a cluster, reserved sectors, tables, root entries, sectors (16
bits), media, sectors a table (16 bits), geometry (2), hidden sectors, sectors (32 bits)."""
_BOOT_32 = struct.Struct("<IHHIHH")
"""At 0x24: sectors a table, flags, version, root cluster, sector of FSInfo, sector of the backup."""
_FS_INFO = struct.Struct("<4s480x4sII12xI")
"""Signature, signature, free clusters, where to look first, signature."""

_FAT12_END, _FAT16_END = 4085, 65525
"""Fewer clusters than that."""
_UNCLEAR = range(4085, 4087)
"""FAT16 to the specification and Linux, FAT12 to Windows."""
_FAT32_CLUSTERS_MAX = 0x0FFFFFF5
_DIRTY_BYTE = {12: 0x25, 16: 0x25, 32: 0x41}
"""Where NT and Linux keep bit 0 for "mounted, or not unmounted cleanly" and bit 1 for "to be tested"."""
_NO_MIRROR = 0x80
_UNKNOWN = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class FatLayout:
    """Where the parts of a FAT file system lie; all offsets and sizes in bytes, all within the volume."""

    bits: int
    """12, 16 or 32: of an entry of the table."""
    media: int
    size: int
    cluster: int
    clusters: int
    tables: tuple[int, ...]
    """Where each table that counts begins: more than one must be alike."""
    table_size: int
    data: int
    """Where cluster 2 begins."""
    root: int | None
    """First cluster of the root directory of a FAT32."""
    free_clusters: int | None
    """What FSInfo says, if anything."""


def read_layout(volume: VolumeBytes) -> FatLayout:
    """Read and check the boot sector and FSInfo.

    Raises:
        KeepAll: it is no FAT file system, makes no sense, or bears a mark that it is dirty.
    """
    boot = volume.read(0, 512)
    (jump, _, sector, per_cluster, reserved, tables, root_entries, short_total, media, short_table) = (
        _BOOT.unpack_from(boot)[:10]
    )
    if boot[510:] != b"\x55\xaa" or jump[0] not in {0xEB, 0xE9}:
        raise KeepAll("it has no FAT boot sector")
    if sector not in {512, 1024, 2048, 4096} or per_cluster.bit_count() != 1 or not reserved:
        raise KeepAll("the sizes in its boot sector make no sense")
    if tables not in {1, 2}:
        raise KeepAll(f"it has {tables} file allocation tables")
    if media != 0xF0 and media < 0xF8:
        raise KeepAll("its boot sector makes no sense")
    total = short_total or _BOOT.unpack_from(boot)[13]
    table_sectors = short_table or _BOOT_32.unpack_from(boot, 0x24)[0]
    data = reserved + tables * table_sectors + -(-root_entries * 32 // sector)
    clusters = (total - data) // per_cluster
    if not table_sectors or clusters < 1 or total * sector > volume.size:
        raise KeepAll("its boot sector says that it is larger than its volume, or empty")
    bits = _width(clusters, is_fat32=not short_table)
    if -(-(clusters + 2) * bits // 8) > table_sectors * sector:
        raise KeepAll("its file allocation table is too short")
    _refuse_dirty(boot, bits)
    starts = [(reserved + number * table_sectors) * sector for number in range(tables)]
    root = free = None
    if bool(root_entries) == (bits == 32):
        raise KeepAll("its root directory lies nowhere")
    if bits == 32:
        starts, root, free = _read_fat32(volume, boot, starts, sector, reserved)
        if not 2 <= root < clusters + 2:
            raise KeepAll("its root directory lies nowhere")
    return FatLayout(
        bits=bits,
        media=media,
        size=total * sector,
        cluster=per_cluster * sector,
        clusters=clusters,
        tables=tuple(starts),
        table_size=table_sectors * sector,
        data=data * sector,
        root=root,
        free_clusters=free,
    )


def _width(clusters: int, *, is_fat32: bool) -> int:
    if is_fat32 and clusters <= _FAT32_CLUSTERS_MAX:
        return 32
    if is_fat32 or clusters >= _FAT16_END or clusters in _UNCLEAR:
        raise KeepAll("its number of clusters does not tell whether it is FAT12, FAT16 or FAT32")
    return 12 if clusters < _FAT12_END else 16


def _refuse_dirty(boot: bytes, bits: int) -> None:
    marks = boot[_DIRTY_BYTE[bits]]
    if marks & 1:
        raise KeepAll("it is mounted, or was not unmounted cleanly")
    if marks & 2:
        raise KeepAll("it is marked to be checked for bad sectors")


def _read_fat32(
    volume: VolumeBytes, boot: bytes, starts: list[int], sector: int, reserved: int
) -> tuple[list[int], int, int | None]:
    _, flags, version, root, info, _ = _BOOT_32.unpack_from(boot, 0x24)
    if version:
        raise KeepAll(f"it is FAT32 of the unknown version {version >> 8}.{version & 0xFF}")
    if flags & _NO_MIRROR:
        active = flags & 0x0F
        if active >= len(starts):
            raise KeepAll("its active file allocation table does not exist")
        starts = [starts[active]]
    return starts, root, None if info in {0, 0xFFFF} else _free_count(volume, info, sector, reserved)


def _free_count(volume: VolumeBytes, info: int, sector: int, reserved: int) -> int | None:
    if info >= reserved:
        raise KeepAll("its FSInfo sector lies where none can be")
    first, second, free, _, last = _FS_INFO.unpack_from(volume.read(info * sector, 512))
    if (first, second, last) != (b"RRaA", b"rrAa", 0xAA550000):
        raise KeepAll("its FSInfo sector is damaged")
    return None if free == _UNKNOWN else int(free)
