"""What restore points use: every map page once, however many points share it; and who is hit by damage."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from hotspare.errors import HotspareError, RepositoryDamaged, StorageError
from hotspare.repository.disk_map import DiskMap, without_holes
from hotspare.repository.format import CHUNK_ID_SIZE, HOLE, PAGE_IDS
from hotspare.repository.point import PointContent, RestorePoint
from hotspare.repository.repository import Repository


class Affected(msgspec.Struct, frozen=True, kw_only=True):
    """The part of one disk of one restore point that cannot be read."""

    machine: str
    point: str
    disk: str
    ranges: tuple[tuple[int, int], ...]
    """Offset and length in bytes, from the start of the disk, ascending; they do not touch."""

    @property
    def bytes(self) -> int:
        """How much of the disk cannot be read."""
        return sum(length for _, length in self.ranges)


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One damaged or missing object, and the restore points that need it."""

    object: str
    detail: str
    points: tuple[str, ...]
    affected: tuple[Affected, ...] = ()
    """By disk; a point that cannot be read at all has none."""


Slots = set[int]
"""Places of chunks in a leaf page."""


@dataclass(slots=True)
class Damage:
    """Damage as it is found, by object; resolved to restore points at the end."""

    _details: dict[str, str] = field(default_factory=dict)
    _pages: dict[str, dict[bytes, Slots | None]] = field(default_factory=dict)
    _points: dict[str, set[str]] = field(default_factory=dict)
    _disks: dict[str, set[tuple[str, str]]] = field(default_factory=dict)

    def on_page(self, name: str, detail: str, page_id: bytes, slots: Iterable[int] | None = None) -> None:
        """Note that object ``name`` is damaged and the map page ``page_id`` needs it.

        Args:
            name: the object.
            detail: how it is damaged.
            page_id: a leaf page.
            slots: places of the chunks in the page that cannot be read; None for all.
        """
        self._details.setdefault(name, detail)
        pages = self._pages.setdefault(name, {})
        known = pages.get(page_id, set())
        pages[page_id] = None if slots is None or known is None else known | set(slots)

    def on_point(self, name: str, detail: str, point_id: str) -> None:
        """Note that object ``name`` is damaged and a point needs it as a whole."""
        self._details.setdefault(name, detail)
        self._points.setdefault(name, set()).add(point_id)

    def on_disk(self, name: str, detail: str, point_id: str, disk: str) -> None:
        """Note that object ``name`` is damaged and the whole disk of a point needs it."""
        self.on_point(name, detail, point_id)
        self._disks.setdefault(name, set()).add((point_id, disk))

    def on_object(self, name: str, detail: str) -> None:
        """Note that object ``name`` is damaged, whoever needs it."""
        self._details.setdefault(name, detail)

    def problems(
        self,
        maps: Iterable[tuple[RestorePoint, PointContent, DiskMap]],
        points: Iterable[RestorePoint],
        chunk_size: int,
    ) -> list[Problem]:
        """Tell which disks of the points need each damaged object, and where."""
        affected: dict[str, list[Affected]] = {}
        whole = {(point.id, disk.name): (point, disk) for point in points for disk in point.contents}
        for name, disks in self._disks.items():
            for point, disk in (whole[key] for key in sorted(disks)):
                affected.setdefault(name, []).append(_affected(point, disk, [(0, disk.size)]))
        if self._pages:
            for point, disk, disk_map in maps:
                for name, ranges in self._ranges(disk_map, disk.size, chunk_size).items():
                    affected.setdefault(name, []).append(_affected(point, disk, ranges))
        return [
            Problem(
                object=name,
                detail=detail,
                points=tuple(
                    sorted(self._points.get(name, set()) | {one.point for one in affected.get(name, ())})
                ),
                affected=tuple(affected.get(name, ())),
            )
            for name, detail in sorted(self._details.items())
        ]

    def _ranges(self, disk_map: DiskMap, size: int, chunk_size: int) -> dict[str, list[tuple[int, int]]]:
        """Give what of a disk each damaged object hits."""
        places: dict[bytes, list[int]] = {}
        for number, page_id in enumerate(leaf_ids(disk_map)):
            places.setdefault(page_id, []).append(number)
        found: dict[str, list[tuple[int, int]]] = {}
        for name, pages in self._pages.items():
            chunks = sorted(
                number * PAGE_IDS + slot
                for page_id in pages.keys() & places.keys()
                for number in places[page_id]
                for slot in _slots_of(pages[page_id], min(PAGE_IDS, disk_map.chunks - number * PAGE_IDS))
            )
            if chunks:
                found[name] = merged_ranges(chunks, chunk_size, size)
        return found


def merged_ranges(chunks: Iterable[int], chunk_size: int, size: int) -> list[tuple[int, int]]:
    """Give (offset, length) in bytes of runs of chunks, which come in rising order, on a disk of ``size``."""
    ranges: list[tuple[int, int]] = []
    for chunk in chunks:
        start, stop = chunk * chunk_size, min((chunk + 1) * chunk_size, size)
        if ranges and sum(ranges[-1]) == start:
            ranges[-1] = ranges[-1][0], stop - ranges[-1][0]
        else:
            ranges.append((start, stop - start))
    return ranges


def _slots_of(slots: Slots | None, count: int) -> Iterable[int]:
    return range(count) if slots is None else (slot for slot in slots if slot < count)


def _affected(point: RestorePoint, disk: PointContent, ranges: list[tuple[int, int]]) -> Affected:
    return Affected(machine=point.machine_name, point=point.id, disk=disk.name, ranges=tuple(ranges))


class Survey:
    """A walk over the maps of some restore points."""

    def __init__(self, repository: Repository, points: list[RestorePoint]) -> None:
        self.damage = Damage()
        self._repository = repository
        self._points = points
        self._seen: set[bytes] = set()

    def disks(self) -> Iterator[tuple[RestorePoint, PointContent, DiskMap]]:
        """Yield every disk, and other state, whose map can be read; the others are noted as damage."""
        for point in self._points:
            for disk in point.contents:
                try:
                    disk_map = self._repository.disk(disk).map
                except (RepositoryDamaged, StorageError) as error:
                    name = f"map of disk {disk.name} of {point.id}"
                    self.damage.on_disk(name, error.what, point.id, disk.name)
                else:
                    yield point, disk, disk_map

    def new_pages(self, disk_map: DiskMap) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield (number, page id, chunk ids without holes) of each leaf page that was not met before."""
        for number, page_id in enumerate(leaf_ids(disk_map)):
            if page_id == HOLE or page_id in self._seen:
                continue
            self._seen.add(page_id)
            try:
                page = disk_map.leaf(number)
            except HotspareError as error:
                self.damage.on_page(f"map page {page_id.hex()[:16]}", error.what, page_id)
                continue
            yield number, page_id, without_holes(page)

    def problems(self) -> list[Problem]:
        """Give all damage found so far, with the points that it hits."""
        return self.damage.problems(self.disks(), self._points, self._repository.config.chunk_size)


def leaf_ids(disk_map: DiskMap) -> Iterator[bytes]:
    """Yield the ids of a map's leaf pages."""
    leaves = disk_map.leaves
    return (leaves[at : at + CHUNK_ID_SIZE] for at in range(0, len(leaves), CHUNK_ID_SIZE))


def slots_without_holes(page: bytes) -> npt.NDArray[np.int64]:
    """Give the places in a leaf page of the chunks that ``new_pages`` yields, in the same order."""
    rows = np.frombuffer(page, dtype=np.uint8).reshape(-1, CHUNK_ID_SIZE)
    return np.flatnonzero(rows.any(axis=1))


def slots_of(page: bytes, chunk_id: bytes) -> list[int]:
    """Give the places in a leaf page where a chunk is listed."""
    return [
        at // CHUNK_ID_SIZE
        for at in range(0, len(page), CHUNK_ID_SIZE)
        if page[at : at + CHUNK_ID_SIZE] == chunk_id
    ]
