"""The folder that files are restored to, and that nothing of a guest can leave.

Every name is resolved one component at a time from the open folder, and none of them may be a symbolic
link (openat(2) with O_NOFOLLOW): whatever a guest has on its disk, or somebody puts there meanwhile,
nothing outside is touched. A file has no name before it is complete.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from hotspare.errors import PermissionRefused, StorageError, TargetExists
from hotspare.restore.files.selection import Parts

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_UNNAMED = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
"""What file systems answer that cannot make a file without a name (O_TMPFILE)."""


class TargetFolder:
    """An open folder, and the only way to what is below it. Belongs to one thread."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._root = descriptor
        self._at: Parts = ()
        self._open = os.dup(descriptor)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a folder, or make one for its owner only, as a guest's files may be anything.

        Raises:
            TargetExists: something else is there.
            PermissionRefused, StorageError: it cannot be made or opened.
        """
        try:
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
            # That the folder itself is reached through a link is the user's choice.
            return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except NotADirectoryError as error:
            raise TargetExists(
                f"{path} is no folder",
                meaning="It was left alone and nothing was restored",
                hint="Name another",
            ) from error
        except PermissionError as error:
            raise PermissionRefused(
                f"The folder {path} cannot be used", meaning="Nothing was restored"
            ) from error
        except OSError as error:
            raise StorageError(
                f"The folder {path} cannot be made or opened: {error.strerror}",
                meaning="Nothing was restored",
                hint="The folder above it has to be there",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; a second call does nothing."""
        for descriptor in (self._open, self._root):
            if descriptor >= 0:
                os.close(descriptor)
        self._open = self._root = -1

    def folder(self, parts: Parts) -> int:
        """Give the descriptor of a folder below, good until the next call. Raises ``OSError``."""
        if parts != self._at:
            below = parts[: len(self._at)] == self._at
            current = os.dup(self._open if below else self._root)
            try:
                for name in parts[len(self._at) if below else 0 :]:
                    inner = os.open(name, _FOLDER, dir_fd=current)
                    os.close(current)
                    current = inner
            except OSError:
                os.close(current)
                raise
            os.close(self._open)
            self._open, self._at = current, parts
        return self._open

    def look(self, parts: Parts) -> os.stat_result | None:
        """Describe what is at a place, a link itself; None when nothing is. Raises ``OSError``."""
        try:
            return os.stat(parts[-1], dir_fd=self.folder(parts[:-1]), follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open_existing(self, parts: Parts) -> int:
        """Open a file that is there, to change what is noted of it; closed by the caller."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(parts[-1], flags, dir_fd=self.folder(parts[:-1]))

    def make_folder(self, parts: Parts, *, replace: bool = False) -> bool:
        """Make a folder unless it is there; tells whether it was made.

        Raises:
            FileExistsError: something else is there, and is not to be replaced.
            OSError: it cannot be made.
        """
        parent = self.folder(parts[:-1])
        there = self.look(parts)
        if there is not None and stat.S_ISDIR(there.st_mode):
            return False
        if there is not None and replace:
            os.unlink(parts[-1], dir_fd=parent)
        os.mkdir(parts[-1], 0o700, dir_fd=parent)
        return True

    def make_parents(self, parts: Parts) -> None:
        """Make all folders above a place that are not there. Raises ``OSError``."""
        for count in range(1, len(parts)):
            if self.make_folder(parts[:count]):
                os.fchmod(self.folder(parts[:count]), 0o755)

    @contextmanager
    def new_file(self, parts: Parts, *, replace: bool) -> Iterator[int]:
        """Give the descriptor of a new file, which takes its name when the block is left without an error.

        Raises:
            FileExistsError: something is there, and is not to be replaced.
            OSError: it cannot be made.
        """
        parent = os.dup(self.folder(parts[:-1]))
        name: str | None = None
        try:
            descriptor, name = _new_file(parent)
            try:
                yield descriptor
                if name is None and not replace:
                    _link_unnamed(descriptor, parent, parts[-1])
                    return
                if name is None:
                    name = _temporary()
                    _link_unnamed(descriptor, parent, name)
            finally:
                os.close(descriptor)
            _give_name(parent, name, parts[-1], replace=replace)
        finally:
            if name is not None:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=parent)
            os.close(parent)

    def link_file(self, existing: Parts, parts: Parts, *, replace: bool) -> None:
        """Give a file that is there another name. Raises ``OSError``."""
        source = os.dup(self.folder(existing[:-1]))
        try:
            with self._fresh_name(parts, replace=replace) as (parent, name):
                os.link(existing[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def make_link(self, parts: Parts, target: str, *, replace: bool) -> None:
        """Make a symbolic link, which nobody here will ever follow. Raises ``OSError``."""
        with self._fresh_name(parts, replace=replace) as (parent, name):
            os.symlink(target, name, dir_fd=parent)

    def make_node(self, parts: Parts, kind: int, device: int, *, replace: bool) -> None:
        """Make a device, fifo or socket, for its owner only; ``kind`` as in ``stat``. Raises ``OSError``."""
        with self._fresh_name(parts, replace=replace) as (parent, name):
            os.mknod(name, kind | 0o600, device, dir_fd=parent)

    @contextmanager
    def _fresh_name(self, parts: Parts, *, replace: bool) -> Iterator[tuple[int, str]]:
        """Give folder and name for something to be made: its own, or one that takes the place of its own."""
        parent = self.folder(parts[:-1])
        if not replace:
            yield parent, parts[-1]
            return
        name = _temporary()
        try:
            yield parent, name
            os.rename(name, parts[-1], src_dir_fd=parent, dst_dir_fd=parent)
        finally:
            # Also when it was renamed over another name of the same file, which does nothing: rename(2).
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)


def _temporary() -> str:
    return f".hotspare-{secrets.token_hex(8)}"


def _new_file(parent: int) -> tuple[int, str | None]:
    """Open a file without a name in a folder; with one of ours where there is no such thing."""
    try:
        return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=parent), None
    except OSError as error:
        if error.errno not in _NO_UNNAMED:
            raise
    name = _temporary()
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, 0o600, dir_fd=parent), name


def _link_unnamed(descriptor: int, parent: int, name: str) -> None:
    os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=parent, follow_symlinks=True)


def _give_name(parent: int, temporary: str, name: str, *, replace: bool) -> None:
    if not replace:
        try:
            os.link(temporary, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
        except PermissionError:
            pass  # a file system without hard links, such as FAT
        else:
            return
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=parent, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, "is there already", name)
    os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
