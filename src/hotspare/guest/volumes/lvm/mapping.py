"""Where the logical volumes of a group lie on the disks, and why some cannot be read.

Linear and striped ones, and RAID 0, are nothing but their extents in order. All others have a mapping of
their own inside of them, or hold data in more than one place, and are not given as readable.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from hotspare.guest.volumes.found import printable
from hotspare.guest.volumes.layouts import Concatenated, Linear, Striped
from hotspare.guest.volumes.lvm.metadata import Area, GroupText, LogicalVolumeText, Segment
from hotspare.guest.volumes.lvm.physical import LocatedPhysicalVolume
from hotspare.guest.volumes.lvm.text import BadText
from hotspare.guest.volumes.volume import Layout

_PLAIN_STATUS = frozenset({"READ", "WRITE", "VISIBLE", "FIXED_MINOR"})
_REASONS = {
    "thin": "it is a thin volume, and those are not mapped",
    "thin-pool": "it is a pool of thin volumes",
    "cache-pool": "it is a pool of cached blocks",
    "cache": "it is cached, and its newest data may be in the cache only",
    "writecache": "it is cached, and its newest data may be in the cache only",
    "vdo": "it is deduplicated by VDO",
    "vdo-pool": "it is a pool of VDO",
    "mirror": "it is mirrored, and mirrors are not mapped",
    "integrity": "it carries checksums of dm-integrity",
    "error": "it has no data at all",
    "zero": "it has no data at all",
    "snapshot": "it is a snapshot, and those are not mapped",
}


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A logical volume that people see."""

    name: str
    """``root``, without that of its group."""
    size: int
    layout: Layout | None
    """None where it cannot be read."""
    reason: str | None
    """Why it cannot be read, or why nothing in it may be called unused."""


class Mapping:
    """Finds where the logical volumes of one group lie."""

    def __init__(self, text: GroupText, members: dict[str, LocatedPhysicalVolume], doubts: list[str]) -> None:
        self._text = text
        self._members = members
        self._doubt = f"its volume group is in doubt: {doubts[0]}" if doubts else None

    def volumes(self) -> list[LogicalVolume]:
        """Describe all that people see."""
        return [
            self._described(name, volume)
            for name, volume in self._text.logical.items()
            if self._is_seen(name)
        ]

    def _is_seen(self, name: str) -> bool:
        """Tell whether people see it; a snapshot is seen by the name of what holds its changes."""
        if "snapshot" in {segment.kind for segment in self._text.logical[name].segments}:
            return False
        return "VISIBLE" in self._text.logical[name].status or self._is_snapshot(name)

    def _is_snapshot(self, name: str) -> bool:
        return any(use.key in {"cow_store", "merging_store"} for use in self._text.uses.get(name, []))

    def _described(self, name: str, volume: LogicalVolumeText) -> LogicalVolume:
        size = volume.extents * self._text.extent
        try:
            self._check_state(name, volume)
            layout = _joined([self._segment(segment) for segment in volume.segments])
        except BadText as reason:
            return LogicalVolume(name, size, None, str(reason))
        return LogicalVolume(name, size, layout, self._keep_because(name) or self._doubt)

    def _check_state(self, name: str, volume: LogicalVolumeText) -> None:
        """Raise ``BadText`` where its own extents are not its content."""
        if self._is_snapshot(name):
            raise BadText(_REASONS["snapshot"])
        odd = set(volume.status) - _PLAIN_STATUS
        if odd:
            raise BadText(f"its state is {printable(', '.join(sorted(odd)))[:80]}")
        for use in self._text.uses.get(name, []):
            user = self._text.logical[use.by].segments[0].body
            if use.kind == "snapshot" and use.key == "origin":
                if "merging_store" in user:
                    raise BadText("a snapshot is being merged into it")
            elif (use.kind, use.key) != ("thin", "external_origin") and use.key != "thin_pool":
                raise BadText(f"it is a part of {use.by}")

    def _keep_because(self, name: str) -> str | None:
        uses = self._text.uses.get(name, [])
        if any(use.kind == "snapshot" for use in uses):
            return "a snapshot is taken of it"
        if any(use.key == "external_origin" for use in uses):
            return "thin volumes are based on it"
        return None

    def _segment(self, segment: Segment) -> Layout:
        if segment.kind == "raid0":
            return self._raid0(segment)
        if segment.kind != "striped":
            kind = segment.kind.partition("+")[0]
            raise BadText(
                _REASONS.get(kind)
                or (
                    "it is a RAID, and those are not mapped"
                    if kind.startswith("raid")
                    else "its type is not known"
                )
            )
        return _striped([self._area(area) for area in segment.areas], segment.stripe)

    def _area(self, area: Area) -> Layout:
        if area.name in self._text.logical:
            raise BadText("it is being moved, or lies on another logical volume")
        if area.name not in self._members:
            raise BadText("a physical volume that it lies on is missing")
        one, extents = self._members[area.name], self._text.physical[area.name]
        start = one.offset + extents.start + area.start * self._text.extent
        return Linear(one.disk, start, area.length * self._text.extent)

    def _raid0(self, segment: Segment) -> Layout:
        """Map a RAID 0, whose images are plain logical volumes of one size that nothing else uses."""
        images = segment.body.get("raid0_lvs")
        if not isinstance(images, list) or len(set(images)) < len(images) or not images:
            raise BadText("its images are not known")
        columns = []
        for image in images:
            volume = self._text.logical.get(image) if isinstance(image, str) else None
            if volume is None or any(one.kind != "striped" for one in volume.segments):
                raise BadText("its images are not plain")
            columns.append(_joined([self._segment(one) for one in volume.segments]))
        if sum(column.size for column in columns) != segment.length * self._text.extent:
            raise BadText("its images are of another size than itself")
        return _striped(columns, segment.stripe)


def _striped(columns: list[Layout], stripe: int) -> Layout:
    if len(columns) == 1:
        return columns[0]
    if not stripe or any(column.size != columns[0].size or column.size % stripe for column in columns):
        raise BadText("its stripes do not fit")
    return Striped(columns, stripe)


def _joined(parts: Iterable[Layout]) -> Layout:
    ordered = list(parts)
    return ordered[0] if len(ordered) == 1 else Concatenated(ordered)
