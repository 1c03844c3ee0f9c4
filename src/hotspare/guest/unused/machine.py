"""What a machine's disks hold that no file system needs: all volumes of all disks together."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from hotspare.block.device import BlockReader
from hotspare.block.ranges import NOTHING, Ranges
from hotspare.errors import HotspareError
from hotspare.guest.unused.btrfs.map import btrfs_unused
from hotspare.guest.unused.ext.map import ext_unused
from hotspare.guest.unused.fat.exfat import exfat_unused
from hotspare.guest.unused.fat.map import fat_unused
from hotspare.guest.unused.ntfs.map import ntfs_unused
from hotspare.guest.unused.swap import swap_unused
from hotspare.guest.unused.unused import FindUnused, KeepAll, Quiet, UnusedBlocks
from hotspare.guest.unused.xfs.map import xfs_unused
from hotspare.guest.volumes.find import find_volumes
from hotspare.guest.volumes.reader import VolumeReader
from hotspare.guest.volumes.volume import Volume

MAPS: dict[str, FindUnused] = {
    "btrfs": btrfs_unused,
    "exfat": exfat_unused,
    "ext": ext_unused,
    "fat": fat_unused,
    "ntfs": ntfs_unused,
    "swap": swap_unused,
    "xfs": xfs_unused,
}
"""By the content of a volume."""

_RANGES_MAX = 1_000_000
"""Of one disk: beyond that the shortest are kept, so that memory stays bounded."""
_MEMBER = "lvm"
"""The content of a physical volume of LVM."""
_OF_LINUX = {"btrfs", "ext", "lvm", "swap", "xfs"}
NOT_FROZEN = "the machine runs, and its file systems are not frozen"


@dataclass(frozen=True, slots=True)
class VolumeReport:
    """What was found in one volume."""

    name: str
    content: str
    size: int
    label: str = ""
    unused: UnusedBlocks | None = None
    """None when all of it is kept."""
    kept_because: str | None = None


@dataclass(frozen=True, slots=True)
class MachineUnused:
    """What a machine need not have backed up."""

    by_disk: Mapping[str, Ranges] = field(default_factory=dict)
    """Disks of which something is unused."""
    volumes: tuple[VolumeReport, ...] = ()

    def of(self, disk: str) -> Ranges:
        """Give what is unused of a disk."""
        return self.by_disk.get(disk, NOTHING)


def find_unused(disks: Mapping[str, BlockReader], quiet: Quiet | None) -> MachineUnused:
    """Look into all disks of a machine.

    Args:
        disks: one view of all of them at the same instant, by name; those that are left out of the backup are
            missing, and volumes that need them are kept whole.
        quiet: why file systems stand still in it; None where they do not: then only swap space is unused.

    Raises:
        SourceLost, StorageError, RepositoryDamaged: a disk cannot be read.
    """
    found = find_volumes(disks)
    parts: list[dict[str, Ranges]] = [found.unused] if quiet is not None else []
    reports = []
    named = [*(one.name for one in found.volumes), *(one.name for one in found.unreadable)]
    grouped = any("/" in name for name in named)
    for volume in found.volumes:
        if volume.content == _MEMBER and grouped:
            continue  # its logical volumes speak for themselves
        reason = _why_kept(volume, quiet, {one.content for one in found.volumes})
        report = _kept(volume, reason) if reason else _look_into(volume, disks, quiet)
        reports.append(report)
        if report.unused is not None:
            parts.append(volume.layout.on_disks(report.unused.free | report.unused.scratch))
    reports += [VolumeReport(one.name, "", one.size, kept_because=one.reason) for one in found.unreadable]
    by_disk = {
        disk: Ranges.union(part[disk] for part in parts if disk in part).largest(_RANGES_MAX)
        for disk in sorted({disk for part in parts for disk in part})
    }
    return MachineUnused(by_disk, tuple(reports))


def _why_kept(volume: Volume, quiet: Quiet | None, beside: Set[str]) -> str | None:
    """Say why nothing of a volume may be left out, before it is looked into.

    Args:
        volume: one of the machine's.
        quiet: why file systems stand still.
        beside: what all of the machine's volumes hold.
    """
    if volume.keep_because is not None:
        return volume.keep_because
    if volume.content not in MAPS:
        return f"{volume.content} is kept whole" if volume.content else "its content is unknown"
    if quiet is None and volume.content != "swap":
        return NOT_FROZEN
    if quiet is Quiet.FROZEN and volume.content == "ntfs" and not beside.isdisjoint(_OF_LINUX):
        return "Linux does not freeze it, and a crash of Windows would not show"
    return None


def _kept(volume: Volume, reason: str) -> VolumeReport:
    return VolumeReport(volume.name, volume.content, volume.size, volume.label, kept_because=reason)


def _look_into(volume: Volume, disks: Mapping[str, BlockReader], quiet: Quiet | None) -> VolumeReport:
    reader = VolumeReader(volume.layout, disks)
    try:
        unused = MAPS[volume.content](reader, quiet or Quiet.OFFLINE)
    except KeepAll as reason:
        return _kept(volume, reason.reason)
    except HotspareError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a guest wrote, it costs space and not the backup
        return _kept(volume, f"it makes no sense ({type(error).__name__}: {error})")
    finally:
        reader.close()
    return VolumeReport(volume.name, volume.content, volume.size, volume.label, unused)
