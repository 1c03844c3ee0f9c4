"""Directories of NTFS: all names in one, from every block of its tree, in no order."""

from collections.abc import Iterator
from typing import NamedTuple

from hotspare.guest.unused.ntfs.boot import STRIDE, Fields, repaired
from hotspare.guest.unused.ntfs.record import BITMAP, INDEX_ALLOCATION, INDEX_ROOT, Record
from hotspare.guest.unused.ntfs.stream import Stream
from hotspare.guest.unused.ntfs.table import MasterFileTable
from hotspare.guest.unused.unused import KeepAll
from hotspare.units import KIB, MIB

_NAMES = "$I30"
_FILE_NAME = 0x30
_HAS_BLOCKS, _LAST_ENTRY = 1, 2
_BLOCK_MAX = 64 * KIB
_SIZE_MAX = 256 * MIB


class Name(NamedTuple):
    """A name in a directory."""

    name: str
    """In lower case."""
    reference: int
    """Of its file: the number of its record, and the sequence in the upper 16 bits."""


def names_in(table: MasterFileTable, directory: Record) -> Iterator[Name]:
    """Give every name in a directory.

    Raises:
        KeepAll: it is damaged, or larger than anybody would make it.
    """
    root = table.stream(directory, INDEX_ROOT, _NAMES)
    if not directory.is_directory or root is None or root.content is None:
        raise KeepAll("one of its directories is damaged")
    fields = Fields(root.content)
    size = fields.u32(8)
    if fields.u32(0) != _FILE_NAME or size.bit_count() != 1 or not STRIDE <= size <= _BLOCK_MAX:
        raise KeepAll("one of its directories is damaged")
    yield from _entries(fields, 0x10)
    if fields.u32(0x1C) & _HAS_BLOCKS:
        yield from _names_in_blocks(table, directory, size)


def _names_in_blocks(table: MasterFileTable, directory: Record, size: int) -> Iterator[Name]:
    blocks = table.stream(directory, INDEX_ALLOCATION, _NAMES)
    in_use = table.stream(directory, BITMAP, _NAMES)
    if blocks is None or in_use is None or not blocks.is_plain or not in_use.is_plain:
        raise KeepAll("one of its directories is damaged")
    if blocks.size > _SIZE_MAX:
        raise KeepAll("its root directory is too large to look for hibernation and page files in it")
    # Blocks are numbered by clusters, or by 512 bytes where a cluster holds several of them.
    step = size // table.layout.cluster if size >= table.layout.cluster else size // STRIDE
    for number in _set_bits(table, in_use, blocks.size // size):
        octets = repaired(blocks.read(table.volume, number * size, size), b"INDX")
        if int.from_bytes(octets[16:24], "little") != number * step:
            raise KeepAll("a block of one of its directories belongs elsewhere")
        yield from _entries(Fields(octets), 0x18)


def _set_bits(table: MasterFileTable, bitmap: Stream, count: int) -> Iterator[int]:
    octets = bitmap.read(table.volume, 0, min(bitmap.size, -(-count // 8)))
    if 8 * len(octets) < count:
        raise KeepAll("one of its directories is damaged")
    return (number for number in range(count) if octets[number >> 3] >> (number & 7) & 1)


def _entries(fields: Fields, header: int) -> Iterator[Name]:
    """Give the names of one node, whose header lies at ``header``."""
    at, end = header + fields.u32(header), header + fields.u32(header + 4)
    while at < end <= len(fields.octets):
        length, flags = fields.u16(at + 8), fields.u16(at + 12)
        if flags & _LAST_ENTRY:
            return
        if length < 0x52 or length % 8 or at + length > end:
            break
        name = fields.cut(at + 0x52, 2 * fields.u8(at + 0x50)).decode("utf-16-le", "replace")
        yield Name(name.lower(), fields.u64(at))
        at += length
    raise KeepAll("one of its directories is damaged")
