"""Doubting what a platform says has not changed.

What the platform calls unchanged is taken from the parent restore point, unread. Were the platform wrong,
old data would be in every point from then on, and nobody would notice before a restore. So an increment is
checked against the disk itself, in two ways:

- always, and for nearly nothing: where the disk has no data now, the parent must have had none, and the last
  chunk that has data is read. A disk that was made smaller and larger again shows there: QEMU forgets the
  changes that its bitmap had noted in the part that was cut off.
- on request: a random sample of the unchanged chunks is read and compared with the parent's ids.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from hotspare.backup.plan import ChunkRun, TransferPlan, plan_transfer
from hotspare.block.device import BlockReader
from hotspare.block.ranges import NOTHING, Ranges, blank
from hotspare.block.zeroes import is_zero
from hotspare.repository.disk_map import DiskMap, chunk_count
from hotspare.repository.format import HOLE
from hotspare.repository.point import RestorePoint
from hotspare.units import format_bytes

ChunkId = Callable[[memoryview], bytes]


@dataclass(slots=True)
class TrackingCheck:
    """What came of it."""

    compared: int = 0
    """Chunks that were read."""
    wrong: int = 0
    """Chunks, read or known to be zero, that are not what the parent has."""
    first_wrong: int = -1
    """Bytes from the start of the disk to the first of them."""

    def note_wrong(self, chunk: int, chunk_size: int) -> None:
        """Count a chunk that is not what the parent has."""
        offset = chunk * chunk_size
        self.first_wrong = offset if not self.wrong else min(self.first_wrong, offset)
        self.wrong += 1


def check_tracking(
    reader: BlockReader,
    changed: TransferPlan,
    parent: DiskMap,
    chunk_size: int,
    chunk_id: ChunkId,
    *,
    percent: float,
    check: Callable[[], None],
    left_out: Ranges = NOTHING,
) -> TrackingCheck:
    """Compare chunks that are said to be unchanged with what the parent has.

    Args:
        reader: the whole frozen disk.
        changed: what the platform says has changed.
        parent: the map of the disk in the parent point.
        chunk_size: bytes.
        chunk_id: gives the id of a chunk's content.
        percent: how many of the unchanged chunks that hold data are read, chosen at random; 0 to 100.
        check: called before each chunk; raises to stop.
        left_out: what the parent has zeroes of, whatever was on the disk.

    Raises:
        SourceLost: the disk went away.
        RepositoryDamaged: the parent's map cannot be read.
    """
    result = TrackingCheck()
    now = plan_transfer(reader.extents(0, reader.size), reader.size, chunk_size)
    candidates: list[ChunkRun] = []
    for run in _outside(now, changed, chunk_count(reader.size, chunk_size)):
        if not run.zero:
            candidates.append(run)
            continue
        for first, count, is_hole in parent.runs(run.first, run.chunks):
            for chunk in () if is_hole else range(first, first + count):
                result.note_wrong(chunk, chunk_size)
    buffer = memoryview(bytearray(chunk_size))
    for chunk in _sample(candidates, percent):
        check()
        start = chunk * chunk_size
        data = buffer[: min(chunk_size, reader.size - start)]
        reader.read_into(start, data)
        blank(left_out, start, data)
        result.compared += 1
        found = HOLE if is_zero(data) else chunk_id(data)
        if found != parent[chunk]:
            result.note_wrong(chunk, chunk_size)
    return result


def _outside(now: TransferPlan, changed: TransferPlan, chunks: int) -> Iterator[ChunkRun]:
    """Yield the parts of the disk's runs that are not among those that changed."""
    edges = [(0, 0), *((run.first, run.first + run.chunks) for run in changed), (chunks, chunks)]
    gaps = ((one[1], other[0]) for one, other in pairwise(edges) if one[1] < other[0])
    gap = next(gaps, None)
    for run in now:
        end = run.first + run.chunks
        while gap is not None and gap[0] < end:
            first, stop = max(run.first, gap[0]), min(end, gap[1])
            if first < stop:
                yield ChunkRun(first, stop - first, run.zero)
            if gap[1] > end:
                break
            gap = next(gaps, None)


def _sample(runs: list[ChunkRun], percent: float) -> list[int]:
    """Choose chunks at random, and the last one always; in rising order."""
    total = sum(run.chunks for run in runs)
    if not total:
        return []
    wanted = min(total, -int(-total * percent // 100))
    chosen = sorted({*random.sample(range(total), wanted), total - 1})
    numbers: list[int] = []
    passed, at = 0, 0
    for run in runs:
        while at < len(chosen) and chosen[at] < passed + run.chunks:
            numbers.append(run.first + chosen[at] - passed)
            at += 1
        passed += run.chunks
    return numbers


def why_full(found: TrackingCheck) -> str:
    """Say why a disk whose check failed is read in full."""
    where = format_bytes(found.first_wrong)
    return f"the record of what changed was wrong: {found.wrong} chunks differ, the first at {where}"


def warning_of(disk: str, found: TrackingCheck, earlier: list[RestorePoint]) -> str:
    """Tell what a failed check means for the restore points of the machine, given the earlier ones."""
    suspects = suspect_points(disk, earlier)
    told = f"disk {disk} was read in full at once: {why_full(found)}"
    if not suspects:
        return told
    which = f"{suspects[0]} to {suspects[-1]}" if len(suspects) > 1 else suspects[0]
    return f"{told}. The disk may hold old data in the restore points {which}"


def suspect_points(disk: str, points: list[RestorePoint]) -> list[str]:
    """Name the newest points in a row that hold the disk as an increment, oldest first."""
    suspects: list[str] = []
    for point in reversed(points):
        if not any(one.name == disk and one.mode == "increment" for one in point.disks):
            break
        suspects.append(point.id)
    return suspects[::-1]
