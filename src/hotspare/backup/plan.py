"""Which chunks of a disk have to be read, and which are known to be zero.

A chunk is the unit that is stored, so a chunk that changed in part is read whole: the snapshot gives
every byte of the disk, not only the changed ones.
"""

from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from hotspare.block.extent import Extent, ExtentKind
from hotspare.repository.disk_map import chunk_count

_ZERO_BIT = 1


class ChunkRun(NamedTuple):
    """Neighbouring chunks that are all to be read, or all zero."""

    first: int
    chunks: int
    zero: bool


class TransferPlan:
    """The chunk runs of one disk in rising order, kept in 16 bytes each: a busy disk has millions."""

    def __init__(self, disk_size: int, chunk_size: int) -> None:
        self._disk_size = disk_size
        self._chunk_size = chunk_size
        self._runs = array("Q")
        self.chunks_to_read = 0
        self.chunks_zero = 0

    def add(self, first: int, count: int, *, zero: bool) -> None:
        """Append a run; it is merged with the last one where it continues it."""
        if zero:
            self.chunks_zero += count
        else:
            self.chunks_to_read += count
        if self._runs:
            last_first, last_count, last_zero = self._decode(len(self._runs) - 2)
            if last_zero == zero and last_first + last_count == first:
                self._runs[-1] = (last_count + count) << 1 | zero
                return
        self._runs.extend((first, count << 1 | zero))

    def __iter__(self) -> Iterator[ChunkRun]:
        return (self._decode(at) for at in range(0, len(self._runs), 2))

    def __len__(self) -> int:
        return len(self._runs) // 2

    @property
    def bytes_to_process(self) -> int:
        """Bytes that will be read or noted as zero, at most the disk's size."""
        return min((self.chunks_to_read + self.chunks_zero) * self._chunk_size, self._disk_size)

    def _decode(self, at: int) -> ChunkRun:
        word = self._runs[at + 1]
        return ChunkRun(self._runs[at], word >> 1, bool(word & _ZERO_BIT))


def plan_transfer(extents: Iterable[Extent], disk_size: int, chunk_size: int) -> TransferPlan:
    """Cut ordered extents at chunk boundaries.

    A chunk is zero only when zero extents cover all of it (the last chunk ends with the disk); any
    other chunk that an extent touches is read.
    """
    plan = TransferPlan(disk_size, chunk_size)
    open_chunk = -1
    zero_until = 0
    for extent in extents:
        offset = extent.offset
        while offset < extent.end:
            chunk = offset // chunk_size
            if chunk != open_chunk:
                _close(plan, open_chunk, zero_until, disk_size, chunk_size)
                open_chunk, zero_until = chunk, chunk * chunk_size
            whole = offset == chunk * chunk_size and extent.end - offset > chunk_size
            if whole:
                # All but the last chunk of the extent: one run, however long, without a loop over it.
                count = (extent.end - 1) // chunk_size - chunk
                plan.add(chunk, count, zero=extent.kind is ExtentKind.ZERO)
                open_chunk = -1
                offset += count * chunk_size
                continue
            stop = min(extent.end, (chunk + 1) * chunk_size)
            still_zero = extent.kind is ExtentKind.ZERO and zero_until == offset
            zero_until = stop if still_zero else -1
            offset = stop
    _close(plan, open_chunk, zero_until, disk_size, chunk_size)
    return plan


def _close(plan: TransferPlan, chunk: int, zero_until: int, disk_size: int, chunk_size: int) -> None:
    if chunk < 0:
        return
    end = min((chunk + 1) * chunk_size, disk_size)
    plan.add(chunk, 1, zero=zero_until == end)


def stripes(plan: TransferPlan, disk_size: int, chunk_size: int, stripe: int) -> Iterator[ChunkRun]:
    """Cut the runs that are read into pieces of at most ``stripe`` bytes; zero runs stay whole."""
    step = max(1, stripe // chunk_size)
    last = chunk_count(disk_size, chunk_size)
    for run in plan:
        if run.zero:
            yield run
            continue
        end = min(run.first + run.chunks, last)
        for first in range(run.first, end, step):
            yield ChunkRun(first, min(step, end - first), zero=False)
