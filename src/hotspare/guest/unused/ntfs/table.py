"""The master file table: records by their number, and files that need several of them."""

from collections.abc import Iterator
from dataclasses import dataclass

from hotspare.guest.unused.ntfs.boot import Fields, NtfsLayout, repaired
from hotspare.guest.unused.ntfs.record import ATTRIBUTE_LIST, DATA, Attribute, Record, parse_record
from hotspare.guest.unused.ntfs.stream import Stream
from hotspare.guest.unused.unused import KeepAll
from hotspare.guest.unused.volume_bytes import VolumeBytes
from hotspare.units import KIB

MFT, MIRROR, LOG_FILE, VOLUME, ROOT, BITMAP_FILE, BAD_CLUSTERS = 0, 1, 2, 3, 5, 6, 8
SYSTEM_FILES = range(12)
_MIRRORED = 4
"""So many records have a copy, at least."""
_LIST_MAX = 256 * KIB
_RECORDS_HELD = 256
"""So many records of one file are remembered."""
_NUMBER = (1 << 48) - 1


@dataclass(frozen=True, slots=True)
class _Listed:
    """An entry of an attribute list: which record holds which attribute, or part of one."""

    kind: int
    name: str
    first: int
    reference: int
    instance: int


class MasterFileTable:
    """The master file table of a volume.

    Raises:
        KeepAll: it makes no sense.
    """

    def __init__(self, volume: VolumeBytes, layout: NtfsLayout) -> None:
        self.volume = volume
        self.layout = layout
        base = parse_record(volume.read(layout.mft * layout.cluster, layout.record), MFT)
        parts = [part for part in base.attributes if _is_content(part)] if base else []
        if base is None or len(parts) != 1:
            raise KeepAll("its master file table is damaged")
        self.data = Stream.begun(parts[0], layout)
        """The table itself."""
        # Further parts of its own run list lie in records that the parts before lead to.
        for entry in self._listed(base):
            if entry.kind == DATA and not entry.name and entry.first:
                self.data.append(self._part(base, entry, {}))
        self.data.refuse_contradictions()
        if not self.data.is_plain or not self.data.runs or self.data.runs[0][0] != layout.mft:
            raise KeepAll("its master file table is damaged")
        if self.data.clusters > layout.clusters:
            raise KeepAll("its master file table is larger than its volume")
        self._compare_mirror()

    def record(self, number: int) -> Record:
        """Read a record that has to be in use.

        Raises:
            KeepAll: it is not, or is damaged.
        """
        octets = self.data.read(self.volume, number * self.layout.record, self.layout.record)
        record = parse_record(octets, number)
        if record is None:
            raise KeepAll("a file that it needs is said to be deleted")
        return record

    def file(self, reference: int) -> Record:
        """Read the first record of a file that a directory refers to, by number and sequence.

        Raises:
            KeepAll: another file is there now, or none.
        """
        record = self.record(reference & _NUMBER)
        if record.base or record.sequence != reference >> 48:
            raise KeepAll("a directory names a file that does not exist")
        return record

    def attributes(self, base: Record) -> list[Attribute]:
        """Give all attributes of a file, those of further records included.

        Raises:
            KeepAll: one is missing.
        """
        listed = self._listed(base)
        if not listed:
            return list(base.attributes)
        records: dict[int, Record] = {}
        return [self._part(base, entry, records) for entry in listed]

    def stream(self, base: Record, kind: int, name: str = "") -> Stream | None:
        """Give the content of an attribute, or None if the file has no such.

        Raises:
            KeepAll: it makes no sense.
        """
        parts = [part for part in self.attributes(base) if part.kind == kind and part.name == name]
        return Stream.of(parts, self.layout) if parts else None

    def _listed(self, base: Record) -> list[_Listed]:
        """Read the attribute list of a file; empty if it has none, since one record holds all."""
        lists = [part for part in base.attributes if part.kind == ATTRIBUTE_LIST]
        if not lists:
            return []
        stream = Stream.of(lists, self.layout)
        if not stream.is_plain or not 0 < stream.size <= _LIST_MAX:
            raise KeepAll("an attribute list is damaged")
        return list(_parse_list(Fields(stream.read(self.volume, 0, stream.size))))

    def _part(self, base: Record, entry: _Listed, records: dict[int, Record]) -> Attribute:
        """Find what an attribute list names; ``records`` are those found before, and take in others."""
        number, sequence = entry.reference & _NUMBER, entry.reference >> 48
        record = base if number == base.number else records.get(number)
        if record is None:
            record = self.record(number)
            if len(records) >= _RECORDS_HELD:
                records.clear()
            records[number] = record
        if record is not base and record.base != base.number | base.sequence << 48:
            raise KeepAll("an attribute list names a record of another file")
        if record.sequence == sequence:
            for part in record.attributes:
                wanted = (entry.kind, entry.instance, entry.name, entry.first)
                if (part.kind, part.instance, part.name, part.first) == wanted:
                    return part
        raise KeepAll("an attribute list names something that does not exist")

    def _compare_mirror(self) -> None:
        """Hold the first records against their copies, but for the numbers that each write leaves."""
        size = self.layout.record
        copies = self.volume.read(self.layout.mirror * self.layout.cluster, _MIRRORED * size)
        for number in range(_MIRRORED):
            mine = self.data.read(self.volume, number * size, size)
            if _essence(mine) != _essence(copies[number * size : (number + 1) * size]):
                raise KeepAll("its master file table and the copy of its beginning differ")


def _is_content(part: Attribute) -> bool:
    return part.kind == DATA and not part.name


def _parse_list(fields: Fields) -> Iterator[_Listed]:
    at = 0
    while at < len(fields.octets):
        length, name_length, name_at = fields.u16(at + 4), fields.u8(at + 6), fields.u8(at + 7)
        if length < 0x1A or length % 8:
            raise KeepAll("an attribute list is damaged")
        yield _Listed(
            kind=fields.u32(at),
            name=fields.cut(at + name_at, 2 * name_length).decode("utf-16-le", "replace"),
            first=fields.u64(at + 8),
            reference=fields.u64(at + 0x10),
            instance=fields.u16(at + 0x18),
        )
        at += length


def _essence(octets: bytes) -> bytes:
    whole = repaired(octets, b"FILE")
    fields = Fields(whole)
    at, count, used = fields.u16(4), fields.u16(6), fields.u32(0x18)
    return whole[:at] + whole[at + 2 * count : used]
