"""Files in the root directory that decide what may be left out: hibernation, page files, shadow copies."""

from collections.abc import Iterable
from uuid import UUID

from hotspare.block.ranges import NOTHING, Ranges
from hotspare.guest.unused.ntfs.boot import Fields
from hotspare.guest.unused.ntfs.index import Name, names_in
from hotspare.guest.unused.ntfs.record import DATA, REPARSE_POINT, STANDARD_INFORMATION, Record
from hotspare.guest.unused.ntfs.stream import Stream
from hotspare.guest.unused.ntfs.table import MasterFileTable
from hotspare.guest.unused.unused import KeepAll
from hotspare.units import KIB

_HIBERNATION = "hiberfil.sys"
_PAGING = ("pagefile.sys", "swapfile.sys")
_HEADER = 4 * KIB
HEAD_KEPT = 64 * KIB
"""So much of page and hibernation files is kept, rounded up to clusters: their headers."""

_ASLEEP = (b"hibr", b"rstr", b"link")
"""What a hibernation file begins with that will be resumed; ``link`` leads to one elsewhere."""
_AWAKE = b"wake"
_CRASH_DUMPS = (b"PAGEDUMP", b"PAGEDU64")
"""A page file that begins so holds the memory of a crash, until Windows saves it at its next start."""
_HIDDEN_AND_SYSTEM = 0x6

_SHADOWS = UUID("3808876b-c176-4e48-b7ae-04046e6cc752")
_SHADOW_HEADER = 0x1E00
_VOLUME_INFORMATION = "system volume information"

TELLING = frozenset({_HIBERNATION, *_PAGING, _VOLUME_INFORMATION})
"""Names in the root directory that the functions here look for."""


def refuse_hibernated(table: MasterFileTable, root: Iterable[Name]) -> None:
    """Look for memory that was saved when Windows was hibernated or shut down for "Fast Startup".

    It holds what file systems had not written, and what they believe to be on the disk.

    Raises:
        KeepAll: there is some, or there might be.
    """
    for _, reference in _named(root, _HIBERNATION):
        stream = table.stream(table.file(reference), DATA)
        if stream is None or not stream.is_plain or stream.size < _HEADER:
            raise KeepAll("Windows may be hibernated: its hibernation file is an unusual one")
        header = stream.read(table.volume, 0, _HEADER)
        if header[:4].lower() in _ASLEEP:
            raise KeepAll('Windows is hibernated, or was shut down for "Fast Startup"')
        if header[:4].lower() != _AWAKE and any(header):
            raise KeepAll("Windows may be hibernated: its hibernation file begins unlike others")


def refuse_shadows(table: MasterFileTable, root: Iterable[Name]) -> None:
    """Look for shadow copies: what was deleted since is free, and still read through them.

    Raises:
        KeepAll: there are some, or there might be.
    """
    header = Fields(table.volume.read(_SHADOW_HEADER, 0x80))
    if header.cut(0, 16) == _SHADOWS.bytes_le and header.u64(0x30):
        raise KeepAll("it has shadow copies, which read blocks that are free")
    for _, reference in _named(root, _VOLUME_INFORMATION):
        for name, _ in names_in(table, table.file(reference)):
            if name.endswith(f"{{{_SHADOWS}}}"):
                raise KeepAll("it has shadow copies, which read blocks that are free")


def find_scratch(table: MasterFileTable, root: Iterable[Name]) -> tuple[Ranges, frozenset[int]]:
    """Find page files and the hibernation file, when ``refuse_hibernated`` had nothing against it.

    Files of the same names that are not hidden system files are somebody's copies, and no scratch.

    Returns:
        Their bytes on the volume without their heads, and the numbers of their records.

    Raises:
        KeepAll: one of them is damaged.
    """
    parts, numbers = [NOTHING], set[int]()
    for _, reference in _named(root, _HIBERNATION, *_PAGING):
        record = table.file(reference)
        stream = table.stream(record, DATA)
        if stream is not None and _is_scratch(table, record, stream):
            parts.append(_after_head(stream))
            numbers.add(record.number)
    return Ranges.union(parts), frozenset(numbers)


def _named(names: Iterable[Name], *wanted: str) -> list[Name]:
    return [name for name in names if name.name in wanted]


def _is_scratch(table: MasterFileTable, record: Record, stream: Stream) -> bool:
    attributes = table.attributes(record)
    information = [part.content for part in attributes if part.kind == STANDARD_INFORMATION]
    if len(information) != 1 or information[0] is None:
        raise KeepAll("the attributes of one of its files are damaged")
    marks = Fields(information[0]).u32(0x20)
    return (
        marks & _HIDDEN_AND_SYSTEM == _HIDDEN_AND_SYSTEM
        and not record.is_directory
        and not any(part.kind == REPARSE_POINT for part in attributes)
        and stream.is_plain
        and stream.size >= HEAD_KEPT
        and stream.content is None
        and stream.read(table.volume, 0, 8) not in _CRASH_DUMPS
    )


def _after_head(stream: Stream) -> Ranges:
    """Give what a file occupies without its first clusters."""
    cluster = stream.layout.cluster
    kept = -(-HEAD_KEPT // cluster)
    return Ranges.of(
        ((place + max(0, kept - start)) * cluster, (place + length) * cluster)
        for start, (place, length) in zip(stream.starts, stream.runs, strict=True)
        if start + length > kept
    )
