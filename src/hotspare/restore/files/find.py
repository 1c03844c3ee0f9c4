"""Finding files by name, size and time in many restore points at once.

Points with a file index are answered from it, and a part of the index that several points share is
searched once. Points without one are walked.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hotspare.cancellation import Cancellation
from hotspare.guest.files.by_path import FilesByPath
from hotspare.guest.files.listing import Damage, walk_in_order
from hotspare.repository.file_index import KINDS, IndexedRoot
from hotspare.repository.file_index_reader import FileIndex, Segment
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.restore.files.pattern import PathPattern

OpenFiles = Callable[[RestorePoint], AbstractContextManager[FilesByPath]]
"""Opens the files of a restore point."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for."""

    pattern: PathPattern
    folder: str | None = None
    """Only below this one."""
    kind: str | None = None
    larger: int | None = None
    """Bytes: only what has more."""
    newer: int | None = None
    """Nanoseconds since 1970: only what was modified later."""

    def fits(self, path: str, kind: str, size: int, modified: int) -> bool:
        """Tell whether it is all that, but for the name, which was looked at already."""
        return (
            (self.kind is None or kind == self.kind)
            and (self.larger is None or size > self.larger)
            and (self.newer is None or modified > self.newer)
            and (self.folder is None or path.startswith(self.folder.rstrip("/") + "/"))
        )


class Found(NamedTuple):
    """One file as it is in some restore points."""

    path: str
    kind: str
    size: int
    modified: int
    points: tuple[str, ...]
    """Ids of those where it is so, in the order in which they were given."""


class _Seen(NamedTuple):
    path: str
    kind: str
    size: int
    modified: int


@dataclass(slots=True)
class FileSearch:
    """One search; what it says of itself is complete when ``run`` has ended.

    Args:
        repository: where the points are.
        query: what is looked for.
        open_files: for points without an index.
        cancellation: looked at between files.
        use_index: False walks all points.
    """

    repository: Repository
    query: Query
    open_files: OpenFiles
    cancellation: Cancellation
    use_index: bool = True
    remarks: list[str] = field(default_factory=list)
    """What was not looked at, and why, in sentences."""
    walked: list[str] = field(default_factory=list)
    """Ids of points that have no index."""
    _found: dict[_Seen, list[str]] = field(default_factory=dict)
    _searched: dict[tuple[bytes, str], list[_Seen]] = field(default_factory=dict)

    def run(self, points: Sequence[RestorePoint]) -> list[Found]:
        """Search these points; give what was found by path, then by time.

        Raises:
            RepositoryDamaged, StorageError: the repository cannot be read.
            Interrupted: ``cancellation`` was requested.
        """
        for point in points:
            index = FileIndex.of(self.repository, point) if self.use_index else None
            seen = self._walk(point) if index is None else self._look_up(index)
            for one in seen:
                ids = self._found.setdefault(one, [])
                if not ids or ids[-1] != point.id:
                    ids.append(point.id)
        ordered = sorted(self._found.items(), key=lambda item: (item[0].path, item[0].modified))
        return [Found(*one, tuple(ids)) for one, ids in ordered]

    def _look_up(self, index: FileIndex) -> Iterator[_Seen]:
        for root in index.roots:
            if root.remark:
                self._remark(f"{root.path} is not wholly in the index: {root.remark}")
        for number, identity, source in index.segments():
            self.cancellation.check()
            root = index.roots[number]
            known = self._searched.get((identity, root.path)) if identity else None
            if known is None:
                known = list(self._search(source.read(), root))
                self._searched[identity, root.path] = known
            yield from known

    def _search(self, segment: Segment, root: IndexedRoot) -> Iterator[_Seen]:
        for number in names_that_fit(segment, self.query, root):
            row = segment.row(number)
            path = root.shown(row.path)
            if self.query.fits(path, row.kind, row.size, row.modified):
                yield _Seen(path, row.kind, row.size, row.modified)

    def _walk(self, point: RestorePoint) -> Iterator[_Seen]:
        self.walked.append(point.id)
        damage: Damage = []
        with self.open_files(point) as files:
            for root in [self.query.folder] if self.query.folder else files.roots():
                for entry in walk_in_order(files, root, damage):
                    self.cancellation.check()
                    one = _Seen(entry.path, entry.kind, entry.size, entry.modified)
                    if self.query.pattern.matches(*_split(one.path)) and self.query.fits(*one):
                        yield one
        for sentence in damage:
            self._remark(f"{point.id}: {sentence}")

    def _remark(self, sentence: str) -> None:
        if sentence not in self.remarks:
            self.remarks.append(sentence)


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name


def names_that_fit(segment: Segment, query: Query, root: IndexedRoot) -> Iterator[int]:
    """Yield the numbers of the names in a segment that fit by name and numbers."""
    good = np.ones(len(segment), dtype=np.bool_)
    if query.kind is not None:
        good &= segment.columns["kinds"] == KINDS.index(query.kind)
    if query.larger is not None:
        good &= segment.columns["sizes"] > np.uint64(query.larger)
    if query.newer is not None:
        good &= segment.columns["seconds"] >= np.int64(query.newer // 10**9)
    fits: dict[str, bool] = {}
    number = at = 0
    for match in query.pattern.name_finder.finditer(segment.text):
        # As many names lie before it as zero characters, less the one that it begins with.
        number += segment.text.count("\0", at, match.start())
        at = match.start()
        if not good[number]:
            continue
        folder = segment.folder_of(number)
        if folder not in fits:
            fits[folder] = query.pattern.fits_folder(root.shown(folder))
        if fits[folder]:
            yield number
