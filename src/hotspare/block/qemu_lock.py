"""Whether QEMU uses an image or a device, and keeping it from doing so.

QEMU marks what it does with an image, and what it does not let others do, by shared locks on single bytes of
the file; see its block/file-posix.c (``RAW_LOCK_PERM_BASE``, ``RAW_LOCK_SHARED_BASE``) and the permissions in
include/block/block-common.h. Who opens an image takes the locks first and then looks for those of others that
forbid it, so that of two that come at once none slips through.

A lock is on the inode. libvirt gives each machine device nodes of its own, with other inodes, so nobody meets
the locks of a machine on a device: there the processes of QEMU are asked what they have open.
"""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

_DOES, _DOES_NOT_SHARE = 100, 200
"""Plus a permission: the byte that is locked."""
_CONSISTENT_READ, _WRITE, _WRITE_UNCHANGED, _RESIZE = range(4)
"""Permissions, by the number of their bit."""
_FLOCK = struct.Struct("hhqqi4x")
"""type, whence, start, length, pid; see fcntl(2)."""
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""A file system that has none, where QEMU does not get any either."""


class UsedByQemuError(Exception):
    """QEMU has it open in a way that does not go with ours."""


class WriterLock:
    """What QEMU would hold of an image that it writes to, and lets nobody else read or write meanwhile.

    On a block device it keeps the kernel itself away as well (mounting it, adding it to a volume group).

    Args:
        path: of a file or block device.

    Raises:
        UsedByQemuError: a machine or program of QEMU's uses it.
        OSError: it cannot be opened; ``EBUSY`` for a device that the kernel itself uses.
    """

    _HELD = (_CONSISTENT_READ, _WRITE)
    _NOT_SHARED = (_CONSISTENT_READ, _WRITE, _WRITE_UNCHANGED, _RESIZE)

    def __init__(self, path: Path) -> None:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        if path.is_block_device():
            flags |= os.O_EXCL  # without O_CREAT: fails while the kernel uses it, and keeps it from that
        self._path = path
        self._descriptor = os.open(path, flags)
        try:
            self._lock()
            self.check()
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        mine = [_DOES + one for one in self._HELD] + [_DOES_NOT_SHARE + one for one in self._NOT_SHARED]
        try:
            for byte in mine:
                lock = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
                fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, lock)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise UsedByQemuError from error
            if error.errno not in _NO_LOCKS:
                raise
            return
        theirs = [_DOES_NOT_SHARE + one for one in self._HELD] + [_DOES + one for one in self._NOT_SHARED]
        if _any_locked(self._descriptor, theirs):
            raise UsedByQemuError

    def check(self) -> None:
        """Look whether QEMU has opened a device in spite of the lock. Raises ``UsedByQemuError``."""
        if _is_open_in_qemu(self._descriptor):
            raise UsedByQemuError

    def close(self) -> None:
        """Let others at it; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)  # the locks are on what was opened, so they go with it


def is_used_by_qemu(path: Path) -> bool:
    """Tell whether a running machine, or a server of QEMU, writes to it or would mind that others do.

    Raises:
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        bytes_of_writing = (_DOES + _WRITE, _DOES_NOT_SHARE + _WRITE)
        return _any_locked(descriptor, bytes_of_writing) or _is_open_in_qemu(descriptor)
    finally:
        os.close(descriptor)


def _any_locked(descriptor: int, numbers: Iterable[int]) -> bool:
    """Tell whether somebody else has locked one of these bytes."""
    for byte in numbers:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
        if _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK:
            return True
    return False


def _is_open_in_qemu(descriptor: int) -> bool:
    """Tell whether a process of QEMU has a block device open, by whatever node. Only root sees them all."""
    status = os.fstat(descriptor)
    if not stat.S_ISBLK(status.st_mode):
        return False
    return any(_has_open(process, status.st_rdev) for process in _processes_of_qemu())


def _processes_of_qemu() -> Iterable[Path]:
    for process in Path("/proc").iterdir():
        try:
            program = (process / "exe").readlink() if process.name.isdigit() else Path()
        except OSError:
            continue  # it has ended, or is another user's
        if program.name.startswith("qemu"):
            yield process


def _has_open(process: Path, device: int) -> bool:
    try:
        opened = list((process / "fd").iterdir())
    except OSError:
        return False
    for one in opened:
        try:
            status = one.stat()
        except OSError:
            continue  # closed meanwhile
        if stat.S_ISBLK(status.st_mode) and status.st_rdev == device:
            return True
    return False
