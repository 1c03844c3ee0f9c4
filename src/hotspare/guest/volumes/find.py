"""Finds all volumes on the disks of a machine, and the bytes that are proven to belong to none.

Only extents that a fully understood volume group has given to nobody are called unused here. Gaps between
partitions, tables, boot areas and everything unknown are always kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hotspare.block.device import BlockReader
from hotspare.block.ranges import Ranges
from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.volumes.layouts import Linear
from hotspare.guest.volumes.lvm.groups import VolumeGroup, find_groups
from hotspare.guest.volumes.lvm.mapping import LogicalVolume
from hotspare.guest.volumes.lvm.physical import LocatedPhysicalVolume, read_physical_volume
from hotspare.guest.volumes.reader import VolumeReader
from hotspare.guest.volumes.signatures import Identity, identify
from hotspare.guest.volumes.table import Partition, Table, read_table
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
    found = FoundVolumes()
    located: list[LocatedPhysicalVolume] = []
    for name, disk in disks.items():
        if disk.size:
            _Disk(name, CachedReader(disk), found, located).search()
    names: set[str] = set()
    for group in find_groups(located):
        _add_group(found, group, disks, names)
    return found


class _Disk:
    """The search on one disk; what it finds is added to ``found`` and ``located``."""

    def __init__(
        self, name: str, disk: CachedReader, found: FoundVolumes, located: list[LocatedPhysicalVolume]
    ) -> None:
        self._name = name
        self._disk = disk
        self._found = found
        self._located = located

    def search(self) -> None:
        """Add the partitions of the disk, or the disk as one volume."""
        table = read_table(self._disk)
        if table is None:
            self._add(self._name, Partition(0, 0, self._disk.size), self._disk, identify(self._disk))
            return
        own = identify(Outside(self._disk, [(one.start, one.end) for one in table.partitions]))
        doubt = self._doubt_of(table, own)
        told = [*table.remarks, doubt] if doubt else table.remarks
        self._found.remarks.extend(f"{self._name}: {remark}" for remark in told)
        if own.found or not table.partitions:
            self._add(self._name, Partition(0, 0, self._disk.size, doubt=doubt), self._disk, own)
        for one in table.partitions:
            window = Window(self._disk, one.start, one.end)
            self._add(self._name_of(one.number), one, window, identify(window), doubt)

    def _doubt_of(self, table: Table, own: Identity) -> str | None:
        """Say why the table may not be what the guest uses."""
        if table.doubt or not own.found:
            return table.doubt
        return f"the disk has partitions, and a signature of {own.content} as a whole"

    def _name_of(self, number: int) -> str:
        """Name a partition as Linux does."""
        return f"{self._name}p{number}" if self._name[-1:].isdigit() else f"{self._name}{number}"

    def _add(
        self, name: str, place: Partition, content: Bytes, identity: Identity, doubt: str | None = None
    ) -> None:
        doubt = place.doubt or doubt
        keep_because = doubt or identity.keep_because or _nested_table(content)
        self._found.volumes.append(
            Volume(
                name,
                Linear(self._name, place.start, place.end - place.start),
                place.container or identity.content,
                label="" if place.container else identity.label,
                uuid="" if place.container else identity.uuid,
                partition_uuid=place.uuid,
                partition_label=place.label,
                also=identity.also,
                keep_because=keep_because,
            )
        )
        if identity.content == "lvm" and not place.container:
            label = read_physical_volume(content)
            if label is None:
                self._found.remarks.append(f"{name}: the label of this physical volume is damaged")
                return
            doubt = doubt or (keep_because if identity.also else None)
            self._located.append(
                LocatedPhysicalVolume(name, self._name, place.start, content.size, label, doubt)
            )


def _nested_table(content: Bytes) -> str | None:
    """Notice a partition table inside: a file system's signature beside it may be left of an old one."""
    table = read_table(content)
    if table is None or all(one.start == 0 for one in table.partitions):
        return None
    return "it has a partition table of its own inside"


def _add_group(
    found: FoundVolumes, group: VolumeGroup, disks: Mapping[str, BlockReader], names: set[str]
) -> None:
    """Add the logical volumes and unused extents of one group, under a name that no other group has."""
    name = group.name if group.name not in names else f"{group.name}-{group.id[:6]}"
    names.add(name)
    if group.problem:
        found.remarks.append(f"{name}: no extents of this volume group count as unused: {group.problem}")
    for volume in group.volumes:
        _add_logical(found, name + volume.name.removeprefix(group.name), volume, disks)
    for disk, free in group.unused.items():
        if len(free):
            found.unused[disk] = Ranges.union([free, *([found.unused[disk]] if disk in found.unused else [])])


def _add_logical(
    found: FoundVolumes, name: str, volume: LogicalVolume, disks: Mapping[str, BlockReader]
) -> None:
    if volume.layout is None:
        found.unreadable.append(UnreadableVolume(name, volume.size, volume.reason or ""))
        return
    content = CachedReader(VolumeReader(volume.layout, disks), bytes_max=4 * MIB)
    identity = identify(content)
    found.volumes.append(
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
