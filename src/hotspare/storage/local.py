"""Objects as files under a folder.

An object is written to a file without a name (``O_TMPFILE``), synced, and linked into place, so a crash
at any moment leaves nothing behind. Where the name is taken, and on file systems that know no files without
a name, a temporary name is renamed into place.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from stat import S_ISREG
from types import TracebackType
from typing import Self

import numpy as np
from typing_extensions import Buffer

from hotspare.errors import HotspareError, NoSpace, ObjectNotFound, PermissionRefused, StorageError
from hotspare.storage.backend import Capabilities, Durability, ObjectInfo, Space
from hotspare.storage.temporaries import is_stale, is_temporary, new_temporary_name

_PAGE = 4096
_DIRECT_MIN = 1 << 20
"""Bytes from which on a write past the page cache is worth its system calls."""
_WRITTEN_BY_ITSELF = 3600.0
"""Seconds after which a file system has written out what changed, asked or not; most do within 30."""
_CANNOT_SYNC = {errno.EROFS, errno.EINVAL}
"""Read-only, and file systems that know no folders to sync."""
_NO_UNNAMED_FILES = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL}


class LocalBackend:
    """A store in a folder of a local or mounted file system."""

    durability: Durability = "fsync"

    def __init__(self, folder: Path) -> None:
        self.url = f"file://{folder}"
        self.folder = folder
        self.capabilities = Capabilities(space=self.space)
        self._unnamed_files = True
        self._named: set[Path] = set()
        """Folders whose names are known to be durable."""

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        """See ``Backend.put``."""
        with self.receive(name) as incoming:
            for part in parts:
                incoming.write(part)
            incoming.finish()

    def receive(self, name: str) -> "Incoming":
        """Begin to store an object that comes in pieces; raises as ``put``."""
        path = self.folder / name
        with _errors_named(name, self.url):
            self._make_folder(path.parent)
            if self._unnamed_files:
                try:
                    file = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
                    return Incoming(name, self.url, path, file, None)
                except OSError as error:
                    if error.errno not in _NO_UNNAMED_FILES:
                        raise
                self._unnamed_files = False
            _remove_stale_temporaries(path.parent)
            temporary = path.parent / new_temporary_name()
            file = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        return Incoming(name, self.url, path, file, temporary)

    def get(self, name: str) -> bytes:
        """See ``Backend.get``."""
        with _errors_named(name, self.url):
            return (self.folder / name).read_bytes()

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """See ``Backend.get_range``."""
        with _errors_named(name, self.url):
            file = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.pread(file, length, offset)
            finally:
                os.close(file)
        if len(data) != length:
            raise StorageError(f"{name} in {self.url} ends before byte {offset + length}")
        return data

    @contextmanager
    def opened(self, name: str) -> Iterator[FileIO]:
        """Open an object to be read in pieces. Raises as ``get``."""
        with _errors_named(name, self.url), (self.folder / name).open("rb", buffering=0) as file:
            yield file

    def size(self, name: str) -> int:
        """See ``Backend.size``."""
        with _errors_named(name, self.url):
            return (self.folder / name).stat().st_size

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``Backend.list``. What is listed is durable: who sees an object may build upon it."""
        above, _, _ = prefix.rpartition("/")
        with _errors_named(prefix, self.url):
            yield from (info for info in _walk(self.folder, above) if info.name.startswith(prefix))

    def delete(self, name: str) -> None:
        """See ``Backend.delete``."""
        with suppress(ObjectNotFound), _errors_named(name, self.url):
            path = self.folder / name
            path.unlink()
            _sync_folder(path.parent)

    def space(self) -> Space:
        """See ``Capabilities.space``."""
        with _errors_named("", self.url):
            status = os.statvfs(self.folder)
        return Space(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)

    def close(self) -> None:
        """See ``Backend.close``; there is nothing to let go of."""

    def _make_folder(self, folder: Path) -> None:
        """Make a folder, if need be, and its name durable: who made it may not have come so far."""
        if folder in self._named and folder.is_dir():
            return
        if folder == self.folder:
            _make_with_parents(folder)
            with suppress(PermissionError):  # what holds a repository of another user may not be readable
                _sync_folder(folder.parent)
            self._named.add(folder)
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
        with os.scandir(folder.parent) as found:
            there = [folder.parent / entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
        _sync_folder(folder.parent)
        self._named.update(there)


class Incoming:
    """An object on its way into a folder; nobody sees it before ``finish``. A context manager."""

    def __init__(self, name: str, url: str, path: Path, file: int, temporary: Path | None) -> None:
        self._name = name
        self._url = url
        self._path = path
        self._file = file
        self._temporary = temporary
        """None for a file without a name."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, part: Buffer) -> None:
        """Append bytes. Raises as ``Backend.put``."""
        with _errors_named(self._name, self._url):
            view = memoryview(part).cast("B")
            view = view[_write_direct(self._file, view) :]
            while view:
                view = view[os.write(self._file, view) :]

    def finish(self, *, replace: bool = True) -> bool:
        """Make the object durable and visible; False if it was not, as the name is taken.

        Args:
            replace: whether an object of this name is replaced, in one step.

        Raises:
            NoSpace, PermissionRefused, StorageError: as ``Backend.put``.
        """
        with _errors_named(self._name, self._url):
            os.fdatasync(self._file)
            if replace and self._temporary is not None:
                self._rename(self._temporary)
            elif not self._link(self._path):
                if not replace:
                    return False
                _remove_stale_temporaries(self._path.parent)
                self._temporary = self._path.parent / new_temporary_name()
                self._link(self._temporary)
                self._rename(self._temporary)
            _sync_folder(self._path.parent)
        return True

    def close(self) -> None:
        """Let go; what is not finished is dropped. A second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None

    def _rename(self, temporary: Path) -> None:
        temporary.rename(self._path)
        self._temporary = None

    def _link(self, path: Path) -> bool:
        """Give the file a further name that nobody has; False when somebody has it."""
        try:
            if self._temporary is not None and path == self._path:
                path.hardlink_to(self._temporary)
            else:
                # The folder descriptor makes Python call linkat() with AT_SYMLINK_FOLLOW, as open(2) tells.
                os.link(f"/proc/self/fd/{self._file}", path, src_dir_fd=0, follow_symlinks=True)
        except FileExistsError:
            return False
        return True


def _write_direct(file: int, data: memoryview) -> int:
    """Write the whole pages of a large part past the page cache; give how many bytes that were.

    What is stored is seldom read soon: it should not push out of the cache what the host works with. 0
    where the file system or the data's place in memory or in the file do not allow it.
    """
    length = len(data) // _PAGE * _PAGE
    if length < _DIRECT_MIN or np.frombuffer(data, np.uint8).ctypes.data % _PAGE:
        return 0
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    written = 0
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_DIRECT)
        while written < length and not written % _PAGE:
            written += os.write(file, data[written:length])
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        fcntl.fcntl(file, fcntl.F_SETFL, flags)
    return written


def _make_with_parents(folder: Path) -> None:
    if not folder.is_dir():
        if folder != folder.parent:
            _make_with_parents(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
        _sync_folder(folder.parent)


def _sync_if_changed(folder: Path) -> None:
    """Make the names in a folder durable, unless they must be for long."""
    try:
        if time.time() - folder.stat().st_mtime < _WRITTEN_BY_ITSELF:
            _sync_folder(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk(root: Path, above: str) -> Iterator[ObjectInfo]:
    """Yield the files below ``root/above`` by name; what vanishes meanwhile is left out."""
    try:
        with os.scandir(root / above) as found:
            entries = sorted(found, key=lambda entry: entry.name + "/" * entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return
    _sync_if_changed(root / above)
    for entry in entries:
        name = f"{above}/{entry.name}" if above else entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, name)
        elif not is_temporary(entry.name):
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if S_ISREG(status.st_mode):
                    yield ObjectInfo(name, status.st_size)


def _remove_stale_temporaries(folder: Path) -> None:
    now = time.time()
    for path in filter(lambda path: is_temporary(path.name), folder.iterdir()):
        with suppress(OSError):
            if is_stale(path.name, modified=path.stat().st_mtime, now=now):
                path.unlink()


@contextmanager
def _errors_named(name: str, url: str) -> Iterator[None]:
    """Turn the system's errors into ours."""
    try:
        yield
    except OSError as error:
        raise _translate(error, name, url) from error


def _translate(error: OSError, name: str, url: str) -> HotspareError:
    what = f"{name or 'The folder'} in {url}"
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return ObjectNotFound(f"{what} is not there")
        case errno.ENOSPC | errno.EDQUOT:
            return NoSpace(
                f"The file system of {url} is full",
                meaning="What was being stored is not; earlier restore points are whole",
                hint="Free space there, or enlarge it, and run the command again",
            )
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return PermissionRefused(
                f"{what} cannot be accessed: {error.strerror}",
                hint="Run as a user who may read and write there, or mend the folder's owner and mode",
            )
        case _:
            return StorageError(
                f"{what} failed: {error.strerror}", hint="See the system's log for disk or network faults"
            )
