"""Several volumes as one tree of files, as their machine sees them."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.files.file_system import FileContent, FileEntry, FileSystem
from hotspare.guest.volumes.volume import Volume

_LINKS_MAX = 40
"""Symbolic links that are followed for one path, as in Linux."""

OpenVolume = Callable[[Volume], FileSystem]
"""Gives a volume's file system, the same one each time. Raises ``FileSystemUnreadable``."""


class Mount(NamedTuple):
    """A volume, or a folder of it, at a place of the tree."""

    point: str
    """``/``, ``/home``…"""
    volume: Volume
    folder: str = ""
    """Of the volume, what is seen there: ``/@home``; empty for its root."""


class _Place(NamedTuple):
    """A path, and where it leads."""

    path: str
    """In the tree."""
    mount: Mount
    inner: str
    """In the volume."""


class Tree:
    """A file system of the contract, made of mounts. Volumes are opened when something in them is asked for.

    Symbolic links in folders of a path are followed, never out of the tree; as with ``lstat``, ``entry`` and
    ``attributes`` tell of a link itself, while ``entries``, ``walk`` and ``open`` go where it leads.

    Args:
        mounts: one of them at ``/``.
        open_volume: opens a volume.
    """

    def __init__(self, mounts: Sequence[Mount], open_volume: OpenVolume) -> None:
        self._mounts = {mount.point: mount for mount in mounts}
        self._by_length = sorted(self._mounts, key=len, reverse=True)
        self._open_volume = open_volume
        root = open_volume(self._mounts["/"].volume)
        self.kind = root.kind
        self.remarks = tuple(root.remarks)
        self._plain = len(self._mounts) == 1 and not self._mounts["/"].folder

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What is where, the root first."""
        return tuple(sorted(self._mounts.values(), key=lambda mount: mount.point))

    def entry(self, path: str) -> FileEntry:
        """Describe one path; see the contract."""
        return self._look(path, follow=False)[1]

    def entries(self, folder: str) -> Iterator[FileEntry]:
        """Yield what is in a folder; see the contract."""
        place = self._folder(folder)
        found = self._open_volume(place.mount.volume).entries(place.inner)
        return self._renamed(found, place)

    def walk(self, folder: str = "/") -> Iterator[FileEntry]:
        """Yield everything below a folder; see the contract."""
        return self._walk(self._folder(folder))

    def open(self, path: str, stream: str = "") -> FileContent:
        """Open a file's content or a stream; see the contract."""
        place, _ = self._look(path, follow=True)
        return self._open_volume(place.mount.volume).open(place.inner, stream)

    def attributes(self, path: str) -> dict[str, bytes]:
        """Give extended attributes; see the contract."""
        place, _ = self._look(path, follow=False)
        return self._open_volume(place.mount.volume).attributes(place.inner)

    def close(self) -> None:
        """Do nothing: volumes are closed by whoever gives them."""

    def _folder(self, path: str) -> _Place:
        place, entry = self._look(path, follow=True)
        if entry.kind != "folder":
            raise PathNotFound(f"{path} is no folder")
        return place

    def _look(self, path: str, *, follow: bool) -> tuple[_Place, FileEntry]:
        parts = [part for part in path.split("/") if part]
        if ".." not in parts and "." not in parts:
            # Nearly always there is no link on the way, and one question is enough.
            place = self._place(parts)
            try:
                entry = self._described(place)
            except PathNotFound:
                pass
            else:
                if entry.kind != "link" or not follow:
                    return self._place([part for part in entry.path.split("/") if part]), entry
        return self._step_by_step(path, parts, follow=follow)

    def _step_by_step(self, path: str, parts: list[str], *, follow: bool) -> tuple[_Place, FileEntry]:
        waiting = parts[::-1]
        here: list[str] = []
        links = 0
        place = self._place(here)
        entry = self._described(place)
        while waiting:
            name = waiting.pop()
            if name in {"", "."}:
                continue
            here = here[:-1] if name == ".." else [*here, name]
            place = self._place(here)
            entry = self._described(place)
            if entry.kind == "link" and (waiting or follow):
                links += 1
                if links > _LINKS_MAX or not entry.target:
                    raise PathNotFound(f"{path} leads through too many symbolic links")
                here = [] if entry.target.startswith("/") else here[:-1]
                waiting += entry.target.split("/")[::-1]
                place = self._place(here)
                entry = self._described(place)
            elif waiting and entry.kind != "folder":
                raise PathNotFound(f"There is no {path}: {entry.path} is no folder")
        return place, entry

    def _place(self, parts: Sequence[str]) -> _Place:
        path = "/" + "/".join(parts)
        for point in self._by_length:
            if point in {"/", path} or path.startswith(point + "/"):
                mount = self._mounts[point]
                below = path if point == "/" else path[len(point) :]
                return _Place(path, mount, (mount.folder + below).rstrip("/") or "/")
        raise AssertionError("there is always a root")

    def _described(self, place: _Place) -> FileEntry:
        entry = self._open_volume(place.mount.volume).entry(place.inner)
        return entry if self._plain else self._at(entry, self._outer(entry.path, place.mount), place.mount)

    def _renamed(self, found: Iterator[FileEntry], place: _Place) -> Iterator[FileEntry]:
        """Yield entries by their paths in the tree; where another volume is mounted, its root."""
        failure: FileSystemUnreadable | None = None
        for entry in found:
            path = self._outer(entry.path, place.mount)
            if path in self._mounts:
                try:
                    yield self._described(self._place(path.split("/")[1:]))
                except FileSystemUnreadable as error:
                    failure = failure or error
            else:
                yield entry if self._plain else self._at(entry, path, place.mount)
        if failure is not None:
            raise failure

    def _walk(self, place: _Place) -> Iterator[FileEntry]:
        above = place.mount.point.rstrip("/") + "/"
        hidden = tuple(f"{point}/" for point in self._mounts if point.startswith(above) and point != "/")
        failure: FileSystemUnreadable | None = None
        found = self._renamed(self._open_volume(place.mount.volume).walk(place.inner), place)
        while True:
            try:
                entry = next(found)
                if hidden and entry.path.startswith(hidden):
                    continue
                yield entry
                if entry.kind == "folder" and entry.path in self._mounts:
                    yield from self._walk(self._place(entry.path.split("/")[1:]))
            except StopIteration:
                break
            except FileSystemUnreadable as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _outer(self, inner: str, mount: Mount) -> str:
        """Turn a path in a volume into one of the tree."""
        below = inner[len(mount.folder) :] if mount.folder else inner
        return (mount.point.rstrip("/") + below).rstrip("/") or "/"

    def _at(self, entry: FileEntry, path: str, mount: Mount) -> FileEntry:
        return msgspec.structs.replace(entry, path=path, volume=mount.volume.name)
