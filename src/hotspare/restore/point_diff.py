"""What changed between two restore points: files, and the bytes of disks.

Both trees are walked in step, in the order of names, so that memory is that of the largest folder. Disks
are compared by their maps alone, without reading what they hold.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hotspare.cancellation import Cancellation
from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.files.file_system import FileEntry, FileSystem
from hotspare.guest.files.listing import DEPTH_MAX, Damage, listing
from hotspare.repository.disk_map import DiskMap
from hotspare.repository.format import CHUNK_ID_SIZE, PAGE_IDS
from hotspare.repository.point import PointDisk, RestorePoint
from hotspare.repository.repository import Repository
from hotspare.restore.files.content import PIECE

Ids = NDArray[np.uint8]
ChangeKind = Literal["added", "removed", "changed"]


class Change(NamedTuple):
    """One file, folder, link or device that differs."""

    change: ChangeKind
    path: str
    before: FileEntry | None
    after: FileEntry | None
    what: tuple[str, ...] = ()
    """Of what changed: ``content``, ``size``, ``modified``, ``mode``, ``owner``, ``target``, ``device``,
    ``kind``."""

    @property
    def bytes(self) -> int:
        """Size of the content that is there now, or was; 0 where only what is noted of it changed."""
        entry = self.after or self.before
        touched = self.change != "changed" or {"content", "size", "modified"} & set(self.what)
        return entry.size if entry and entry.kind == "file" and touched else 0


@dataclass(frozen=True, slots=True)
class TreeDiff:
    """Compares a folder in two trees.

    A file of the same size and time counts as the same, unless its inode is another: then, as with
    ``content``, the bytes decide.
    """

    before: FileSystem
    after: FileSystem
    cancellation: Cancellation
    content: bool = False
    """Compare the content of all files of the same size."""
    damage: Damage = field(default_factory=list)
    """What could not be read, on either side; complete when ``changes`` has ended."""

    def changes(self, path: str = "/") -> Iterator[Change]:
        """Yield what differs, a folder before what is in it.

        Raises:
            PathNotFound: the path is in neither tree.
            Interrupted: ``cancellation`` was requested.
        """
        old, new = _entry(self.before, path), _entry(self.after, path)
        if old is None and new is None:
            self.after.entry(path)
        yield from self._walk([iter([(old, new)])])

    def _walk(self, stack: list[Iterator[tuple[FileEntry | None, FileEntry | None]]]) -> Iterator[Change]:
        while stack:
            self.cancellation.check()
            pair = next(stack[-1], None)
            if pair is None:
                stack.pop()
                continue
            old, new = pair
            if old and new and (old.kind == "folder") != (new.kind == "folder"):
                # A folder is in the place of a file, or the other way round: one has gone, and another come.
                stack.append(iter([(old, None), (None, new)]))
                continue
            change = self._change(old, new)
            if change is not None:
                yield change
            if "folder" in {entry.kind for entry in pair if entry}:
                if len(stack) >= DEPTH_MAX:
                    self.damage.append(f"{(new or old).path}: folders are nested too deep")  # type: ignore[union-attr]
                    continue
                stack.append(self._pairs(old, new))

    def _pairs(
        self, old: FileEntry | None, new: FileEntry | None
    ) -> Iterator[tuple[FileEntry | None, FileEntry | None]]:
        """Pair what is in two folders by its names, in their order."""
        before = {one.name: one for one in listing(self.before, old.path, self.damage)} if old else {}
        after = {one.name: one for one in listing(self.after, new.path, self.damage)} if new else {}
        names = sorted(before.keys() | after.keys())
        return ((before.get(name), after.get(name)) for name in names)

    def _change(self, old: FileEntry | None, new: FileEntry | None) -> Change | None:
        if old is None or new is None:
            entry = new or old
            assert entry is not None  # noqa: S101 - one of them is there
            return Change("added" if new else "removed", entry.path, old, new)
        what = _differences(old, new)
        if new.kind == "file" and old.size == new.size and self._is_doubtful(old, new, what):
            what = tuple(one for one in what if one != "content")
            if self._content_differs(old, new):
                what = ("content", *what)
        return Change("changed", new.path, old, new, what) if what else None

    def _is_doubtful(self, old: FileEntry, new: FileEntry, what: tuple[str, ...]) -> bool:
        return self.content or (old.inode != new.inode and "modified" not in what)

    def _content_differs(self, old: FileEntry, new: FileEntry) -> bool:
        try:
            before, after = self.before.open(old.path), self.after.open(new.path)
        except (FileSystemUnreadable, PathNotFound) as error:
            self.damage.append(f"{new.path}: {error.what}")
            return False
        try:
            for at in range(0, new.size, PIECE):
                self.cancellation.check()
                if before.read(at, PIECE) != after.read(at, PIECE):
                    return True
        except FileSystemUnreadable as error:
            self.damage.append(f"{new.path}: {error.what}")
        finally:
            before.close()
            after.close()
        return False


def _entry(files: FileSystem, path: str) -> FileEntry | None:
    try:
        return files.entry(path)
    except PathNotFound:
        return None


def _differences(old: FileEntry, new: FileEntry) -> tuple[str, ...]:
    if old.kind != new.kind:
        return ("kind",)
    # The time of a folder says no more than the names in it, which are told by themselves.
    times = new.kind != "folder" and old.modified != new.modified
    found = {
        "size": old.size != new.size,
        "modified": times,
        "mode": old.mode != new.mode,
        "owner": (old.uid, old.gid) != (new.uid, new.gid),
        "target": old.target != new.target,
        "device": old.device != new.device,
    }
    return tuple(name for name, differs in found.items() if differs)


class DiskDiff(NamedTuple):
    """One disk in two restore points."""

    name: str
    size_before: int | None
    """None when the earlier point has no such disk."""
    size_after: int | None
    bytes_changed: int
    """Of chunks that are not the same, or only there in one of the two and not zeroes."""
    bytes_cleared: int
    """Of these: what reads as zeroes in the later point."""


def compare_disks(repository: Repository, before: RestorePoint, after: RestorePoint) -> list[DiskDiff]:
    """Compare the disks of two restore points. Raises ``RepositoryDamaged``, ``StorageError``."""
    old = {disk.name: disk for disk in before.disks}
    new = {disk.name: disk for disk in after.disks}
    names = [*new, *(name for name in old if name not in new)]
    return [_compare_disk(repository, name, old.get(name), new.get(name)) for name in names]


def _compare_disk(
    repository: Repository, name: str, old: PointDisk | None, new: PointDisk | None
) -> DiskDiff:
    chunk_size = repository.config.chunk_size
    size = max(disk.size for disk in (old, new) if disk)
    changed = cleared = 0
    if old is None or new is None or (old.root, old.size) != (new.root, new.size):
        maps = [repository.disk(disk).map if disk else None for disk in (old, new)]
        for first, before, after in leaves_that_differ(*maps):
            # The last chunk of a disk may be short.
            lengths = np.clip(size - (first + np.arange(PAGE_IDS)) * chunk_size, 0, chunk_size)
            differs = (before != after).any(axis=1)
            changed += int(lengths[differs].sum())
            cleared += int(lengths[differs & ~after.any(axis=1)].sum())
    return DiskDiff(name, old.size if old else None, new.size if new else None, changed, cleared)


def leaves_that_differ(before: DiskMap | None, after: DiskMap | None) -> Iterator[tuple[int, Ids, Ids]]:
    """Yield the first chunk and the ids, one row each, of pages that are not the same."""
    pages = -(-max(one.chunks if one else 0 for one in (before, after)) // PAGE_IDS)
    for number in range(pages):
        if _leaf_id(before, number) != _leaf_id(after, number):
            yield number * PAGE_IDS, _ids(before, number), _ids(after, number)


def _leaf_id(disk_map: DiskMap | None, number: int) -> bytes | None:
    if disk_map is None or number * PAGE_IDS >= disk_map.chunks:
        return None
    return disk_map.leaf_id(number)


def _ids(disk_map: DiskMap | None, number: int) -> Ids:
    """Give the ids of a page, filled up with holes."""
    page = b"" if _leaf_id(disk_map, number) is None or disk_map is None else disk_map.leaf(number)
    filled = page + bytes(PAGE_IDS * CHUNK_ID_SIZE - len(page))
    return np.frombuffer(filled, dtype=np.uint8).reshape(PAGE_IDS, CHUNK_ID_SIZE)
