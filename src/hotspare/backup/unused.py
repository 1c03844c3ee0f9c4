"""Leaving out of a disk what no file system needs, in fulls and in increments.

What is left out reads as zeroes in the restore point. A list of it is kept with the point, because the next
increment has to know: a block that has come into use since then must be read even if the platform does not
call it changed, as the parent has no copy of it.
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hotspare.backup.plan import TransferPlan
from hotspare.block.extent import Extent, ExtentKind
from hotspare.block.ranges import NOTHING, Bounds, Ranges


@dataclass(frozen=True, slots=True)
class Unused:
    """What is left out of one disk."""

    now: Ranges
    """No file system needs it in the snapshot."""
    before: Ranges = NOTHING
    """It was left out of the parent restore point."""

    @property
    def nothing(self) -> bool:
        """Whether the disk is read as if nobody knew of file systems."""
        return not len(self.now) and not len(self.before)

    def extents(self, changed: Iterable[Extent], disk_size: int, chunk_size: int) -> Iterator[Extent]:
        """Turn what the platform says has changed into what has to be stored.

        What is unused becomes zero, unread. Added are what was left out before and is used now, and chunks
        of which nothing is needed any more.
        """
        if self.nothing:
            yield from changed
            return
        data, zero = _by_kind(changed)
        unread = data & self.now
        data = (data | (self.before - self.now - zero)) - self.now
        whole = _chunks_in(self.now, disk_size, chunk_size) - _chunks_in(self.before, disk_size, chunk_size)
        yield from _in_order(data, (zero | unread | whole) - data)

    def after(self, plan: TransferPlan, chunk_size: int) -> Ranges:
        """Give what is left out of the new restore point: chunks outside of the plan are as they were."""
        if self.nothing:
            return NOTHING
        planned = Ranges.of((run.first * chunk_size, (run.first + run.chunks) * chunk_size) for run in plan)
        return (self.now & planned) | (self.before - planned)


def _chunks_in(ranges: Ranges, disk_size: int, chunk_size: int) -> Ranges:
    """Give the whole chunks in a set; the last chunk of the disk may be a short one."""
    beyond = Ranges.of([(disk_size, disk_size + -disk_size % chunk_size)])
    return (ranges | beyond).aligned_inside(chunk_size).within(0, disk_size)


class _Kinds(NamedTuple):
    data: Ranges
    zero: Ranges


def _by_kind(extents: Iterable[Extent]) -> _Kinds:
    edges = {ExtentKind.DATA: array("q"), ExtentKind.ZERO: array("q")}
    for extent in extents:
        edges[extent.kind].extend((extent.offset, extent.end))
    return _Kinds(*(Ranges.of(np.array(edges[kind], dtype=np.int64)) for kind in ExtentKind))


def _in_order(data: Ranges, zero: Ranges) -> Iterator[Extent]:
    """Yield two sets that have nothing in common as extents."""
    bounds: Bounds = np.concatenate((data.bounds, zero.bounds))
    kinds = [ExtentKind.DATA, ExtentKind.ZERO]
    for at in np.argsort(bounds[:, 0], kind="stable"):
        start, end = bounds[at]
        yield Extent(int(start), int(end - start), kinds[int(at >= len(data))])
