"""A disk in a raw file or a block device of this host."""

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
from typing_extensions import Buffer

from hotspare.block.extent import Extent, ExtentKind
from hotspare.errors import HotspareError, NoSpace, PermissionRefused, SourceLost, TargetExists, UsageError
from hotspare.units import MIB

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
_ZERO_RANGE = 0x10
"""Modes of fallocate(2), from linux/falloc.h."""

_PAGE = 4096
_ZEROES = memoryview(bytes(1 * MIB))


class RawFile:
    """A ``BlockReader`` and ``BlockWriter`` over a regular file or a block device.

    Its size is taken when it is opened. All clones share one open file of the operating system, so that a
    flush of one covers the writes of all.

    Attributes:
        path: for messages.
        size: bytes.
        read_only: opened without the right to write.
    """

    def __init__(self, path: Path, descriptor: int, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self._descriptor = descriptor
        self._direct: int | None = None
        self._is_device = stat.S_ISBLK(os.fstat(descriptor).st_mode)
        # Also right for block devices, whose stat has no size.
        self.size = os.lseek(descriptor, 0, os.SEEK_END)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = True) -> Self:
        """Open an existing file or block device.

        Raises:
            SourceLost: it is not there or cannot be read.
            PermissionRefused: we may not.
            UsageError: it is something else, such as a directory.
        """
        mode = os.O_RDONLY if read_only else os.O_RDWR
        try:
            # O_NONBLOCK, because opening a named pipe would otherwise wait for somebody at its other end.
            descriptor = os.open(path, mode | os.O_CLOEXEC | os.O_NONBLOCK)
        except IsADirectoryError:
            raise UsageError(f"{path} is a directory, not a disk") from None
        except OSError as error:
            raise failure_of(path, "open", error) from error
        kind = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            os.close(descriptor)
            raise UsageError(f"{path} is neither a file nor a block device")
        return cls(path, descriptor, read_only=read_only)

    @classmethod
    def create(cls, path: Path, size: int) -> Self:
        """Create a file of ``size`` bytes that takes no space yet, readable by its owner only.

        Raises:
            TargetExists: something is at ``path`` already; it is left alone.
            NoSpace, PermissionRefused, SourceLost: it cannot be created.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise failure_of(path, "create", error) from error
        try:
            os.ftruncate(descriptor, size)
            make_name_durable(path)
        except OSError as error:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise failure_of(path, "create", error) from error
        return cls(path, descriptor, read_only=False)

    def clone(self) -> Self:
        """Give another on the same open file, for another thread."""
        return type(self)(self.path, os.dup(self._descriptor), read_only=self.read_only)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        direct, self._direct = self._direct, -1
        if direct is not None and direct >= 0:
            os.close(direct)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield data and holes as the file system tells them; a block device is all data."""
        self._check_range(offset, length)
        return self._walk(offset, offset + length)

    def _walk(self, position: int, end: int) -> Iterator[Extent]:
        while position < end:
            data = min(self._seek(position, os.SEEK_DATA, otherwise=position), end)
            if data > position:
                yield Extent(position, data - position, ExtentKind.ZERO)
            if data == end:
                return
            position = min(self._seek(data, os.SEEK_HOLE, otherwise=end), end)
            yield Extent(data, position - data, ExtentKind.DATA)

    def _seek(self, position: int, whence: int, otherwise: int) -> int:
        """Find the next data or hole; ``otherwise`` where the file system does not tell."""
        if self._is_device:
            return otherwise
        try:
            return os.lseek(self._descriptor, position, whence)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return self.size  # nothing but a hole from here on
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                return otherwise
            raise failure_of(self.path, "read", error) from error

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill all of ``buffer`` from ``offset``.

        Raises:
            SourceLost: it cannot be read, or has become shorter.
        """
        self._check_range(offset, len(buffer))
        while buffer:
            try:
                count = os.preadv(self._descriptor, [buffer], offset)
            except OSError as error:
                raise failure_of(self.path, "read", error) from error
            if not count:
                raise SourceLost(f"{self.path} ends at {offset} although it had {self.size} bytes before")
            offset += count
            buffer = buffer[count:]

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of ``data`` at ``offset``; past the page cache where all is aligned to pages.

        Raises:
            NoSpace, PermissionRefused, SourceLost: it cannot be written.
        """
        rest = memoryview(data).cast("B")
        self._check_range(offset, len(rest))
        while rest:
            try:
                count = self._write_direct(offset, rest) or os.pwrite(self._descriptor, rest, offset)
            except OSError as error:
                raise self._write_failure(error) from error
            offset += count
            rest = rest[count:]

    def _write_direct(self, offset: int, data: memoryview) -> int:
        """Write the pages of ``data`` past the page cache: 0 where that cannot be done."""
        length = len(data) // _PAGE * _PAGE
        if offset % _PAGE or not length or np.frombuffer(data, np.uint8).ctypes.data % _PAGE:
            return 0
        if self._direct is None:
            self._direct = _open_direct(self._descriptor)
        if self._direct < 0:
            return 0
        try:
            return os.pwrite(self._direct, data[:length], offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            os.close(self._direct)
            self._direct = -1  # the file system asks for more than pages
            return 0

    def write_zeroes(self, offset: int, length: int) -> None:
        """Make the range a hole; where the file system cannot do that, write zeroes.

        Raises:
            NoSpace, PermissionRefused, SourceLost: it cannot be written.
        """
        self._check_range(offset, length)
        if not length:
            return
        for mode in (_PUNCH_HOLE | _KEEP_SIZE, _ZERO_RANGE | _KEEP_SIZE):
            problem = _fallocate(self._descriptor, mode, offset, length)
            if not problem:
                return
            # A device refuses what is not aligned to its blocks with EINVAL.
            if problem not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise self._write_failure(OSError(problem, os.strerror(problem)))
        for at in range(offset, offset + length, len(_ZEROES)):
            self.write(at, _ZEROES[: min(len(_ZEROES), offset + length - at)])

    def flush(self) -> None:
        """Return when everything written through this or a clone is durable.

        Raises:
            NoSpace, PermissionRefused, SourceLost: it is not.
        """
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise self._write_failure(error) from error

    def _check_range(self, offset: int, length: int) -> None:
        if not 0 <= offset <= offset + length <= self.size:
            raise ValueError(f"{length} bytes at {offset} are not all in {self.path} of {self.size} bytes")

    def _write_failure(self, error: OSError) -> HotspareError:
        if error.errno == errno.EBADF and self.read_only:
            return PermissionRefused(f"{self.path} was opened read-only", meaning="Nothing was written")
        return failure_of(self.path, "write", error)


def _open_direct(descriptor: int) -> int:
    """Open the same file once more, for writes past the page cache; -1 where that cannot be done."""
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError:
        return -1


def failure_of(path: Path, verb: str, error: OSError) -> HotspareError:
    """Give our error for one of the operating system: ``path`` cannot be ``verb``: opened, read, written."""
    what = f"Cannot {verb} {path}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpace(what, hint="Make room in its file system, or choose another place")
    if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
        return PermissionRefused(what, hint="Run as a user who may")
    if error.errno == errno.EEXIST:
        return TargetExists(what, meaning="It was left alone", hint="Choose another name or remove it")
    return SourceLost(what, hint="Check the path and the system log")


def make_name_durable(path: Path) -> None:
    """Sync the folder of a file that was made or renamed. Raises ``OSError``."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def _fallocate(descriptor: int, mode: int, offset: int, length: int) -> int:
    """Call fallocate(2), which the standard library only has without modes; return its errno or 0."""
    while True:
        if _libc.fallocate(descriptor, mode, offset, length) == 0:
            return 0
        problem = ctypes.get_errno()
        if problem != errno.EINTR:
            return problem
