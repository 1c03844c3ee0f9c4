"""Finds all volumes on the disks of a machine, and the bytes that are proven to belong to none.

Only extents that a fully understood volume group has given to nobody are called unused here. Gaps between
partitions, tables, boot areas and everything unknown are always kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, count

from hotspare.block.device import BlockReader
from hotspare.block.ranges import NOTHING, Ranges
from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.volumes.layouts import Linear
from hotspare.guest.volumes.lvm.groups import find_groups
from hotspare.guest.volumes.lvm.mapping import LogicalVolume
from hotspare.guest.volumes.lvm.physical import LocatedPhysicalVolume, MetadataTexts, read_physical_volume
from hotspare.guest.volumes.reader import VolumeReader
from hotspare.guest.volumes.signatures import Identity, identify
from hotspare.guest.volumes.table import Partition, read_table
from hotspare.guest.volumes.volume import UnreadableVolume, Volume
from hotspare.guest.volumes.window import Bytes, Outside, Window
from hotspare.units import MIB


@dataclass(slots=True)
class FoundVolumes:
    """What is on the disks of a machine."""

    volumes: list[Volume] = field(default_factory=list)
    """Disk by disk, then the logical ones. A physical volume of LVM is among them, as a volume to be kept,
    although the logical volumes that lie in it may have unused bytes."""
    unreadable: list[UnreadableVolume] = field(default_factory=list)
    """Those that are there, and whose bytes cannot be told."""
    unused: dict[str, Ranges] = field(default_factory=dict)
    """For each disk: bytes that are proven to belong to no volume. Disks without any are missing."""
    remarks: list[str] = field(default_factory=list)
    """What people should know, beginning with the name of the disk or group."""


def find_volumes(disks: Mapping[str, BlockReader]) -> FoundVolumes:
    """Find partitions, logical volumes, and file systems on whole disks.

    Args:
        disks: all disks of the machine that are backed up together, by names such as ``vda``.

    Raises:
        SourceLost, StorageError, RepositoryDamaged: a disk cannot be read.
    """
    search = _Search()
    for name, disk in disks.items():
        if disk.size:
            search.disk(name, CachedReader(disk))
    search.groups(disks)
    return search.found


class _Search:
    """What has been found so far."""

    def __init__(self) -> None:
        self.found = FoundVolumes()
        self._located: list[LocatedPhysicalVolume] = []
        self._texts = MetadataTexts()
        self._names: set[str] = set()

    def disk(self, name: str, disk: Bytes) -> None:
        """Add the partitions of a disk, or the disk as one volume."""
        table = read_table(disk)
        whole = Partition(0, 0, disk.size)
        if table is None:
            self._partition(name, name, whole, disk, identify(disk))
            return
        own = identify(Outside(disk, [(one.start, one.end) for one in table.partitions]))
        doubt = table.doubt
        if own.found and not doubt:
            doubt = f"the disk has partitions, and a signature of {own.content} as a whole"
        told = [*table.remarks, doubt] if doubt else table.remarks
        self.found.remarks.extend(f"{name}: {remark}" for remark in told)
        if own.found or not table.partitions:
            self._partition(name, name, replace(whole, doubt=doubt), disk, own)
        for one in table.partitions:
            window = Window(disk, one.start, one.end)
            place = replace(one, doubt=one.doubt or doubt)
            self._partition(_partition_name(name, one.number), name, place, window, identify(window))

    def _partition(self, name: str, disk: str, place: Partition, content: Bytes, identity: Identity) -> None:
        """Add a partition, or a whole disk; if it is a physical volume, note it for ``groups``."""
        self.found.volumes.append(
            Volume(
                self._unique(name),
                Linear(disk, place.start, place.end - place.start),
                place.container or identity.content,
                label="" if place.container else identity.label,
                uuid="" if place.container else identity.uuid,
                partition_uuid=place.uuid,
                partition_label=place.label,
                also=identity.also,
                keep_because=place.doubt or identity.keep_because or _nested_table(content),
            )
        )
        if identity.content == "lvm" and not place.container:
            label = read_physical_volume(content, self._texts)
            if label is None:
                self.found.remarks.append(f"{name}: the label of this physical volume is damaged")
                return
            doubt = place.doubt or (identity.keep_because if identity.also else None)
            self._located.append(LocatedPhysicalVolume(name, disk, place.start, content.size, label, doubt))

    def groups(self, disks: Mapping[str, BlockReader]) -> None:
        """Add the volume groups that lie on all physical volumes."""
        names: set[str] = set()
        for group in find_groups(self._located):
            name = group.name if group.name not in names else f"{group.name}-{group.id[:6]}"
            names.add(name)
            if group.problem:
                self.found.remarks.append(
                    f"{name}: no extents of this volume group count as unused: {group.problem}"
                )
            for volume in group.volumes:
                self._logical(f"{name}/{volume.name}", volume, disks)
            for disk, free in group.unused.items():
                if len(free):
                    self.found.unused[disk] = free | self.found.unused.get(disk, NOTHING)

    def _logical(self, name: str, volume: LogicalVolume, disks: Mapping[str, BlockReader]) -> None:
        name = self._unique(name)
        if volume.layout is None:
            self.found.unreadable.append(UnreadableVolume(name, volume.size, volume.reason or ""))
            return
        content = CachedReader(VolumeReader(volume.layout, disks), bytes_max=4 * MIB)
        identity = identify(content)
        self.found.volumes.append(
            Volume(
                name,
                volume.layout,
                identity.content,
                identity.label,
                identity.uuid,
                also=identity.also,
                keep_because=volume.reason or identity.keep_because or _nested_table(content),
            )
        )

    def _unique(self, name: str) -> str:
        """Give a name that nothing else has: disks may be called like other disks' partitions."""
        other = next(
            other for other in chain([name], (f"{name}~{n}" for n in count(2))) if other not in self._names
        )
        self._names.add(other)
        return other


def _partition_name(disk: str, number: int) -> str:
    """Name a partition as Linux does."""
    return f"{disk}p{number}" if disk[-1:].isdigit() else f"{disk}{number}"


def _nested_table(content: Bytes) -> str | None:
    """Notice a partition table inside: a file system's signature beside it may be left of an old one."""
    table = read_table(content)
    if table is None or all(one.start == 0 for one in table.partitions):
        return None
    return "it has a partition table of its own inside"
