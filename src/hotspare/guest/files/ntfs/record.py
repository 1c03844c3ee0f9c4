"""Records of NTFS's master file table: the marks that libfsntfs does not tell.

Layout: Linux-NTFS project's documentation of NTFS, and Microsoft's [MS-FSCC] for reparse points.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import NamedTuple

NUMBER = (1 << 48) - 1
"""The bits of a reference that are a record's number; those above count how often it was used."""
_END = 0xFFFFFFFF
_STRIDE = 512
_DOS_ONLY = 2
"""Namespace of a short name that goes along with a long one."""
_NAMESPACE = 65


class Sort(IntEnum):
    """Types of attributes."""

    ATTRIBUTE_LIST = 0x20
    FILE_NAME = 0x30
    VOLUME_INFORMATION = 0x70
    DATA = 0x80
    REPARSE_POINT = 0xC0


class AttributeFlags(IntFlag):
    """How an attribute's value is kept."""

    COMPRESSED = 0x00FF
    ENCRYPTED = 0x4000
    SPARSE = 0x8000


class Tag(IntEnum):
    """Tags of reparse points: what a file is instead of a file."""

    MOUNT_POINT = 0xA0000003
    SYMBOLIC_LINK = 0xA000000C
    COMPRESSED_BY_WOF = 0x80000017
    LINUX_LINK = 0xA000001D
    LINUX_SOCKET = 0x80000023
    LINUX_FIFO = 0x80000024


class Attribute(NamedTuple):
    """One attribute of a record."""

    sort: int
    name: str
    flags: int
    value: bytes | None
    """None where it lies outside of the record."""
    size: int
    """Bytes of the value."""
    runs: tuple[tuple[int, int], ...] = ()
    """Of the list of attributes, where it lies outside: (first cluster, clusters)."""


class Record(NamedTuple):
    """One record, after its fix-ups."""

    names: int
    attributes: tuple[Attribute, ...]

    @property
    def links(self) -> int:
        """Count its names, without those that only DOS sees."""
        short = sum(
            len(value) > _NAMESPACE and value[_NAMESPACE] == _DOS_ONLY
            for value in self.values(Sort.FILE_NAME)
        )
        return max(1, self.names - short)

    def values(self, sort: Sort) -> Iterator[bytes]:
        """Yield the values of a sort that lie in the record."""
        return (one.value for one in self.attributes if one.sort == sort and one.value is not None)

    @property
    def list_of_attributes(self) -> Attribute | None:
        """The attribute that names others in other records."""
        return next((one for one in self.attributes if one.sort == Sort.ATTRIBUTE_LIST), None)


def parse_record(raw: bytes) -> Record:
    """Parse a record's bytes.

    Raises:
        ValueError: it makes no sense.
    """
    fixed = _fixed_up(raw)
    names, at = struct.unpack_from("<HH", fixed, 18)
    found: list[Attribute] = []
    while at + 24 <= len(fixed):
        sort, length = struct.unpack_from("<II", fixed, at)
        if sort == _END:
            break
        if length < 24 or length & 7 or at + length > len(fixed):
            raise ValueError("an attribute of impossible length")
        found.append(_attribute(sort, fixed[at : at + length]))
        at += length
    return Record(names, tuple(found))


def names_of(head: bytes) -> int:
    """Give how many names a record has, short ones too; its head lies before all fix-ups."""
    return int(struct.unpack_from("<H", head, 18)[0]) if len(head) >= 24 else 0


def listed_records(value: bytes) -> Iterator[int]:
    """Yield the records that a list of attributes names, but not those that only go on with a value."""
    at = 0
    while at + 26 <= len(value):
        sort, length = struct.unpack_from("<IH", value, at)
        if length < 26:
            raise ValueError("a list of attributes that makes no sense")
        start, reference = struct.unpack_from("<QQ", value, at + 8)
        if start == 0 and sort in {Sort.FILE_NAME, Sort.DATA, Sort.REPARSE_POINT}:
            yield reference & NUMBER
        at += length


def _fixed_up(raw: bytes) -> bytes:
    """Put back the two bytes of each sector's end that the record keeps at its start."""
    if len(raw) < 48 or raw[:4] != b"FILE":
        raise ValueError("no record")
    start, count = struct.unpack_from("<HH", raw, 4)
    if count != len(raw) // _STRIDE + 1 or start < 40 or start + 2 * count > _STRIDE - 2:
        raise ValueError("a record of impossible size")
    fixed = bytearray(raw)
    for index in range(1, count):
        end = index * _STRIDE
        if raw[end - 2 : end] != raw[start : start + 2]:
            raise ValueError("a record that was written only in part")
        fixed[end - 2 : end] = raw[start + 2 * index : start + 2 * index + 2]
    return bytes(fixed)


def _attribute(sort: int, raw: bytes) -> Attribute:
    outside, name_length, name_offset, flags = struct.unpack_from("<BBHH", raw, 8)
    if name_offset + 2 * name_length > len(raw):
        raise ValueError("an attribute whose name goes beyond it")
    name = raw[name_offset : name_offset + 2 * name_length].decode("utf-16-le", errors="surrogatepass")
    if outside:
        return _outside(sort, name, flags, raw)
    length, offset = struct.unpack_from("<IH", raw, 16)
    if offset + length > len(raw):
        raise ValueError("an attribute whose value goes beyond it")
    return Attribute(sort, name, flags, raw[offset : offset + length], length)


def _outside(sort: int, name: str, flags: int, raw: bytes) -> Attribute:
    if len(raw) < 64:
        raise ValueError("an attribute of impossible length")
    (at,) = struct.unpack_from("<H", raw, 32)
    (size,) = struct.unpack_from("<Q", raw, 48)
    runs = tuple(_runs(raw[at:])) if sort == Sort.ATTRIBUTE_LIST else ()
    return Attribute(sort, name, flags, None, size, runs)


def _runs(pairs: bytes) -> Iterator[tuple[int, int]]:
    """Yield what mapping pairs say: how many clusters, and how far from the ones before."""
    at = cluster = 0
    while at < len(pairs) and pairs[at]:
        length_bytes, offset_bytes = pairs[at] & 15, pairs[at] >> 4
        end = at + 1 + length_bytes + offset_bytes
        if not 0 < length_bytes <= 8 or not 0 < offset_bytes <= 8 or end > len(pairs):
            raise ValueError("runs of clusters that make no sense")
        count = int.from_bytes(pairs[at + 1 : at + 1 + length_bytes], "little")
        cluster += int.from_bytes(pairs[at + 1 + length_bytes : end], "little", signed=True)
        if cluster < 0:
            raise ValueError("runs of clusters that make no sense")
        yield cluster, count
        at = end


def link_target(value: bytes) -> str | None:
    """Give where a reparse point leads, with ``/`` between names; None when it is no good link."""
    if len(value) < 8:
        return None
    tag, length = struct.unpack_from("<IH", value)
    data = value[8 : 8 + length]
    if tag == Tag.LINUX_LINK:
        return data[4:].decode(errors="surrogateescape") if len(data) > 4 else None
    if tag not in {Tag.MOUNT_POINT, Tag.SYMBOLIC_LINK} or len(data) < 12:
        return None
    names = data[12 if tag == Tag.SYMBOLIC_LINK else 8 :]
    real_at, real_length, shown_at, shown_length = struct.unpack_from("<HHHH", data)
    shown = names[shown_at : shown_at + shown_length] or names[real_at : real_at + real_length]
    if not shown or len(shown) & 1:
        return None
    text = shown.decode("utf-16-le", errors="surrogatepass").removeprefix("\\??\\")
    return text.replace("\\", "/").encode(errors="surrogatepass").decode(errors="surrogateescape")
