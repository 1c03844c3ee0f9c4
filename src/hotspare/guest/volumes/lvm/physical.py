"""A physical volume of LVM2: its label, and the copies of its group's metadata that it carries.

Layout: LVM2's ``lib/format_text/layout.h`` and ``lib/label/label.h``. A label in one of the first four
sectors leads to some metadata areas, each a ring in which every new version of the text follows the last.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from hotspare.guest.volumes.lvm.metadata import is_name
from hotspare.guest.volumes.lvm.text import BadText, Section, parse
from hotspare.guest.volumes.window import Bytes
from hotspare.units import MIB

_SECTOR = 512
_AREAS_MAX = 16
_TEXT_MAX = 4 * MIB
"""Bytes: LVM2 itself gives a metadata area of 1 MiB, and a text may have half of it."""
_TEXTS_MAX = 8 * MIB
"""Bytes of all different texts on all disks of a machine."""
_LABEL = struct.Struct("<8sQII8s")
_AREA = struct.Struct("<QQ")
_AREA_HEADER = struct.Struct("<I16sIQQ")
_AREA_MAGIC = b" LVM2 x[5A%r0N*>"
_LOCATION = struct.Struct("<QQII")
_IGNORED = 1
"""Flag of a location: this copy is not kept up to date, on purpose."""
_CHECKSUM_START = 0xF597A6CF


class MetadataCopy(NamedTuple):
    """One valid copy of a volume group's text."""

    name: str
    group_id: str
    version: int
    """``seqno``, which grows with every change."""
    checksum: int
    group: Section


@dataclass(slots=True)
class PhysicalVolume:
    """What the label says, and the copies."""

    uuid: str
    """32 characters, without dashes."""
    size: int
    """Bytes."""
    data_offset: int
    """Bytes from its start to the first extent."""
    copies: list[MetadataCopy] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    """Why the copies may not be all there is to know."""


@dataclass(frozen=True, slots=True)
class LocatedPhysicalVolume:
    """A physical volume and the run of a disk that it lies in."""

    volume: str
    """``vda2``, for people."""
    disk: str
    offset: int
    size: int
    label: PhysicalVolume
    doubt: str | None
    """Why nothing in it may be called unused."""


class MetadataTexts:
    """Takes texts apart, each only once: all areas of a group mostly have the same."""

    def __init__(self) -> None:
        self._left = _TEXTS_MAX
        self._known: dict[bytes, MetadataCopy | BadText] = {}

    def copy(self, text: bytes, crc: int) -> MetadataCopy:
        """Give what a text says. Raises ``BadText``."""
        if text not in self._known:
            self._left -= len(text)
            try:
                self._known[text] = self._read(text, crc)
            except BadText as error:
                self._known[text] = error
        found = self._known[text]
        if isinstance(found, BadText):
            raise found
        return found

    def _read(self, text: bytes, crc: int) -> MetadataCopy:
        if self._left < 0:
            raise BadText("the disks have more of it than is believed")
        parsed = parse(text.rstrip(b"\0").decode("utf-8", "surrogateescape"))
        groups = [(name, value) for name, value in parsed.items() if isinstance(value, dict)]
        if len(groups) != 1:
            raise BadText("it does not describe exactly one volume group")
        name, group = groups[0]
        group_id, version = group.get("id"), group.get("seqno")
        if not is_name(name):
            raise BadText("the volume group has a name that LVM does not allow")
        if not isinstance(group_id, str) or not isinstance(version, int):
            raise BadText("the volume group has no id or no version")
        return MetadataCopy(name, group_id, version, crc, group)


def read_physical_volume(volume: Bytes, texts: MetadataTexts) -> PhysicalVolume | None:
    """Read label and metadata; None where no label is valid.

    Args:
        volume: what begins with the label.
        texts: one for all physical volumes of a machine.

    Raises:
        SourceLost, StorageError, RepositoryDamaged: the disk cannot be read.
    """
    for sector in range(4):
        label = volume.read(sector * _SECTOR, _SECTOR)
        if len(label) < _SECTOR:
            return None
        magic, here, crc, header_at, kind = _LABEL.unpack_from(label)
        if magic != b"LABELONE" or kind != b"LVM2 001" or here != sector or crc != checksum(label[20:]):
            continue
        return _described(volume, label[header_at:], texts) if header_at >= _LABEL.size else None
    return None


def checksum(data: bytes) -> int:
    """Give LVM2's checksum: a CRC-32 with its own start, and without the usual inversion.

    The standard library's CRC inverts before and after; inverting once more undoes that.
    """
    return zlib.crc32(data, _CHECKSUM_START ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _described(volume: Bytes, header: bytes, texts: MetadataTexts) -> PhysicalVolume | None:
    """Read the header that follows the label: data areas, then metadata areas, each list ended by zeroes."""
    uuid = header[:32].decode("ascii", "replace")
    lists: list[list[tuple[int, int]]] = [[], []]
    at = 40
    for areas in lists:
        while True:
            if at + _AREA.size > len(header) or len(areas) > _AREAS_MAX:
                return None
            offset, length = _AREA.unpack_from(header, at)
            at += _AREA.size
            if not offset:
                break
            areas.append((offset, length))
    data_areas, metadata_areas = lists
    if len(data_areas) != 1:
        return None
    found = PhysicalVolume(uuid, int.from_bytes(header[32:40], "little"), data_areas[0][0])
    for offset, length in metadata_areas:
        _read_area(volume, offset, length, found, texts)
    return found


def _read_area(volume: Bytes, start: int, length: int, found: PhysicalVolume, texts: MetadataTexts) -> None:
    header = volume.read(start, _SECTOR)
    if len(header) < _SECTOR:
        found.doubts.append("a metadata area lies outside of it")
        return
    crc, magic, version, here, size = _AREA_HEADER.unpack_from(header)
    if magic != _AREA_MAGIC or version != 1 or here != start or size != length or crc != checksum(header[4:]):
        found.doubts.append("the header of a metadata area is damaged")
        return
    locations = list(_locations(header))
    if len(locations) > 1:
        found.doubts.append("its metadata was just being changed")
    if not locations or locations[0][3] & _IGNORED:
        return
    text_at, text_length, text_crc, _ = locations[0]
    if not _SECTOR <= text_at < size or not 0 < text_length <= min(size - _SECTOR, _TEXT_MAX):
        found.doubts.append("a metadata area points outside of itself")
        return
    first = min(text_length, size - text_at)
    text = volume.read(start + text_at, first) + volume.read(start + _SECTOR, text_length - first)
    if len(text) < text_length or checksum(text) != text_crc:
        found.doubts.append("the metadata in one of its areas fails its checksum")
        return
    try:
        found.copies.append(texts.copy(text, text_crc))
    except BadText as error:
        found.doubts.append(f"its metadata cannot be understood: {error}")


def _locations(header: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield the places of texts: the one that counts, and one that is about to."""
    for at in range(_AREA_HEADER.size, _SECTOR - _LOCATION.size + 1, _LOCATION.size):
        location = _LOCATION.unpack_from(header, at)
        if not location[0]:
            return
        yield location
