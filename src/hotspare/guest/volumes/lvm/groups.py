"""Volume groups: which metadata counts, and which extents belong to no logical volume.

Nothing of a group is called unused unless all of it is there and understood: every physical volume once,
every copy of the metadata valid and the same, every type of segment known.
"""

from collections import Counter
from dataclasses import dataclass, field

from hotspare.block.ranges import Ranges
from hotspare.guest.volumes.lvm.mapping import LogicalVolume, Mapping
from hotspare.guest.volumes.lvm.metadata import GroupText, PhysicalExtents, read_group
from hotspare.guest.volumes.lvm.physical import LocatedPhysicalVolume
from hotspare.guest.volumes.lvm.text import BadText


@dataclass(slots=True)
class VolumeGroup:
    """What is known of one volume group."""

    name: str
    id: str
    volumes: list[LogicalVolume] = field(default_factory=list)
    unused: dict[str, Ranges] = field(default_factory=dict)
    """For each disk: the extents that belong to no logical volume."""
    problem: str | None = None
    """Why no extents are unused, for people."""


def find_groups(located: list[LocatedPhysicalVolume]) -> list[VolumeGroup]:
    """Put physical volumes together to groups."""
    holders: dict[str, list[LocatedPhysicalVolume]] = {}
    for one in located:
        for group_id in dict.fromkeys(copy.group_id for copy in one.label.copies):
            holders.setdefault(group_id, []).append(one)
    searches = [_Search(group_id, ones) for group_id, ones in holders.items()]
    claims = Counter(uuid for search in searches for uuid in search.claimed)
    by_uuid: dict[str, list[LocatedPhysicalVolume]] = {}
    for one in located:
        by_uuid.setdefault(one.label.uuid, []).append(one)
    return [search.finish(by_uuid, claims) for search in searches]


class _Search:
    """One group on the way from the copies of its metadata to what lies where."""

    def __init__(self, group_id: str, holders: list[LocatedPhysicalVolume]) -> None:
        copies = [copy for one in holders for copy in one.label.copies if copy.group_id == group_id]
        newest = max(copies, key=lambda copy: copy.version)
        self._found = VolumeGroup(newest.name, group_id)
        self._text: GroupText | None = None
        self._doubts: list[str] = []
        if any(copy.version != newest.version for copy in copies):
            self._doubts.append("some copies of its metadata are older than others")
        if len({copy.checksum for copy in copies if copy.version == newest.version}) > 1:
            self._found.problem = "two copies of its metadata are equally new and differ"
            return
        try:
            self._text = read_group(newest.group)
        except BadText as error:
            self._found.problem = f"its metadata cannot be understood: {error}"

    @property
    def claimed(self) -> set[str]:
        """Ids of the physical volumes that it says are its own."""
        return {one.uuid for one in self._text.physical.values()} if self._text else set()

    def finish(self, by_uuid: dict[str, list[LocatedPhysicalVolume]], claims: Counter[str]) -> VolumeGroup:
        """Find physical volumes, then logical ones, then what is left over."""
        found, text = self._found, self._text
        if text is None:
            return found
        try:
            members = self._members(text, by_uuid, claims)
        except BadText as error:
            found.problem = f"its metadata contradicts the disks: {error}"
            return found
        found.volumes = Mapping(text, members, self._doubts).volumes()
        found.problem = next(iter([*self._doubts, *text.unknown]), None)
        if found.problem is None:
            found.unused = _unused(text, members)
        return found

    def _members(
        self, text: GroupText, by_uuid: dict[str, list[LocatedPhysicalVolume]], claims: Counter[str]
    ) -> dict[str, LocatedPhysicalVolume]:
        """Find the physical volumes by their ids. Raises ``BadText`` where the disks contradict the text."""
        found = {}
        for name, extents in text.physical.items():
            ones = by_uuid.get(extents.uuid, [])
            if len(ones) > 1:
                places = " and ".join(one.volume for one in ones[:4])
                raise BadText(f"{places} are the same physical volume")
            if claims[extents.uuid] > 1:
                self._doubts.append("another volume group has one of its physical volumes too")
            if not ones or extents.missing:
                self._doubts.append("a physical volume is missing")
            if ones:
                self._check(ones[0], extents, text.extent)
                found[name] = ones[0]
        if len({one.volume for one in found.values()}) < len(found):
            raise BadText("two of its physical volumes are one")
        return found

    def _check(self, one: LocatedPhysicalVolume, extents: PhysicalExtents, extent: int) -> None:
        if extents.start + extents.count * extent > one.size:
            raise BadText(f"{one.volume} is smaller than it says")
        if extents.start != one.label.data_offset:
            self._doubts.append(f"label and metadata of {one.volume} differ")
        if any(copy.group_id != self._found.id for copy in one.label.copies):
            self._doubts.append(f"{one.volume} has the metadata of two volume groups")
        self._doubts.extend(f"{one.volume}: {doubt}" for doubt in [*one.label.doubts, one.doubt] if doubt)


def _unused(text: GroupText, members: dict[str, LocatedPhysicalVolume]) -> dict[str, Ranges]:
    found: dict[str, list[Ranges]] = {}
    for name, one in members.items():
        extents = text.physical[name]
        taken = Ranges.of((start * text.extent, end * text.extent) for start, end in text.taken.get(name, []))
        free = taken.complement(extents.count * text.extent).moved(one.offset + extents.start)
        found.setdefault(one.disk, []).append(free)
    return {disk: Ranges.union(sets) for disk, sets in found.items()}
