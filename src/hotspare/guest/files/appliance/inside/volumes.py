"""Finds volumes among the disks of the micro-VM, mounts them, and reads their files."""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator

from hotspare.guest.files.appliance.inside.system import load_for, mount, open_path, text, unmount
from hotspare.guest.files.appliance.inside.wire import pack_failure, pack_record

_ROOT = b"/volumes/%d"
_MOUNT_FLAGS = 1 | 2 | 4 | 8 | 1024
"""MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC and MS_NOATIME of mount(2)."""
_BTRFS_SCAN = 0x50009404
"""BTRFS_IOC_SCAN_DEV of btrfs.h."""
_LVM = "/sbin/lvm"
_LVM_CONFIG = (
    'activation{udev_sync=0 udev_rules=0} global{thin_check_executable="" cache_check_executable=""}'
)
_READ_AHEAD_KIB = "4096"
_HOLES_MAX = 4096
"""Most holes of one answer."""
_MOUNT_OPTIONS: dict[str, tuple[bytes, ...]] = {
    # Two volumes of one machine may be the same file system at two instants.
    "xfs": (b"nouuid",),
    # From the top of the tree, whichever subvolume the guest takes for its root; then with disks missing.
    "btrfs": (b"subvolid=5", b"subvolid=5,degraded"),
    "vfat": (b"utf8=1",),
    "exfat": (b"iocharset=utf8", b""),
    "ntfs3": (b"iocharset=utf8", b""),
}


class Refused(Exception):
    """A question with no good answer."""

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        super().__init__(text)


def disk_device(serial: str) -> str:
    """Find a disk by the serial number that its virtio device was given."""
    for name in os.listdir("/sys/block"):  # noqa: PTH208
        if text(f"/sys/block/{name}/serial") == serial:
            return name
    raise Refused(errno.ENXIO, f"there is no disk {serial}")


def read_ahead() -> None:
    """Make the kernel read files in large pieces: each question to a store has its price."""
    for name in os.listdir("/sys/block"):  # noqa: PTH208
        with open(f"/sys/block/{name}/queue/read_ahead_kb", "w") as setting:  # noqa: PTH123
            setting.write(_READ_AHEAD_KIB)


def find_device(serial: str, partition: int, logical: str) -> tuple[bytes, int]:
    """Give the path and the size of a disk, a partition or a logical volume."""
    if logical:
        path = f"/dev/{logical}"
    else:
        disk = disk_device(serial)
        path = f"/dev/{_partition(disk, partition) if partition else disk}"
    try:
        about = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        raise Refused(errno.ENXIO, f"no volume group that was found has {logical}") from None
    number = f"{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}"
    return os.fsencode(path), int(text(f"/sys/dev/block/{number}/size") or 0) * 512


def _partition(disk: str, number: int) -> str:
    for name in os.listdir(f"/sys/block/{disk}"):  # noqa: PTH208
        if text(f"/sys/block/{disk}/{name}/partition") == str(number):
            return name
    raise Refused(errno.ENXIO, f"the disk has no partition {number}")


def activate_logical_volumes() -> None:
    """Make the logical volumes of all volume groups appear under /dev, as far as they are whole."""
    if not os.access(_LVM, os.X_OK):
        raise Refused(errno.ENOPKG, "there is no LVM in here")
    load_for("lvm")
    for command in ("vgchange --activate y --sysinit", "vgmknodes --refresh"):
        words = ["lvm", *command.split(), "--config", _LVM_CONFIG]
        os.waitpid(os.posix_spawn(_LVM, words, {"LVM_SUPPRESS_FD_WARNINGS": "1"}), 0)


def mount_volume(number: int, device: bytes, kinds: list[str]) -> "Volume":
    """Mount a device as the first of some kinds of file system that its kernel accepts."""
    folder = _ROOT % number
    os.makedirs(folder)  # noqa: PTH103
    failure = Refused(errno.ENODEV, "the kernel has no driver for it")
    for kind in kinds:
        load_for(kind)
        for options in _MOUNT_OPTIONS.get(kind, (b"",)):
            try:
                mount(device, folder, kind.encode(), _MOUNT_FLAGS, options)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    failure = Refused(error.errno or errno.EIO, f"as {kind}: {error.strerror}")
            else:
                return Volume(folder, kind)
    os.rmdir(folder)  # noqa: PTH106
    raise failure


class Volume:
    """One mounted volume."""

    def __init__(self, folder: bytes, kind: str) -> None:
        self.folder = folder
        self.kind = kind
        self.root = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.devices = {os.fstat(self.root).st_dev: 0}
        self.opened: tuple[bytes, int] | None = None

    def inode(self, about: os.stat_result) -> int:
        """Give a number of an inode that is its own within the volume."""
        # Subvolumes of Btrfs number their inodes each for itself.
        return about.st_ino | self.devices.setdefault(about.st_dev, len(self.devices)) << 48

    def entry(self, path: bytes) -> bytes:
        """Describe one path by a record."""
        fd = open_path(self.root, path)
        try:
            about = os.fstat(fd)
            target = os.readlink(b"", dir_fd=fd) if stat.S_ISLNK(about.st_mode) else b""
            return pack_record(path, about, self.inode(about), target)
        finally:
            os.close(fd)

    def listing(self, folder: bytes, whole_tree: bool) -> Iterator[bytes]:
        """Give records of everything in a folder, or below it, and of what cannot be read."""
        top = folder.rstrip(b"/")
        waiting = [top]
        while waiting:
            here = waiting.pop()
            try:
                fd = self.reopen(here, os.O_DIRECTORY)
            except OSError as error:
                if here == top:
                    raise
                yield pack_failure(here, error)
                continue
            try:
                yield from self._folder(fd, here + b"/", waiting if whole_tree else [])
            except OSError as error:
                yield pack_failure(here, error)
            finally:
                os.close(fd)

    def _folder(self, fd: int, prefix: bytes, folders: list[bytes]) -> Iterator[bytes]:
        with os.scandir(fd) as names:
            for found in names:
                path = prefix + os.fsencode(found.name)
                target = b""
                try:
                    about = found.stat(follow_symlinks=False)
                    if stat.S_ISLNK(about.st_mode):
                        target = os.fsencode(os.readlink(found.name, dir_fd=fd))
                except OSError as error:
                    yield pack_failure(path, error)
                    continue
                if stat.S_ISDIR(about.st_mode):
                    folders.append(path)
                yield pack_record(path, about, self.inode(about), target)

    def reopen(self, path: bytes, flags: int) -> int:
        """Open a regular file or a folder for reading."""
        fd = open_path(self.root, path)
        try:
            mode = os.fstat(fd).st_mode
            # Opening a device or a FIFO would do something, or wait.
            if not flags and not stat.S_ISREG(mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            return os.open(b"/proc/self/fd/%d" % fd, os.O_RDONLY | os.O_CLOEXEC | flags)
        finally:
            os.close(fd)

    def file(self, path: bytes) -> int:
        """Give a descriptor of a regular file, which stays open until another is asked for."""
        if self.opened is None or self.opened[0] != path:
            fd = self.reopen(path, 0)
            if self.opened is not None:
                os.close(self.opened[1])
            self.opened = (path, fd)
        return self.opened[1]

    def attributes(self, path: bytes) -> list[object]:
        """Give names and values of all extended attributes, one after the other."""
        fd = open_path(self.root, path)
        try:
            link = b"/proc/self/fd/%d" % fd
            names = os.listxattr(link)
            return [part for name in names for part in (os.fsencode(name), os.getxattr(link, name))]
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return []
            raise
        finally:
            os.close(fd)

    def holes(self, path: bytes, start: int) -> list[object]:
        """Give (start, end, …) of runs that are not stored, from an offset on; last, where to go on."""
        fd = self.file(path)
        size = os.fstat(fd).st_size
        found: list[object] = []
        while start < size and len(found) < 2 * _HOLES_MAX:
            begin = os.lseek(fd, start, os.SEEK_HOLE)
            try:
                start = os.lseek(fd, begin, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                start = size
            if begin < start:
                found += [begin, start]
        return [*found, start if start < size else None]

    def close(self) -> None:
        """Let go of the volume; listings that still run keep it."""
        if self.opened is not None:
            os.close(self.opened[1])
            self.opened = None
        os.close(self.root)
        unmount(self.folder)


def scan_btrfs() -> None:
    """Tell Btrfs of all devices, as a file system may lie on several."""
    load_for("btrfs")
    try:
        control = os.open("/dev/btrfs-control", os.O_RDWR)
    except OSError:
        return
    for name in os.listdir("/sys/class/block"):  # noqa: PTH208
        try:
            fcntl.ioctl(control, _BTRFS_SCAN, bytearray(struct.pack("=q4088s", 0, f"/dev/{name}".encode())))
        except OSError:
            continue  # not Btrfs
    os.close(control)
