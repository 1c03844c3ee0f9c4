"""Directory entries of FAT, with the long names that VFAT puts before them."""

import struct
from collections.abc import Iterator
from os import fsdecode
from typing import NamedTuple

ENTRY = 32
"""Bytes."""
_FIELDS = struct.Struct("<11sBB7xHHHHI")
_LABEL = 0x08
_FOLDER = 0x10
_LONG_NAME = 0x0F
_SMALL_NAME, _SMALL_SUFFIX = 0x08, 0x10
_DELETED = 0xE5
_LAST = 0x40
_PARTS_MAX = 20
_CODE_PAGE = "cp437"
"""Of short names; nothing on the disk says which, and Linux takes this one unless told otherwise."""


class Found(NamedTuple):
    """A file or folder of FAT."""

    name: str
    is_folder: bool
    first: int
    """Cluster; 0 for none."""
    size: int
    day: int
    time: int
    place: int
    """Of its entry, in the order of the folder."""


def parse_entries(raw: bytes, *, wide: bool) -> Iterator[Found]:
    """Yield what a folder's bytes name.

    Args:
        raw: the whole folder.
        wide: whether numbers of clusters have 32 bits.
    """
    parts: dict[int, bytes] = {}
    expected = checksum = 0
    for place in range(len(raw) // ENTRY):
        entry = raw[place * ENTRY : (place + 1) * ENTRY]
        if entry[0] == 0:
            return
        if entry[0] == _DELETED:
            parts, expected = {}, 0
            continue
        attributes = entry[11]
        if attributes & 0x3F == _LONG_NAME:
            number = entry[0] & 0x1F
            if entry[0] & _LAST:
                parts, expected, checksum = {}, number, entry[13]
            if number != expected or not 0 < number <= _PARTS_MAX or entry[13] != checksum:
                parts, expected = {}, 0
                continue
            parts[number] = entry[1:11] + entry[14:26] + entry[28:32]
            expected -= 1
            continue
        complete = bool(parts) and expected == 0 and checksum == short_checksum(entry[:11])
        long_name = _long_name(parts) if complete else ""
        parts, expected = {}, 0
        if attributes & _LABEL:
            continue
        found = _found(entry, long_name, place, wide=wide)
        if found.name not in {".", ".."}:
            yield found


def _long_name(parts: dict[int, bytes]) -> str:
    return join_units(b"".join(parts[number] for number in sorted(parts))).partition("\0")[0]


def _found(entry: bytes, long_name: str, place: int, *, wide: bool) -> Found:
    short, attributes, case, high, time, day, low, size = _FIELDS.unpack(entry)
    return Found(
        name=long_name or short_name(short, case),
        is_folder=bool(attributes & _FOLDER),
        first=low | high << 16 if wide else low,
        size=size,
        day=day,
        time=time,
        place=place,
    )


def short_checksum(short: bytes) -> int:
    """Give the checksum of a short name that its parts of a long name carry."""
    total = 0
    for byte in short:
        total = ((total >> 1 | total << 7) + byte) & 0xFF
    return total


def short_name(short: bytes, case: int) -> str:
    """Give the name of 8 and 3 characters, in small letters where Windows marked it so."""
    if short[0] == 0x05:
        short = bytes([_DELETED]) + short[1:]
    name = short[:8].rstrip(b" ").decode(_CODE_PAGE)
    suffix = short[8:].rstrip(b" ").decode(_CODE_PAGE)
    name = name.lower() if case & _SMALL_NAME else name
    suffix = suffix.lower() if case & _SMALL_SUFFIX else suffix
    return f"{name}.{suffix}" if suffix else name


def join_units(raw: bytes) -> str:
    """Decode a name of UTF-16 units; a lone surrogate gets the bytes of its code point."""
    text = raw.decode("utf-16-le", errors="surrogatepass")
    return fsdecode(text.encode(errors="surrogatepass"))
