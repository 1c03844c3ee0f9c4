"""What the text of a volume group says: physical volumes, logical volumes, their segments.

Facts about sections and their names: LVM2's ``lib/format_text`` and what its tools write. What contradicts
itself is refused, what is only unknown is noted in ``unknown``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from hotspare.guest.volumes.lvm.text import BadText, Section, Value

_SECTOR = 512
_NUMBER_MAX = 1 << 53
_VOLUMES_MAX = 8192
_SECTIONS = frozenset({"physical_volumes", "logical_volumes", "historical_logical_volumes"})
_KINDS = frozenset(
    {
        *("striped", "error", "zero", "snapshot", "mirror", "thin-pool", "thin", "cache-pool", "cache"),
        *(
            "writecache",
            "vdo-pool",
            "vdo",
            "integrity",
            "raid0",
            "raid0_meta",
            "raid1",
            "raid10",
            "raid10_near",
        ),
        *("raid4", "raid5", "raid5_n", "raid5_la", "raid5_ra", "raid5_ls", "raid5_rs", "raid6", "raid6_zr"),
        *("raid6_nr", "raid6_nc", "raid6_ls_6", "raid6_rs_6", "raid6_la_6", "raid6_ra_6", "raid6_n_6"),
    }
)
"""Types of segments that take extents of physical volumes only by ``stripes`` and ``mirrors``."""
_LISTS = {"striped": "stripes", "mirror": "mirrors"}


class Area(NamedTuple):
    """A run of extents of a physical volume, or of another logical one."""

    name: str
    start: int
    length: int


class Segment(NamedTuple):
    """A run of extents of a logical volume."""

    start: int
    length: int
    kind: str
    areas: list[Area]
    stripe: int
    """Bytes; 0 where there is only one area."""
    body: Section


@dataclass(slots=True)
class PhysicalExtents:
    """A physical volume, as its group sees it."""

    uuid: str
    """32 characters, without dashes."""
    start: int
    """Bytes before the first extent."""
    count: int
    missing: bool
    """The group has been changed without it."""


@dataclass(slots=True)
class LogicalVolumeText:
    """A logical volume, as the text says."""

    status: list[str]
    segments: list[Segment]

    @property
    def extents(self) -> int:
        """How many it has."""
        return sum(segment.length for segment in self.segments)


class Use(NamedTuple):
    """One logical volume used by another."""

    by: str
    kind: str
    key: str


@dataclass(slots=True)
class GroupText:
    """All that is said of a volume group."""

    extent: int
    """Bytes."""
    physical: dict[str, PhysicalExtents]
    logical: dict[str, LogicalVolumeText]
    uses: dict[str, list[Use]] = field(default_factory=dict)
    """For each logical volume: who is built upon it."""
    taken: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """For each physical volume: runs of extents (first, one after the last) that belong to a segment."""
    unknown: list[str] = field(default_factory=list)
    """Why extents may be in use in ways that are not known here."""


def read_group(group: Section) -> GroupText:
    """Take a group's section apart. Raises ``BadText``."""
    extent = number(group, "extent_size", 1, 1 << 32) * _SECTOR
    physical = {name: _physical(body) for name, body in _sections(group, "physical_volumes")}
    logical = {name: _logical(body) for name, body in _sections(group, "logical_volumes")}
    if len(logical) > _VOLUMES_MAX:
        raise BadText(f"it has more than {_VOLUMES_MAX} logical volumes")
    text = GroupText(extent, physical, logical)
    text.unknown += [
        f"it has a section {name}"
        for name in group
        if isinstance(group[name], dict) and name not in _SECTIONS
    ]
    text.unknown += [f"its {name} is set" for name in ("lock_type", "lock_args") if name in group]
    if group.get("format", "lvm2") != "lvm2":
        text.unknown.append("its format is not lvm2")
    for name, volume in logical.items():
        for segment in volume.segments:
            _note_uses(text, name, segment)
    _check_taken(text)
    return text


def is_name(name: str) -> bool:
    """Tell whether LVM2 allows a name: letters, digits and some signs, and nothing that is a path."""
    return name not in {".", ".."} and re.fullmatch(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]{0,127}", name) is not None


def number(section: Section, key: str, low: int = 0, high: int = _NUMBER_MAX) -> int:
    """Give a number of a section. Raises ``BadText``."""
    value = section.get(key)
    if not isinstance(value, int) or not low <= value <= high:
        raise BadText(f"{key} is not a number from {low} to {high}")
    return value


def words(section: Section, key: str) -> list[str]:
    """Give a list of strings of a section, empty when it is missing. Raises ``BadText``."""
    value = section.get(key, [])
    found = value if isinstance(value, list) else [value]
    return [_word(one, key) for one in found]


def _word(value: "Value | Section", key: str) -> str:
    if not isinstance(value, str):
        raise BadText(f"{key} is not a string")
    return value


def _sections(section: Section, key: str) -> Iterator[tuple[str, Section]]:
    inner = section.get(key, {})
    if not isinstance(inner, dict):
        raise BadText(f"{key} is no section")
    for name, body in inner.items():
        if not isinstance(body, dict) or not is_name(name):
            raise BadText(f"{key} has something with the name {name[:40]!r}")
        yield name, body


def _physical(body: Section) -> PhysicalExtents:
    return PhysicalExtents(
        _word(body.get("id", ""), "id").replace("-", ""),
        number(body, "pe_start") * _SECTOR,
        number(body, "pe_count"),
        "MISSING" in words(body, "flags") + words(body, "status"),
    )


def _logical(body: Section) -> LogicalVolumeText:
    segments: list[Segment] = []
    reached = 0
    for position in range(1, number(body, "segment_count", 1) + 1):
        section = body.get(f"segment{position}")
        if not isinstance(section, dict):
            raise BadText(f"segment{position} is missing")
        segment = _segment(section)
        if segment.start != reached:
            raise BadText("segments do not follow each other")
        reached += segment.length
        segments.append(segment)
    return LogicalVolumeText(words(body, "status"), segments)


def _segment(body: Section) -> Segment:
    start, count = number(body, "start_extent"), number(body, "extent_count", 1)
    kind = _word(body.get("type", ""), "type")
    areas: list[Area] = []
    if kind in _LISTS:
        listed = body.get(_LISTS[kind], [])
        if not isinstance(listed, list) or not listed or len(listed) % 2:
            raise BadText(f"{_LISTS[kind]} is not a list of pairs")
        parts = len(listed) // 2 if kind == "striped" else 1
        if count % parts:
            raise BadText("stripes do not divide the extents")
        for name, first in zip(listed[::2], listed[1::2], strict=True):
            if not isinstance(name, str) or not isinstance(first, int) or not 0 <= first <= _NUMBER_MAX:
                raise BadText(f"{_LISTS[kind]} is not a list of names and numbers")
            areas.append(Area(name, first, count // parts))
    stripe = number(body, "stripe_size", 1, 1 << 32) * _SECTOR if "stripe_size" in body else 0
    return Segment(start, count, kind, areas, stripe, body)


def _note_uses(text: GroupText, owner: str, segment: Segment) -> None:
    """Remember which extents and which other logical volumes a segment is made of."""
    if segment.kind.partition("+")[0] not in _KINDS:
        text.unknown.append(f"{owner} is of the unknown type {segment.kind[:40]!r}")
    for area in segment.areas:
        _take(text, owner, area)
    for key, value in segment.body.items():
        if isinstance(value, dict):
            text.unknown.append(f"{owner} has a segment with a section {key[:40]!r}")
        elif key not in {"type", "tags"}:
            _note_names(text, owner, segment.kind, key, value)


def _take(text: GroupText, owner: str, area: Area) -> None:
    if area.name in text.physical:
        end = area.start + area.length
        if end > text.physical[area.name].count:
            raise BadText(f"{owner} has extents beyond the end of {area.name}")
        text.taken.setdefault(area.name, []).append((area.start, end))
    elif area.name not in text.logical:
        raise BadText(f"{owner} lies on {area.name[:40]!r}, which is not there")


def _note_names(text: GroupText, owner: str, kind: str, key: str, value: Value) -> None:
    """Notice all names in a value, whatever it is for."""
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, str):
            continue
        if one in text.logical:
            text.uses.setdefault(one, []).append(Use(owner, kind, key))
        elif one in text.physical and key != _LISTS.get(kind):
            text.unknown.append(f"{owner} uses {one} for its {key[:40]}")


def _check_taken(text: GroupText) -> None:
    for name, runs in text.taken.items():
        reached = 0
        for start, end in sorted(runs):
            if start < reached:
                raise BadText(f"an extent of {name} belongs to two segments")
            reached = end
