"""What a mount shows: folders of points and volumes, and below them files, found by their paths.

Nothing here knows FUSE. Everything may be called from any thread.
"""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Generic, TypeVar

from hotspare.errors import FileSystemUnreadable, HotspareError, PathNotFound, UsageError
from hotspare.guest.files.file_system import FileContent, FileEntry, FileSystem
from hotspare.guest.files.listing import is_safe_name

OpenFiles = Callable[[], FileSystem]
"""Opens a volume's files, once somebody looks into its folder."""
Points = Mapping[str, Mapping[str, OpenFiles]]
"""Volumes by name, by the name of their point. A name with slashes is a folder in a folder: ``vg0/root``."""

_ENTRIES_MAX = 100_000
_ATTRIBUTES_MAX = 20_000
_HOLES_MAX = 100_000

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """What was used lately, up to a number. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Give what is kept under a key."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep something, in the place of what was not used for longest."""
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)


class MountedVolume:
    """The files of one volume, opened when they are needed first.

    Args:
        number: of the volume among all that are mounted.
        open_files: opens it; called again after it has failed.
    """

    def __init__(self, number: int, open_files: OpenFiles) -> None:
        self.number = number
        self._open_files = open_files
        # A FileSystem belongs to one thread at a time.
        self._lock = threading.RLock()
        self._files: FileSystem | None = None
        self._closed = False
        self._entries: Recent[str, FileEntry] = Recent(_ENTRIES_MAX)
        self._attributes: Recent[str, dict[str, bytes]] = Recent(_ATTRIBUTES_MAX)

    def entry(self, path: str) -> FileEntry:
        """Describe one path; see ``FileSystem``, whose errors come through here and below."""
        found = self._entries.get(path)
        if found is None:
            with self._opened() as files:
                found = files.entry(path)
            self._entries.put(path, found)
        return found

    def entries(self, folder: str) -> tuple[list[FileEntry], FileSystemUnreadable | None]:
        """Give what is in a folder, and what was wrong with the rest of it."""
        found: list[FileEntry] = []
        failure = None
        with self._opened() as files:
            try:
                found.extend(files.entries(folder))
            except FileSystemUnreadable as error:
                if not found:
                    raise
                failure = error
        found = [entry for entry in found if is_safe_name(entry.name)]
        prefix = folder.rstrip("/") + "/"
        for entry in found:
            self._entries.put(prefix + entry.name, entry)
        return found, failure

    def attributes(self, path: str) -> dict[str, bytes]:
        """Give the extended attributes of a path."""
        found = self._attributes.get(path)
        if found is None:
            with self._opened() as files:
                found = files.attributes(path)
            self._attributes.put(path, found)
        return found

    def open(self, path: str) -> "VolumeFile":
        """Open the content of a file."""
        with self._opened() as files:
            return VolumeFile(self, path, files.open(path))

    def inode(self, entry: FileEntry) -> int:
        """Give a number for an inode that no other file of the mount has, in whichever volume it is."""
        name = f"{self.number} {entry.volume} {entry.inode}".encode()
        return int.from_bytes(blake2b(name, digest_size=8).digest()) | 2  # neither 0 nor the root's 1

    def close(self) -> None:
        """Let go of the volume; a second call does nothing."""
        with self._lock:
            self._closed = True
            if self._files is not None:
                self._files.close()
                self._files = None

    @contextmanager
    def _opened(self) -> Iterator[FileSystem]:
        with self._lock:
            if self._closed:
                raise FileSystemUnreadable("The mount is about to end")
            if self._files is None:
                self._files = self._open_files()
            yield self._files

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other threads from the volume."""
        with self._lock:
            if self._closed:
                raise FileSystemUnreadable("The mount is about to end")
            yield


class VolumeFile:
    """An open file of a volume."""

    def __init__(self, volume: MountedVolume, path: str, content: FileContent) -> None:
        self.key = (volume.number, path)
        self.size = content.size
        self._volume = volume
        self._content = content
        self._closed = False
        self._holes: tuple[list[int], list[int]] | None = None

    def read(self, offset: int, length: int) -> bytes:
        """Give the bytes from ``offset``: fewer than ``length`` only where the file ends before."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        with self._volume.alone():
            if self._closed:
                raise FileSystemUnreadable(f"{self.key[1]} is closed")
            if self._in_hole(offset, offset + length):
                return bytes(length)
            found = self._content.read(offset, length)
        if len(found) != length:
            raise FileSystemUnreadable(f"{self.key[1]} ends before its size")
        return found

    def close(self) -> None:
        """Let go of it; a second call does nothing."""
        try:
            with self._volume.alone():
                self._closed = True
                self._content.close()
        except HotspareError:
            return  # its volume is closed already

    def _in_hole(self, start: int, end: int) -> bool:
        """Tell whether nothing of a run is stored: a file may be a thousand times larger than its disk."""
        if self._holes is None:
            starts: list[int] = []
            ends: list[int] = []
            for begin, finish in self._content.holes():
                if len(starts) == _HOLES_MAX:
                    break
                starts.append(begin)
                ends.append(finish)
            self._holes = (starts, ends)
        starts, ends = self._holes
        at = bisect_right(starts, start) - 1
        return at >= 0 and end <= ends[at]


@dataclass(slots=True)
class Branch:
    """A folder above the volumes."""

    number: int
    children: dict[str, "Branch | MountedVolume"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """A path within a volume."""

    volume: MountedVolume
    path: str


class MountTree:
    """Finds what a path of the mount means: ``/VOLUME/path``, or ``/POINT/VOLUME/path`` with several points.

    Args:
        points: what is mounted.

    Raises:
        UsageError: two names are in each other's way.
    """

    def __init__(self, points: Points) -> None:
        self.root = Branch(1)
        self._branches = 1
        self.volumes: list[MountedVolume] = []
        for point, volumes in points.items():
            for name, open_files in volumes.items():
                self._add(f"{point}/{name}" if len(points) > 1 else name, open_files)

    def resolve(self, path: str) -> Branch | Place:
        """Give the folder above the volumes, or the place in a volume, that a path means.

        Raises:
            PathNotFound: it is neither.
        """
        here: Branch | MountedVolume = self.root
        names = [name for name in path.split("/") if name]
        for depth, name in enumerate(names):
            if isinstance(here, MountedVolume):
                return Place(here, "/" + "/".join(names[depth:]))
            if name not in here.children:
                raise PathNotFound(f"There is no {path} in the mount")
            here = here.children[name]
        return here if isinstance(here, Branch) else Place(here, "/")

    def close(self) -> None:
        """Let go of all volumes."""
        for volume in self.volumes:
            volume.close()

    def _add(self, path: str, open_files: OpenFiles) -> None:
        *folders, last = [name for name in path.split("/") if name not in {"", ".", ".."}] or [""]
        here = self.root
        for name in folders:
            child = here.children.setdefault(name, Branch(self._branches + 1))
            if isinstance(child, MountedVolume):
                raise _in_the_way(path)
            self._branches = max(self._branches, child.number)
            here = child
        if not last or last in here.children:
            raise _in_the_way(path)
        volume = MountedVolume(len(self.volumes), open_files)
        here.children[last] = volume
        self.volumes.append(volume)


def _in_the_way(path: str) -> UsageError:
    return UsageError(
        f"{path} cannot have a folder of its own in the mount",
        meaning="Nothing was mounted",
        hint="Mount fewer volumes or points at the same time",
    )
