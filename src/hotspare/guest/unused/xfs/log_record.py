"""Records of XFS's journal, and what they change.

After *XFS Algorithms & Data Structures*, "Journaling Log": a record is a header of one block, with further
ones for records beyond 32 KiB, and data; the data are operations, each with a header of 12 bytes. Headers
are big-endian, the items inside have the byte order of the machine that wrote them.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

import google_crc32c

from hotspare.guest.unused.unused import KeepAll
from hotspare.units import KIB

BASIC_BLOCK = 512
RECORD_MAGIC = 0xFEEDBABE
_DATA_MAX = 256 * KIB
_DATA_PER_HEADER = 32 * KIB
RECORD_BLOCKS_MAX = (_DATA_MAX + _DATA_MAX // _DATA_PER_HEADER * BASIC_BLOCK) // BASIC_BLOCK
"""With their headers."""

_START, _COMMIT, _UNMOUNT = 0x01, 0x02, 0x20
"""Flags of an operation; further ones say that it goes on in another record."""
_OF_TRANSACTION, _OF_LOG = 0x69, 0xAA
"""Who wrote an operation."""
_TRANSACTION_MAGIC = 0x5452414E
_BUFFER_ITEM = 0x123C
_HEADER_BYTES = (328, 324)
"""Counted by the checksum: by a 64-bit machine, by a 32-bit one that aligns less."""
_FURTHER_HEADER_BYTES = 260
_CHECKSUM_AT = 32


class Position(NamedTuple):
    """A log sequence number: where in the journal, and which time round."""

    cycle: int
    block: int


class _Operation(NamedTuple):
    transaction: int
    writer: int
    flags: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """One record."""

    position: Position
    blocks: int
    """With its headers."""
    tail: Position
    operations: int
    little_endian: bool
    data: bytes
    """As it was before the first word of each block gave way to the cycle."""


def parse_record(data: bytes, position: Position, uuid: bytes, *, has_checksums: bool) -> Record:
    """Read the record that begins at a position.

    Args:
        data: from there on, as long as a record may be or the journal goes.
        position: where that is, and the cycle that it must be of.
        uuid: of the file system.
        has_checksums: version 5.

    Raises:
        KeepAll: there is no whole and sound record.
    """
    magic, cycle, version, length, own, tail, checksum, _, operations = struct.unpack_from(">IIIIQQIII", data)
    if magic != RECORD_MAGIC or cycle != position.cycle or own != position.cycle << 32 | position.block:
        raise _wrong("a record's place")
    form = struct.unpack_from(">I", data, 300)[0]
    size = struct.unpack_from(">I", data, 320)[0]
    if data[304:320] != uuid:
        raise KeepAll("its journal is of another file system")
    headers = -(-size // _DATA_PER_HEADER) if version & 2 and size > _DATA_PER_HEADER else 1
    blocks = headers + -(-length // BASIC_BLOCK)
    sensible = (
        version in {1, 2}
        and form in {1, 2, 3}
        and 0 < length <= (_DATA_MAX if version & 2 else _DATA_PER_HEADER)
        and size <= _DATA_MAX
        and blocks * BASIC_BLOCK <= len(data)
    )
    if not sensible:
        raise _wrong("a record's header")
    record = Record(
        position=position,
        blocks=blocks,
        tail=Position(tail >> 32, tail & 0xFFFFFFFF),
        operations=operations,
        little_endian=form == 1,
        data=_unpacked(data[: blocks * BASIC_BLOCK], headers)[:length],
    )
    # mkfs.xfs and xfs_repair write their unmount record without a checksum.
    if has_checksums and not (checksum == 0 and is_unmount(record)):
        _verify(data, headers, length, int.from_bytes(data[_CHECKSUM_AT : _CHECKSUM_AT + 4], "little"))
    return record


def is_unmount(record: Record) -> bool:
    """Tell whether it says that the file system was unmounted, and nothing else."""
    if record.operations != 1 or len(record.data) < 12:
        return False
    writer, flags = record.data[8], record.data[9]
    return writer == _OF_LOG and bool(flags & _UNMOUNT)


def changes_superblock_only(record: Record, sector_size: int) -> bool:
    """Tell whether replaying it writes nothing but the superblock, or nothing at all."""
    regions_left: dict[int, int] = {}
    order = "<" if record.little_endian else ">"
    for operation in _operations(record):
        left = regions_left.get(operation.transaction, 0)
        if operation.writer == _OF_LOG and operation.flags == _UNMOUNT:
            continue
        if operation.writer != _OF_TRANSACTION or operation.flags not in {0, _START, _COMMIT}:
            return False
        if operation.flags:
            if operation.data or left:
                return False
            continue
        if left:
            regions_left[operation.transaction] = left - 1
            if len(operation.data) > sector_size:
                return False
        elif not _is_transaction_header(operation.data, order):
            regions = _superblock_regions(operation.data, order, sector_size)
            if not regions:
                return False
            regions_left[operation.transaction] = regions - 1
    return not any(regions_left.values())


def _is_transaction_header(data: bytes, order: str) -> bool:
    return len(data) == 16 and struct.unpack_from(f"{order}I", data)[0] == _TRANSACTION_MAGIC


def _superblock_regions(data: bytes, order: str, sector_size: int) -> int:
    """Give the number of regions of a logged buffer that is the first sector; 0 of anything else."""
    if len(data) < 20:
        return 0
    kind, regions, _, length, place = struct.unpack_from(f"{order}HHHHq", data)
    is_superblock = kind == _BUFFER_ITEM and place == 0 and 0 < length * BASIC_BLOCK <= sector_size
    return int(regions) if is_superblock and regions >= 2 else 0


def _operations(record: Record) -> list[_Operation]:
    """Split the data of a record."""
    found = []
    at = 0
    for _ in range(record.operations):
        if at + 12 > len(record.data):
            raise _wrong("an operation")
        transaction, length, writer, flags = struct.unpack_from(">IIBB", record.data, at)
        at += 12
        if length > len(record.data) - at:
            raise _wrong("an operation")
        found.append(_Operation(transaction, writer, flags, record.data[at : at + length]))
        at += length
    return found


def _unpacked(record: bytes, headers: int) -> bytes:
    """Put the first words of the data's blocks back, which the headers keep."""
    further = (
        record[number * BASIC_BLOCK + 4 : number * BASIC_BLOCK + _FURTHER_HEADER_BYTES]
        for number in range(1, headers)
    )
    kept = b"".join((record[44:300], *further))
    data = bytearray(record[headers * BASIC_BLOCK :])
    for block in range(min(len(data) // BASIC_BLOCK, len(kept) // 4)):
        data[block * BASIC_BLOCK : block * BASIC_BLOCK + 4] = kept[block * 4 : block * 4 + 4]
    return bytes(data)


def _verify(data: bytes, headers: int, length: int, expected: int) -> None:
    """Compare the checksum, which is of the record as it lies on the disk."""
    start = headers * BASIC_BLOCK
    further = b"".join(
        data[number * BASIC_BLOCK : number * BASIC_BLOCK + _FURTHER_HEADER_BYTES]
        for number in range(1, headers)
    )
    for header_bytes in _HEADER_BYTES:
        header = data[:_CHECKSUM_AT] + bytes(4) + data[_CHECKSUM_AT + 4 : header_bytes]
        if google_crc32c.value(header + further + data[start : start + length]) == expected:
            return
    raise _wrong("the checksum of a record")


def _wrong(what: str) -> KeepAll:
    return KeepAll(f"its journal makes no sense ({what})")
