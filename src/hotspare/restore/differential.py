"""Writing a disk over what is there: only the blocks that differ.

What is there is read and hashed as a backup would hash it, so that the ids in the disk's map tell which
chunks differ; only those are fetched, and only their blocks that differ are written. Nothing is believed
about the target: so this also mends, and goes on with, a restore that was broken off.
"""

import mmap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hotspare.block.device import BlockDisk
from hotspare.block.extent import Extent, ExtentKind
from hotspare.block.pipeline import WORKERS, ordered_map
from hotspare.block.ranges import NOTHING, Ranges, blank
from hotspare.block.zeroes import is_zero
from hotspare.cancellation import Cancellation
from hotspare.repository.disk import RepositoryDisk
from hotspare.repository.format import HOLE
from hotspare.repository.repository import Repository
from hotspare.units import KIB, MIB

_STRIPE = 4 * MIB
_BLOCK = 64 * KIB
"""What is written at least: the cluster of a qcow2 image."""

ChunkId = Callable[[memoryview], bytes]


class Written(NamedTuple):
    """What writing a disk took, in bytes."""

    compared: int
    """Read of the target and compared."""
    written: int

    def __add__(self, other: object) -> "Written":
        """Sum both up."""
        if not isinstance(other, Written):
            return NotImplemented
        return Written(self.compared + other.compared, self.written + other.written)


@dataclass(slots=True)
class _Comparer:
    source: RepositoryDisk
    target: BlockDisk
    chunk_id: ChunkId
    chunk_size: int
    left_out: Ranges
    there: memoryview
    wanted: memoryview

    def mend(self, piece: Extent) -> tuple[Extent, Written]:
        """Make one piece of the target equal to the source."""
        there = self.there[: piece.length]
        compared = self._read(piece, there)
        written = 0
        for first, end in self._differing(piece, there):
            wanted = self.wanted[: end - first]
            self.source.read_into(first, wanted)
            written += self._write_blocks(first, there[first - piece.offset : end - piece.offset], wanted)
        return piece, Written(compared, written)

    def _read(self, piece: Extent, there: memoryview) -> int:
        extents = list(self.target.extents(piece.offset, piece.length))
        if all(extent.kind is ExtentKind.ZERO for extent in extents):
            np.frombuffer(there, np.uint8)[:] = 0
            return 0
        self.target.read_into(piece.offset, there)
        blank(self.left_out, piece.offset, there)
        return piece.length

    def _differing(self, piece: Extent, there: memoryview) -> Iterator[tuple[int, int]]:
        """Yield (start, end) on the disk of the runs of chunks that differ."""
        start: int | None = None
        for at in range(0, piece.length, self.chunk_size):
            chunk = there[at : at + self.chunk_size]
            here = HOLE if is_zero(chunk) else self.chunk_id(chunk)
            differs = here != self.source.map[(piece.offset + at) // self.chunk_size]
            if differs and start is None:
                start = piece.offset + at
            if not differs and start is not None:
                yield start, piece.offset + at
                start = None
        if start is not None:
            yield start, piece.end

    def _write_blocks(self, offset: int, there: memoryview, wanted: memoryview) -> int:
        """Write the blocks that differ, neighbours of one kind together; give the bytes written."""
        run: Extent | None = None
        written = 0
        for at in range(0, len(wanted), _BLOCK):
            block = wanted[at : at + _BLOCK]
            if block == there[at : at + _BLOCK]:
                continue
            kind = ExtentKind.ZERO if is_zero(block) else ExtentKind.DATA
            written += len(block)
            if run is not None and run.end == at and run.kind is kind:
                run = Extent(run.offset, run.length + len(block), kind)
                continue
            self._write(offset, run, wanted)
            run = Extent(at, len(block), kind)
        self._write(offset, run, wanted)
        return written

    def _write(self, offset: int, run: Extent | None, wanted: memoryview) -> None:
        if run is None:
            return
        if run.kind is ExtentKind.ZERO:
            self.target.write_zeroes(offset + run.offset, run.length)
        else:
            self.target.write(offset + run.offset, wanted[run.offset : run.end])


def write_differences(
    repository: Repository,
    source: RepositoryDisk,
    target: BlockDisk,
    *,
    left_out: Ranges = NOTHING,
    on_progress: Callable[[int, Written], None],
    cancellation: Cancellation,
) -> Written:
    """Make the first ``source.size`` bytes of ``target`` equal to ``source``, and durable.

    Args:
        repository: where ``source`` lies.
        source: the disk as it shall be.
        target: at least as large.
        left_out: where the source has zeroes only because nobody needed what was there: no difference.
        on_progress: called with the bytes handled so far, and what that took.
        cancellation: looked at before each piece.

    Raises:
        Interrupted: it was cancelled; the target is partly as it was and partly as it shall be.
        RepositoryDamaged, StorageError, SourceLost, NoSpace: likewise.
    """
    total = Written(0, 0)
    with ExitStack() as stack:
        workers = [_open_comparer(repository, source, target, left_out, stack) for _ in range(WORKERS)]
        pieces = _pieces(source, target, repository.config.chunk_size)
        for piece, done in stack.enter_context(closing(ordered_map(_Comparer.mend, pieces, workers))):
            cancellation.check()
            total += done
            on_progress(piece.end, total)
        for worker in workers:
            worker.target.flush()
    on_progress(source.size, total)
    return total


def _open_comparer(
    repository: Repository, source: RepositoryDisk, target: BlockDisk, left_out: Ranges, stack: ExitStack
) -> _Comparer:
    chunk_size = repository.config.chunk_size
    buffers = [memoryview(mmap.mmap(-1, max(_STRIPE, chunk_size))) for _ in range(2)]
    return _Comparer(
        stack.enter_context(closing(source.clone())),
        stack.enter_context(closing(target.clone())),
        repository.keyring.chunk_id,
        chunk_size,
        left_out,
        *buffers,
    )


def _pieces(source: RepositoryDisk, target: BlockDisk, chunk_size: int) -> Iterator[Extent]:
    """Yield stripes of whole chunks; not those that are known to be zero on both sides."""
    for extent in source.extents(0, source.size):
        if extent.kind is ExtentKind.DATA:
            yield from _stripes(extent.offset, extent.end, chunk_size)
            continue
        position = extent.offset
        for there in target.extents(extent.offset, extent.length):
            if there.kind is ExtentKind.DATA:
                start = max(position, there.offset - there.offset % chunk_size)
                position = min(there.end + -there.end % chunk_size, extent.end)
                yield from _stripes(start, position, chunk_size)


def _stripes(start: int, end: int, chunk_size: int) -> Iterator[Extent]:
    stripe = max(_STRIPE, chunk_size)
    while start < end:
        length = min(stripe - start % stripe, end - start)
        yield Extent(start, length, ExtentKind.DATA)
        start += length
