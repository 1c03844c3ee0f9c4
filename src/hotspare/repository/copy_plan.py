"""What a copy of restore points has to do: which points, and which chunks of their disks."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import numpy as np

from hotspare.errors import UsageError
from hotspare.repository.disk_map import DiskMap, chunk_count
from hotspare.repository.format import CHUNK_ID_SIZE, HOLE, PAGE_IDS
from hotspare.repository.point import RestorePoint


def select_points(
    points: Iterable[RestorePoint],
    machines: Sequence[str],
    since: datetime | None,
    tags: Sequence[str] = (),
) -> list[RestorePoint]:
    """Give the points of machines (by name or id; none means all) that were finished since a time.

    With ``tags``, only those whose machine had one of the tags when they were made.

    Raises:
        UsageError: a machine or tag has no point.
    """
    every = list(points)
    for machine in machines:
        if not any(machine in {point.machine_name, point.machine_id} for point in every):
            raise UsageError(
                f"The repository has no restore point of a machine '{machine}'",
                meaning="Nothing was copied",
                hint="See 'hotspare point list'",
            )
    for tag in tags:
        if not any(tag in tags_of(point) for point in every):
            raise UsageError(
                f"The repository has no restore point of a machine with the tag '{tag}'",
                meaning="Nothing was copied",
                hint="A restore point has the tags that its machine had when it was made",
            )
    return [
        point
        for point in every
        if (not machines or point.machine_name in machines or point.machine_id in machines)
        and (since is None or point.finished_at >= since)
        and (not tags or not tags_of(point).isdisjoint(tags))
    ]


def tags_of(point: RestorePoint) -> frozenset[str]:
    """Give the tags that a machine had when its point was made."""
    marks = point.machine.get("marks")
    tags = marks.get("tags") if isinstance(marks, dict) else None
    return frozenset(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else frozenset()


def changed_runs(disk_map: DiskMap, parent: DiskMap | None) -> Iterator[tuple[int, int]]:
    """Yield (first, count) of runs of chunks in which two maps differ; without a parent, of no holes."""
    before = None
    for number in range(len(disk_map.leaves) // CHUNK_ID_SIZE):
        old_id = parent.leaf_id(number) if parent else HOLE
        if disk_map.leaf_id(number) == old_id:
            continue
        count = min(PAGE_IDS, disk_map.chunks - number * PAGE_IDS)
        new = _rows(disk_map, number, count)
        old = _rows(parent, number, count) if parent else np.zeros_like(new)
        for slot in np.flatnonzero((new != old).any(axis=1)).tolist():
            chunk = number * PAGE_IDS + slot
            if before and sum(before) == chunk:
                before = before[0], before[1] + 1
                continue
            if before:
                yield before
            before = chunk, 1
    if before:
        yield before


def in_larger_or_smaller_chunks(
    runs: Iterable[tuple[int, int]], source_size: int, target_size: int, disk_size: int
) -> Iterator[tuple[int, int]]:
    """Give runs of chunks of one size as runs of chunks of another that cover them, joined."""
    before = None
    for first, count in runs:
        start = first * source_size // target_size
        stop = chunk_count(min((first + count) * source_size, disk_size), target_size)
        if before and start <= sum(before):
            before = before[0], max(sum(before), stop) - before[0]
            continue
        if before:
            yield before
        before = start, stop - start
    if before:
        yield before


def _rows(disk_map: DiskMap, number: int, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    page = bytes(count * CHUNK_ID_SIZE) if disk_map.leaf_is_hole(number) else disk_map.leaf(number)
    return np.frombuffer(page, dtype=np.uint64).reshape(count, -1)


def bytes_of(first: int, count: int, chunk_size: int, disk_size: int) -> int:
    """Give how many bytes of a disk a run of chunks covers; the last chunk may be short."""
    return min((first + count) * chunk_size, disk_size) - first * chunk_size
