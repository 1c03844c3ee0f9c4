"""Choosing the reader of a volume."""

from hotspare.block.device import BlockReader
from hotspare.errors import FileSystemUnreadable
from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.files.ext.reader import ExtFileSystem
from hotspare.guest.files.fat.exfat import ExfatFileSystem
from hotspare.guest.files.fat.reader import FatFileSystem
from hotspare.guest.files.file_system import FileSystem, NeedsAppliance
from hotspare.guest.files.ntfs.isolated import IsolatedNtfs
from hotspare.guest.volumes.volume import Volume

_BY_KERNEL = {"xfs", "btrfs"}
_WITHOUT_FILES = {
    "swap": "it is swap space",
    "lvm": "it is a part of a volume group, whose logical volumes are volumes of their own",
    "luks": "it is encrypted (LUKS), and its key is not known here",
    "bitlocker": "it is encrypted (BitLocker), and its key is not known here",
    "mdraid": "it is a part of a software RAID",
    "refs": "nothing but Windows can read ReFS",
    "zfs": "nothing here can read ZFS",
    "": "nothing that is known was found in it",
}


def open_file_system(volume: Volume, disk: BlockReader) -> FileSystem:
    """Open the file system of a volume in process.

    Args:
        volume: what was found, by whose content the reader is chosen.
        disk: its bytes; to be closed by the caller, after the file system.

    Raises:
        NeedsAppliance: there is one, but it is not read in process: XFS, Btrfs, a journal to be replayed,
            features that are not proven to be read right.
        FileSystemUnreadable: there is none, it is encrypted, or damaged.
    """
    match volume.content:
        case "ext":
            return ExtFileSystem(CachedReader(disk))
        case "fat":
            return FatFileSystem(CachedReader(disk))
        case "exfat":
            return ExfatFileSystem(CachedReader(disk))
        case "ntfs":
            return IsolatedNtfs(disk)
    if volume.content in _BY_KERNEL:
        raise NeedsAppliance(volume.content, "nothing but the kernel's driver reads it right")
    why = _WITHOUT_FILES.get(volume.content, f"it holds {volume.content}, which cannot be read")
    raise FileSystemUnreadable(
        f"The volume {volume.name} has no files to show: {why}",
        meaning="It is in the restore point as a whole",
        hint="Look at the volumes of the machine with: hotspare files ls",
    )
