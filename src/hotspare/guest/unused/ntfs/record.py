"""Records of the master file table: attributes of files, and where the content of those lies."""

from collections.abc import Iterator
from dataclasses import dataclass

from hotspare.guest.unused.ntfs.boot import Fields, repaired
from hotspare.guest.unused.unused import KeepAll

STANDARD_INFORMATION, ATTRIBUTE_LIST, FILE_NAME = 0x10, 0x20, 0x30
VOLUME_INFORMATION, DATA, INDEX_ROOT, INDEX_ALLOCATION, BITMAP, REPARSE_POINT = (
    0x70,
    0x80,
    0x90,
    0xA0,
    0xB0,
    0xC0,
)
_END = 0xFFFFFFFF
_IN_USE, _DIRECTORY = 1, 2

COMPRESSED, ENCRYPTED, SPARSE = 0x00FF, 0x4000, 0x8000
HOLE = -1
"""Where a run lies that has no clusters."""

Run = tuple[int, int]
"""Its first cluster or ``HOLE``, and how many clusters it has."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a record, or one part of it when its run list is spread over several."""

    kind: int
    name: str
    flags: int
    instance: int
    content: bytes | None
    """None when it lies outside of the record: then the rest counts."""
    first: int = 0
    last: int = -1
    """Virtual clusters, the last one included."""
    pairs: bytes = b""
    allocated: int = 0
    size: int = 0
    initialized: int = 0
    """Bytes; only the first part has them."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the master file table."""

    number: int
    sequence: int
    is_directory: bool
    base: int
    """The reference of the record that it continues, or 0."""
    attributes: tuple[Attribute, ...]


def parse_record(octets: bytes, number: int) -> Record | None:
    """Take a record apart; None when it is not in use.

    Raises:
        KeepAll: it makes no sense.
    """
    whole = repaired(octets, b"FILE")
    used = Fields(whole).u32(0x18)
    if not 0x30 <= used <= len(whole):
        raise KeepAll("one of its records is damaged")
    record = Fields(whole[:used])
    flags = record.u16(0x16)
    if not flags & _IN_USE:
        return None
    return Record(
        number=number,
        sequence=record.u16(0x10),
        is_directory=bool(flags & _DIRECTORY),
        base=record.u64(0x20),
        attributes=tuple(_attributes(record)),
    )


def _attributes(record: Fields) -> Iterator[Attribute]:
    at = record.u16(0x14)
    kind_before = 0
    while (kind := record.u32(at)) != _END:
        length = record.u32(at + 4)
        if length < 0x18 or length % 8 or kind < kind_before or not kind:
            raise KeepAll("the attributes of one of its files are damaged")
        yield _attribute(kind, Fields(record.cut(at, length)))
        at += length
        kind_before = kind


def _attribute(kind: int, fields: Fields) -> Attribute:
    name = fields.cut(fields.u16(0x0A), 2 * fields.u8(0x09)).decode("utf-16-le", "replace")
    flags, instance = fields.u16(0x0C), fields.u16(0x0E)
    outside = fields.u8(0x08)
    if outside == 0:
        content = fields.cut(fields.u16(0x14), fields.u32(0x10))
        return Attribute(kind, name, flags, instance, content)
    pairs_at = fields.u16(0x20)
    if outside != 1 or not 0x40 <= pairs_at < len(fields.octets):
        raise KeepAll("the attributes of one of its files are damaged")
    return Attribute(
        kind=kind,
        name=name,
        flags=flags,
        instance=instance,
        content=None,
        first=fields.u64(0x10),
        last=fields.u64(0x18),
        pairs=fields.octets[pairs_at:],
        allocated=fields.u64(0x28),
        size=fields.u64(0x30),
        initialized=fields.u64(0x38),
    )


def decode_runs(part: Attribute, clusters: int) -> list[Run]:
    """Decode a run list: for each run a byte with two sizes, its length, and its distance.

    Args:
        part: an attribute that lies outside of its record.
        clusters: of the volume.

    Raises:
        KeepAll: it leaves the volume, or is not as long as it says.
    """
    pairs, at, place, total = part.pairs, 0, 0, 0
    runs: list[Run] = []
    while at < len(pairs) and pairs[at]:
        length_size, step_size = pairs[at] & 0xF, pairs[at] >> 4
        end = at + 1 + length_size + step_size
        if not 1 <= length_size <= 8 or step_size > 8 or end > len(pairs):
            raise KeepAll("a run list is damaged")
        middle = at + 1 + length_size
        length = int.from_bytes(pairs[at + 1 : middle], "little", signed=True)
        place += int.from_bytes(pairs[middle:end], "little", signed=True)
        if length < 1 or (step_size and not 0 <= place <= clusters - length):
            raise KeepAll("a run list leads out of the volume")
        runs.append((place if step_size else HOLE, length))
        total += length
        at = end
    # An attribute without any cluster says that its last one is -1.
    if at >= len(pairs) or total != (part.last + 1 - part.first) & 0xFFFFFFFFFFFFFFFF:
        raise KeepAll("a run list is not as long as it says")
    return runs
