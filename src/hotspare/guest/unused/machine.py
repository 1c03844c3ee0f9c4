"""What a machine's disks hold that no file system needs: all volumes of all disks together."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hotspare.block.device import BlockReader
from hotspare.block.ranges import NOTHING, Ranges
from hotspare.errors import HotspareError
from hotspare.guest.unused.btrfs import btrfs_unused
from hotspare.guest.unused.exfat import exfat_unused
from hotspare.guest.unused.ext import ext_unused
from hotspare.guest.unused.fat import fat_unused
from hotspare.guest.unused.ntfs import ntfs_unused
from hotspare.guest.unused.swap import swap_unused
from hotspare.guest.unused.unused import FindUnused, KeepAll, Quiet, UnusedBlocks
from hotspare.guest.unused.xfs import xfs_unused
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
NOT_FROZEN = "the machine runs, and its file systems are not frozen"


@dataclass(frozen=True, slots=True)
class VolumeReport:
    """What was found in one volume."""

    volume: Volume
    unused: UnusedBlocks | None
    """None when all of it is kept."""
    kept_because: str | None


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
    parts: dict[str, list[Ranges]] = {}
    reports = []
    for volume in found.volumes:
        report = _look_into(volume, disks, quiet)
        reports.append(report)
        if report.unused is not None:
            for disk, ranges in volume.layout.on_disks(report.unused.free | report.unused.scratch).items():
                parts.setdefault(disk, []).append(ranges)
    if quiet is not None:
        for disk, ranges in found.unused.items():
            parts.setdefault(disk, []).append(ranges)
    by_disk = {disk: Ranges.union(of_it).largest(_RANGES_MAX) for disk, of_it in parts.items()}
    return MachineUnused(by_disk, tuple(reports))


def _look_into(volume: Volume, disks: Mapping[str, BlockReader], quiet: Quiet | None) -> VolumeReport:
    find = MAPS.get(volume.content)
    if volume.keep_because is not None:
        return VolumeReport(volume, None, volume.keep_because)
    if find is None:
        what = f"{volume.content} is kept whole" if volume.content else "its content is unknown"
        return VolumeReport(volume, None, what)
    if quiet is None and volume.content != "swap":
        return VolumeReport(volume, None, NOT_FROZEN)
    reader = VolumeReader(volume.layout, disks)
    try:
        return VolumeReport(volume, find(reader, quiet or Quiet.OFFLINE), None)
    except KeepAll as reason:
        return VolumeReport(volume, None, reason.reason)
    except HotspareError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a guest wrote, it costs space and not the backup
        return VolumeReport(volume, None, f"it makes no sense ({type(error).__name__}: {error})")
    finally:
        reader.close()
