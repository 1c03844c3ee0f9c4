"""What FUSE asks about a mount, and the answers."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from functools import wraps
from itertools import count
from typing import Concatenate, ParamSpec, TypeVar

from hotspare.errors import HotspareError, PathNotFound
from hotspare.guest.files.file_system import TYPES, FileEntry
from hotspare.restore.mount_cache import FileCache
from hotspare.restore.mount_tree import Branch, MountedVolume, MountTree, Place, VolumeFile

_WARNINGS_MAX = 100

P = ParamSpec("P")
R = TypeVar("R")
Attributes = dict[str, int]
Warn = Callable[[str], None]


def _answered(
    method: "Callable[Concatenate[ServedFiles, P], R]",
) -> "Callable[Concatenate[ServedFiles, P], R]":
    """Make a number of whatever goes wrong, and warn unless it is what programs ask for in vain."""

    @wraps(method)
    def answer(served: "ServedFiles", /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(served, *args, **kwargs)
        except PathNotFound as error:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
        except HotspareError as error:
            served.note(str(error))
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error
        except OSError:
            raise
        except Exception as error:  # the mount goes on, whatever one file does to us
            served.note(f"A defect of Hotspare: {error!r}")
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error

    return answer


class ServedFiles:
    """What FUSE asks for, as ``mfusepy`` passes it on. Errors are numbers for who asks, and warnings for us.

    Args:
        tree: what is shown.
        warn: see ``mount_files``.
    """

    use_ns = True

    def __init__(self, tree: MountTree, warn: Warn) -> None:
        self.started = threading.Event()
        self._tree = tree
        self._warn = warn
        self._warned: set[str] = set()
        self._cache = FileCache()
        self._lock = threading.Lock()
        self._opened: dict[int, VolumeFile] = {}
        self._handles = count(1)
        self._uid, self._gid = os.getuid(), os.getgid()

    def init(self, _path: str) -> None:
        """Note that the kernel has begun to ask."""
        self.started.set()

    @_answered
    def getattr(self, path: str, _handle: int | None = None) -> Attributes:
        """Answer ``stat``."""
        found = self._tree.resolve(path)
        if isinstance(found, Branch):
            return self._folder(found)
        return self._status(found.volume, found.volume.entry(found.path))

    @_answered
    def readdir(self, path: str, _handle: int) -> list[tuple[str, Attributes, int]]:
        """Answer ``readdir``."""
        found = self._tree.resolve(path)
        if isinstance(found, Branch):
            own = self._folder(found)
            inside = [(name, self._listed(child)) for name, child in found.children.items()]
        else:
            own = self._status(found.volume, found.volume.entry(found.path))
            entries, failure = found.volume.entries(found.path)
            inside = [(each.name, self._status(found.volume, each)) for each in entries]
            if failure is not None:
                self.note(str(failure))
        return [
            (".", own, 0),
            ("..", {"st_mode": stat.S_IFDIR}, 0),
            *((name, each, 0) for name, each in inside),
        ]

    @_answered
    def readlink(self, path: str) -> str:
        """Answer ``readlink``."""
        place = self._place(path)
        return place.volume.entry(place.path).target

    @_answered
    def open(self, path: str, flags: int) -> int:
        """Open a file; gives its handle."""
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        place = self._place(path)
        opened = place.volume.open(place.path)
        with self._lock:
            handle = next(self._handles)
            self._opened[handle] = opened
        return handle

    @_answered
    def read(self, _path: str, size: int, offset: int, handle: int) -> bytes:
        """Read from an open file."""
        return self._cache.read(self._opened[handle], offset, size)

    @_answered
    def release(self, _path: str, handle: int) -> int:
        """Close a file."""
        with self._lock:
            opened = self._opened.pop(handle)
        opened.close()
        return 0

    @_answered
    def listxattr(self, path: str) -> list[str]:
        """Answer ``listxattr``."""
        return list(self._attributes(path))

    @_answered
    def getxattr(self, path: str, name: str, _position: int = 0) -> bytes:
        """Answer ``getxattr``."""
        found = self._attributes(path).get(name)
        if found is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return found

    def statfs(self, _path: str) -> Attributes:
        """Answer ``statvfs``: nothing is free."""
        return {
            "f_bsize": 4096,
            "f_frsize": 4096,
            "f_blocks": 0,
            "f_bfree": 0,
            "f_bavail": 0,
            "f_namemax": 255,
        }

    def close(self) -> None:
        """Let go of everything; a second call does nothing."""
        self._tree.close()
        self._cache.close()

    def _attributes(self, path: str) -> dict[str, bytes]:
        found = self._tree.resolve(path)
        return {} if isinstance(found, Branch) else found.volume.attributes(found.path)

    def _place(self, path: str) -> Place:
        found = self._tree.resolve(path)
        if isinstance(found, Branch):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        return found

    def _listed(self, child: Branch | MountedVolume) -> Attributes:
        # A volume is not opened for the sake of its name.
        return self._folder(child) if isinstance(child, Branch) else {"st_mode": stat.S_IFDIR}

    def _folder(self, branch: Branch) -> Attributes:
        owner = {"st_uid": self._uid, "st_gid": self._gid}
        return {"st_mode": stat.S_IFDIR | 0o555, "st_nlink": 2, "st_ino": branch.number, **owner}

    def _status(self, volume: MountedVolume, entry: FileEntry) -> Attributes:
        mode = entry.mode if entry.mode is not None else (0o755 if entry.kind == "folder" else 0o644)
        return {
            "st_mode": TYPES[entry.kind] | mode,
            "st_nlink": entry.links,
            "st_ino": volume.inode(entry),
            "st_uid": self._uid if entry.uid is None else entry.uid,
            "st_gid": self._gid if entry.gid is None else entry.gid,
            "st_size": entry.size,
            "st_blocks": -(-entry.size // 512),
            "st_mtime": entry.modified,
            "st_ctime": entry.modified,
            "st_atime": entry.modified,
            "st_rdev": os.makedev(*entry.device) if entry.device else 0,
        }

    def note(self, text: str) -> None:
        """Warn, of each thing once."""
        with self._lock:
            if text in self._warned or len(self._warned) >= _WARNINGS_MAX:
                return
            self._warned.add(text)
        self._warn(text)
