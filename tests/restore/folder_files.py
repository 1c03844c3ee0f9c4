"""A folder of this host behind the contract of file systems, for tests of what shows them."""

import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.files.file_system import FileEntry, Kind

KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "character-device",
    stat.S_IFBLK: "block-device",
    stat.S_IFSOCK: "socket",
}


class FolderFiles:
    """Fails the test when two threads are in it at the same time.

    Attributes:
        broken: paths that cannot be read, and what is raised instead.
        reads: (path, offset, length) of all that was read.
    """

    kind = "folder"
    remarks: tuple[str, ...] = ()

    def __init__(self, root: Path) -> None:
        self.broken: dict[str, Exception] = {}
        self.reads: list[tuple[str, int, int]] = []
        self.closed = False
        self.before_read: Callable[[], None] = lambda: None
        self._root = root
        self._busy = threading.Lock()
        self.met_another_thread = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            self.met_another_thread = True
            raise AssertionError("two threads at the same time")
        try:
            yield
        finally:
            self._busy.release()

    def entry(self, path: str) -> FileEntry:
        with self.alone():
            if path in self.broken:
                raise self.broken[path]
            return self._entry(path)

    def _entry(self, path: str) -> FileEntry:
        where = self._where(path)
        try:
            about = where.lstat()
        except OSError as error:
            raise PathNotFound(f"There is no {path}") from error
        kind = KINDS[stat.S_IFMT(about.st_mode)]
        return FileEntry(
            path=path,
            kind=kind,
            size=about.st_size if kind in {"file", "link"} else 0,
            modified=about.st_mtime_ns,
            mode=stat.S_IMODE(about.st_mode),
            uid=about.st_uid,
            gid=about.st_gid,
            inode=about.st_ino,
            links=about.st_nlink,
            target=os.readlink(where) if kind == "link" else "",  # noqa: PTH115 - pathlib changes it
            device=(os.major(about.st_rdev), os.minor(about.st_rdev)) if kind.endswith("device") else None,
        )

    def entries(self, folder: str) -> Iterator[FileEntry]:
        with self.alone():
            names = [each.name for each in self._where(folder).iterdir()]
            found = [self._entry(f"{folder.rstrip('/')}/{name}") for name in names]
        yield from found
        if folder in self.broken:
            raise self.broken[folder]

    def walk(self, folder: str = "/") -> Iterator[FileEntry]:
        raise NotImplementedError

    def open(self, path: str, stream: str = "") -> "FolderFile":
        with self.alone():
            entry = self._entry(path)
            if entry.kind != "file":
                raise FileSystemUnreadable(f"{path} is no file")
            return FolderFile(self, path, self._where(path), entry.size)

    def attributes(self, path: str) -> dict[str, bytes]:
        with self.alone():
            where = self._where(path)
            names = os.listxattr(where, follow_symlinks=False)
            return {name: os.getxattr(where, name, follow_symlinks=False) for name in names}

    def close(self) -> None:
        self.closed = True

    def _where(self, path: str) -> Path:
        return self._root / path.strip("/")


class FolderFile:
    def __init__(self, files: FolderFiles, path: str, where: Path, size: int) -> None:
        self.size = size
        self._files = files
        self._path = path
        self._where = where

    def read(self, offset: int, length: int) -> bytes:
        with self._files.alone():
            self._files.before_read()
            self._files.reads.append((self._path, offset, length))
            if self._path in self._files.broken:
                raise self._files.broken[self._path]
            with self._where.open("rb") as file:
                file.seek(offset)
                return file.read(length)

    def holes(self) -> Iterator[tuple[int, int]]:
        with self._where.open("rb") as file:
            start = 0
            while start < self.size:
                hole = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                if hole >= self.size:
                    return
                try:
                    start = os.lseek(file.fileno(), hole, os.SEEK_DATA)
                except OSError:
                    start = self.size
                yield hole, start

    def close(self) -> None:
        pass
