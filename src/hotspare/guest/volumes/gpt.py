"""GUID partition tables: primary and backup, both with their checksums.

Layout: UEFI specification 2.10, chapter 5.3. The header is in sector 1, its copy in the last sector of the
disk; each has an array of entries of its own. A sector has 512 or 4096 bytes, as the header's place shows.
"""

import struct
import uuid
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from hotspare.guest.volumes.found import printable
from hotspare.guest.volumes.window import Bytes

_MAGIC = b"EFI PART"
_HEADER = struct.Struct("<8s4sIII QQQQ 16s QIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_ARRAY_BYTES_MAX = 4 << 20
_USED_MAX = 256
"""Partitions that Linux gives names to; a table with more is not believed."""


class GptEntry(NamedTuple):
    """One partition; its place is in sectors, ``last`` belongs to it."""

    number: int
    type: str
    uuid: str
    first: int
    last: int
    name: str


@dataclass(frozen=True, slots=True)
class Gpt:
    """A header and its entries, both with valid checksums."""

    sector: int
    """Bytes of a sector."""
    disk_uuid: str
    other_header: int
    """Sector of the other copy of the header."""
    first_usable: int
    last_usable: int
    """Sectors between which partitions may lie."""
    entries: tuple[GptEntry, ...]


def read_primary(disk: Bytes, sector: int) -> Gpt | None:
    """Read the table at the start of the disk; None if it is not there or not valid."""
    return _read(disk, sector, 1)


def read_backup(disk: Bytes, sector: int, at: int | None = None) -> Gpt | None:
    """Read the copy in the sector ``at``, or in the last one; None if it is not there or not valid."""
    return _read(disk, sector, disk.size // sector - 1 if at is None else at)


def has_header(disk: Bytes, sector: int) -> bool:
    """Tell whether something calls itself a GPT header at the start of the disk, valid or not."""
    return disk.read(sector, len(_MAGIC)) == _MAGIC


def _read(disk: Bytes, sector: int, at: int) -> Gpt | None:
    header = disk.read(at * sector, sector)
    if at < 1 or len(header) < sector or header[:8] != _MAGIC:
        return None
    _, revision, size, crc, _, here, other, first, last, disk_id, array_at, count, entry_size, array_crc = (
        _HEADER.unpack_from(header)
    )
    blanked = header[:16] + bytes(4) + header[20:size]
    if revision[2:] != b"\x01\x00" or not _HEADER.size <= size <= sector or zlib.crc32(blanked) != crc:
        return None
    if (
        here != at
        or entry_size < _ENTRY.size
        or entry_size % 8
        or not 0 < count * entry_size <= _ARRAY_BYTES_MAX
    ):
        return None
    array = disk.read(array_at * sector, count * entry_size)
    if array_at < 2 or len(array) < count * entry_size or zlib.crc32(array) != array_crc:
        return None
    entries = _entries(array, entry_size)
    return None if entries is None else Gpt(sector, _guid(disk_id), other, first, last, entries)


def _entries(array: bytes, entry_size: int) -> tuple[GptEntry, ...] | None:
    found = []
    for number, start in enumerate(range(0, len(array), entry_size), start=1):
        kind, own, first, last, _attributes, name = _ENTRY.unpack_from(array, start)
        if kind == bytes(16):
            continue
        text = name.decode("utf-16-le", "replace").partition("\0")[0]
        found.append(GptEntry(number, _guid(kind), _guid(own), first, last, printable(text)))
        if len(found) > _USED_MAX:
            return None
    return tuple(found)


def _guid(raw: bytes) -> str:
    return str(uuid.UUID(bytes_le=raw))
