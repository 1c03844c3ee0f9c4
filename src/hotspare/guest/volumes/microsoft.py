"""What Windows puts into a volume: FAT, exFAT, NTFS, ReFS, BitLocker, by their boot sectors.

Layouts: Microsoft's FAT specification (2005) and exFAT specification (2019); NTFS and BitLocker as the Linux
drivers and libyal describe them.
"""

from collections.abc import Iterator

from hotspare.guest.volumes.found import Found
from hotspare.guest.volumes.window import Bytes

_BITLOCKER_TO_GO = bytes.fromhex("3bd66749292ed84a8399f6a339e3d001")
"""GUID 4967d63b-2e29-4ad8-8399-f6a339e3d001, at byte 424 of what otherwise looks like FAT."""
_SECTOR_SIZES = frozenset({512, 1024, 2048, 4096})
_DIRECTORY_MAX = 65536 * 32
"""Bytes of a root directory that are searched for a label: as large as FAT16 can have one."""


def _number(raw: bytes, at: int, length: int) -> int:
    return int.from_bytes(raw[at : at + length], "little")


def find_bitlocker(volume: Bytes) -> Found | None:
    """Recognise BitLocker, also on removable media."""
    boot = volume.read(0, 512)
    if boot[3:11] == b"-FVE-FS-" or (boot[3:11] == b"MSWIN4.1" and boot[424:440] == _BITLOCKER_TO_GO):
        return Found("bitlocker", 0, opaque="it is encrypted with BitLocker")
    return None


def find_refs(volume: Bytes) -> Found | None:
    """Recognise ReFS."""
    return Found("refs", 0) if volume.read(3, 8) == b"ReFS\0\0\0\0" else None


def find_ntfs(volume: Bytes) -> Found | None:
    """Recognise NTFS."""
    boot = volume.read(0, 512)
    if boot[3:11] != b"NTFS    " or _number(boot, 11, 2) not in _SECTOR_SIZES:
        return None
    return Found("ntfs", 0, _ntfs_label(volume, boot), f"{_number(boot, 72, 8):016X}")


def _ntfs_label(volume: Bytes, boot: bytes) -> str:
    """Read the name in record 3 of the master file table, the file ``$Volume``."""
    sector, per_cluster, per_record = _number(boot, 11, 2), boot[13], boot[64]
    cluster = sector * per_cluster if per_cluster <= 128 else sector << (256 - per_cluster)
    record_size = cluster * per_record if per_record < 128 else 1 << (256 - per_record)
    if not 512 <= record_size <= 65536:
        return ""
    record = volume.read(_number(boot, 48, 8) * cluster + 3 * record_size, record_size)
    if record[:4] != b"FILE":
        return ""
    at = _number(record, 20, 2)
    while at + 24 <= len(record):
        kind, length = _number(record, at, 4), _number(record, at + 4, 4)
        if kind == 0x60:
            start, size = at + _number(record, at + 20, 2), _number(record, at + 16, 4)
            return record[start : start + size].decode("utf-16-le", "replace")
        if kind == 0xFFFFFFFF or length < 24:
            return ""
        at += length
    return ""


def find_exfat(volume: Bytes) -> Found | None:
    """Recognise exFAT."""
    boot = volume.read(0, 512)
    if boot[3:11] != b"EXFAT   " or not 9 <= boot[108] <= 12 or boot[109] > 25 - boot[108]:
        return None
    serial = _number(boot, 100, 4)
    return Found("exfat", 0, _exfat_label(volume, boot), f"{serial >> 16:04X}-{serial & 0xFFFF:04X}")


def _exfat_label(volume: Bytes, boot: bytes) -> str:
    sector = 1 << boot[108]
    cluster = sector << boot[109]
    chain = _Chain(
        volume,
        table=_number(boot, 80, 4) * sector,
        data=_number(boot, 88, 4) * sector,
        cluster=cluster,
        width=32,
        first=_number(boot, 96, 4),
    )
    for entry in chain.entries():
        if entry[0] == 0x83:
            return entry[2 : 2 + 2 * min(entry[1], 11)].decode("utf-16-le", "replace")
    return ""


def find_fat(volume: Bytes) -> Found | None:
    """Recognise FAT12, FAT16 and FAT32: by numbers that make sense together; its magic says nothing."""
    boot = volume.read(0, 512)
    if len(boot) < 512 or boot[0] not in {0xE9, 0xEB} or boot[54:62] in {b"HPFS    ", b"JFS     "}:
        return None
    sector, per_cluster, reserved, tables = _number(boot, 11, 2), boot[13], _number(boot, 14, 2), boot[16]
    sectors = _number(boot, 19, 2) or _number(boot, 32, 4)
    if (
        sector not in _SECTOR_SIZES
        or per_cluster not in {1, 2, 4, 8, 16, 32, 64, 128}
        or not (reserved and tables and sectors)
        or not (boot[21] == 0xF0 or boot[21] >= 0xF8)
    ):
        return None
    wide = _number(boot, 22, 2) == 0
    at = 64 if wide else 36
    serial = _number(boot, at + 3, 4) if boot[at + 2] in {0x28, 0x29} else 0
    uuid = f"{serial >> 16:04X}-{serial & 0xFFFF:04X}" if serial else ""
    return Found("fat", 0, _fat_label(volume, boot, wide=wide), uuid)


def _fat_label(volume: Bytes, boot: bytes, *, wide: bool) -> str:
    """Read the entry of the root directory that names the volume; the boot sector may have an old one."""
    sector = _number(boot, 11, 2)
    tables_at = _number(boot, 14, 2) * sector
    after_tables = tables_at + boot[16] * (_number(boot, 36, 4) if wide else _number(boot, 22, 2)) * sector
    entries: Iterator[bytes]
    if wide:
        first = _number(boot, 44, 4)
        entries = _Chain(volume, tables_at, after_tables, boot[13] * sector, 28, first).entries()
    else:
        entries = _split(volume.read(after_tables, _number(boot, 17, 2) * 32))
    for entry in entries:
        if entry[0] == 0:
            return ""
        if entry[0] != 0xE5 and entry[11] & 0x18 == 0x08 and entry[11] != 0x0F:
            name = b"\xe5" + entry[1:11] if entry[0] == 0x05 else entry[:11]
            return name.rstrip(b" \0").decode("utf-8", "replace")
    return ""


class _Chain:
    """The clusters of a directory, linked by a table of 32-bit numbers."""

    def __init__(self, volume: Bytes, table: int, data: int, cluster: int, width: int, first: int) -> None:
        self._volume = volume
        self._table = table
        self._data = data
        self._cluster = cluster
        self._mask = (1 << width) - 1
        self._next = first

    def entries(self) -> Iterator[bytes]:
        """Yield entries of 32 bytes. A loop is left after as many as the largest directory has."""
        left = _DIRECTORY_MAX
        while left > 0 and 2 <= self._next < self._mask - 8:
            content = self._volume.read(
                self._data + (self._next - 2) * self._cluster, min(self._cluster, left)
            )
            yield from _split(content)
            link = self._volume.read(self._table + 4 * self._next, 4)
            if not content or len(link) < 4:
                return
            self._next = int.from_bytes(link, "little") & self._mask
            left -= len(content)


def _split(directory: bytes) -> Iterator[bytes]:
    for start in range(0, len(directory) - 31, 32):
        yield directory[start : start + 32]
