"""Which files of a folder are disk images, and what is in them."""

import fcntl
import os
import struct
import uuid
from collections import Counter
from pathlib import Path

from hotspare.block.file import RawFile
from hotspare.block.qemu import image_info
from hotspare.errors import HotspareError, PermissionRefused, SourceLost
from hotspare.platforms.platform import Machine, MachineDisk, PowerState

DISK = "disk0"
"""The name of the one disk of each machine."""

_SUFFIXES: dict[str, str | None] = {".raw": "raw", ".qcow2": "qcow2", ".vmdk": "vmdk", ".vhdx": "vhdx"}
_SUFFIXES |= {".vhd": "vpc", ".vpc": "vpc", ".vdi": "vdi", ".img": None}
"""Format by suffix; None where several are usual, so that the content has to tell."""

_OFD_GETLK = 36
_FLOCK = struct.Struct("@hhqqi4x")
_QEMU_WRITE_LOCK = 101


def images_in(folder: Path) -> dict[str, Path]:
    """Give the images of a folder by machine name: the stem, or the whole file name if stems collide.

    Raises:
        SourceLost: there is no such folder.
        PermissionRefused: it may not be listed.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    except PermissionError as error:
        raise PermissionRefused(
            f"The folder {folder} may not be listed", hint="Run hotspare as root"
        ) from error
    except OSError as error:
        raise SourceLost(
            f"The folder {folder} cannot be listed: {error.strerror}", hint="Check the path"
        ) from error
    files = [path for path in files if path.is_file() or path.is_block_device()]
    stems = Counter(path.stem for path in files)
    return {path.stem if stems[path.stem] == 1 else path.name: path for path in files}


def describe_image(path: Path, name: str, uri: str, identity: str) -> Machine:
    """Describe an image as a machine; one that cannot be read is a disk left out.

    Args:
        path: the image.
        name: of the machine.
        uri: of the platform.
        identity: what keeps the machine apart from all others.
    """
    disks: tuple[MachineDisk, ...] = ()
    left_out: tuple[str, ...] = ()
    try:
        disks = (measure_image(path),)
    except HotspareError as error:
        left_out = (f"{DISK}: {error.what}",)
    return Machine(
        id=str(uuid.uuid5(uuid.NAMESPACE_URL, identity)),
        name=name,
        platform=uri,
        state=PowerState.OFF,
        disks=disks,
        left_out=left_out,
    )


def measure_image(path: Path) -> MachineDisk:
    """Find an image's format and the size of the disk in it.

    Raises:
        UsageError: it is not an image of a known format.
        PermissionRefused: it may not be read, or refers to other files.
        SourceLost: it is not there.
        PlatformUnavailable: it is not raw and qemu-img is missing.
    """
    known = "raw" if path.is_block_device() else _SUFFIXES.get(path.suffix.lower())
    if known == "raw":
        with RawFile.open(path) as image:
            return MachineDisk(name=DISK, size=image.size, format="raw", source=str(path))
    info = image_info(path, known)
    return MachineDisk(name=DISK, size=info.virtual_size, format=info.format, source=str(path))


def is_in_use(path: Path) -> bool:
    """Tell whether a QEMU on this host has an image open for writing.

    QEMU then holds a lock on a certain byte of it (RAW_LOCK_PERM_BASE and BLK_PERM_WRITE in QEMU's
    source). Asking for the lock does not take it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _QEMU_WRITE_LOCK, 1, 0)
        answer = _FLOCK.unpack(fcntl.fcntl(descriptor, _OFD_GETLK, question))
    except OSError:
        return False  # a file system without locks: nothing to be known
    finally:
        os.close(descriptor)
    return bool(answer[0] != fcntl.F_UNLCK)
