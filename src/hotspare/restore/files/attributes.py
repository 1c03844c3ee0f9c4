"""Giving restored files what is noted of them: owner, mode, times, extended attributes."""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hotspare.guest.files.file_system import FileEntry

_SET_ID = stat.S_ISUID | stat.S_ISGID


def _current_umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


@dataclass(slots=True)
class Attributes:
    """Sets what this user may set, and remembers in one sentence each what could not be kept."""

    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    warnings: dict[str, None] = field(default_factory=dict)
    umask: int = field(default_factory=_current_umask)

    def set_open(self, descriptor: int, entry: FileEntry, extended: Mapping[str, bytes]) -> None:
        """Set everything on an open file or folder. Raises ``OSError`` for mode and times only."""
        kept = self._own(entry, lambda uid, gid: os.chown(descriptor, uid, gid))
        for name, value in extended.items():
            self._extend(name, lambda name=name, value=value: os.setxattr(descriptor, name, value))  # type: ignore[misc]
        os.chmod(descriptor, self._mode(entry, kept=kept))
        os.utime(descriptor, ns=(entry.modified, entry.modified))

    def set_named(self, folder: int, name: str, entry: FileEntry, extended: Mapping[str, bytes]) -> None:
        """Set everything on a link or device. Raises ``OSError`` for mode and times only."""
        kept = self._own(
            entry, lambda uid, gid: os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
        )
        path = f"/proc/self/fd/{folder}/{name}"
        for key, value in extended.items():
            self._extend(
                key,
                lambda key=key, value=value: os.setxattr(path, key, value, follow_symlinks=False),  # type: ignore[misc]
            )
        if entry.kind != "link":
            os.chmod(name, self._mode(entry, kept=kept), dir_fd=folder)
        os.utime(name, ns=(entry.modified, entry.modified), dir_fd=folder, follow_symlinks=False)

    def _own(self, entry: FileEntry, change: Callable[[int, int], None]) -> bool:
        """Give it its owner; tells whether it has it."""
        if entry.uid is None or entry.gid is None:
            return True
        if not self.is_root:
            self.warnings["Owners are kept only when root restores; the files belong to this user"] = None
            return False
        try:
            change(entry.uid, entry.gid)
        except OSError as error:
            self.warnings[f"Not all owners could be kept: {error.strerror}"] = None
            return False
        return True

    def _extend(self, name: str, change: Callable[[], None]) -> None:
        try:
            change()
        except OSError as error:
            space = name.partition(".")[0]
            self.warnings[f"Not all extended attributes ({space}.*) could be kept: {error.strerror}"] = None

    def _mode(self, entry: FileEntry, *, kept: bool) -> int:
        if entry.mode is None:
            return (0o777 if entry.kind == "folder" else 0o666) & ~self.umask
        mode = entry.mode & 0o7777
        # A program that was to run as somebody must not run as somebody else.
        return mode if kept else mode & ~_SET_ID
