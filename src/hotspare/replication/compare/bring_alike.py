"""Making a disk on another host like one here: both sides hash at the same time, and what differs is sent."""

import mmap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import NamedTuple

from hotspare.block.device import BlockReader, BlockWriter
from hotspare.block.pipeline import WORKERS, ordered_map
from hotspare.cancellation import Cancellation
from hotspare.errors import UsageError
from hotspare.replication.compare.digests import (
    BATCH,
    BLOCK,
    DIGEST_SIZE,
    ZERO_DIGEST,
    RangeHasher,
    read_and_hash,
)
from hotspare.units import GIB

FLUSH_STEP = 1 * GIB
"""Bytes compared between two flushes: what was made alike before one need not be compared again."""


@dataclass(slots=True)
class CompareCounts:
    """Bytes of one disk, so far."""

    compared: int = 0
    differing: int = 0
    sent: int = 0
    """Of those that differ, what had to be sent: the rest is zeroes."""
    durable: int = 0
    """Up to this offset both are alike, and stay so over a crash."""


def bring_alike(
    source: BlockReader,
    target: BlockWriter,
    theirs: RangeHasher,
    *,
    on_progress: Callable[[CompareCounts], None],
    cancellation: Cancellation,
    start: int = 0,
) -> CompareCounts:
    """Write to ``target`` what differs from ``source``, and make it durable.

    Whatever breaks it off, what was sent is alike already and is not sent again by the next call.

    Args:
        source: the disk here, that nobody writes to meanwhile.
        target: the disk there.
        theirs: gives the digests of ``target``.
        on_progress: called after each batch, always with the same object.
        cancellation: looked at before each batch.
        start: up to this offset (``CompareCounts.durable`` of an earlier call) both are known to be alike,
            as the source has not changed since.

    Returns:
        What it took.

    Raises:
        UsageError: the sizes differ.
        Interrupted: it was cancelled.
        SourceLost, NoSpace, PermissionRefused: a side failed.
    """
    if not source.size == target.size == theirs.size:
        raise UsageError(
            f"Disks of {source.size} and {theirs.size} bytes cannot be compared", meaning="Nothing was sent"
        )
    counts = CompareCounts(durable=start)
    flushed = start
    with ExitStack() as stack:
        workers = [_open_worker(source, target, theirs, stack) for _ in range(WORKERS)]
        batches = _batches(start, source.size)
        for done in stack.enter_context(closing(ordered_map(_Worker.compare, batches, workers))):
            cancellation.check()
            counts.compared += done.batch.length
            counts.differing += done.differing
            counts.sent += done.sent
            if done.batch.end - flushed >= FLUSH_STEP:
                # All before this batch was written; batches after it may be under way, which does no harm.
                target.flush()
                flushed = counts.durable = done.batch.end
            on_progress(counts)
        target.flush()
    counts.durable = source.size
    on_progress(counts)
    return counts


class _Batch(NamedTuple):
    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


class _Done(NamedTuple):
    batch: _Batch
    differing: int
    sent: int


def _batches(start: int, size: int) -> Iterator[_Batch]:
    for offset in range(start // BLOCK * BLOCK, size, BATCH):
        yield _Batch(offset, min(BATCH, size - offset))


@dataclass(slots=True)
class _Worker:
    source: BlockReader
    target: BlockWriter
    theirs: RangeHasher
    buffer: memoryview

    def compare(self, batch: _Batch) -> _Done:
        """Make one batch alike. What is hashed here is what is sent: nothing is read twice."""
        data = self.buffer[: batch.length]
        # While the other side hashes for one worker, this side reads and hashes for the others.
        there = self.theirs.digests(batch.offset, batch.length)
        here = read_and_hash(self.source, batch.offset, data)
        differing = sent = 0
        for start, end, zero in differing_runs(here, there, batch.length):
            differing += end - start
            if zero:
                self.target.write_zeroes(batch.offset + start, end - start)
            else:
                self.target.write(batch.offset + start, data[start:end])
                sent += end - start
        return _Done(batch, differing, sent)


def _open_worker(source: BlockReader, target: BlockWriter, theirs: RangeHasher, stack: ExitStack) -> _Worker:
    # A private map begins at a page, as writes past the page cache need it.
    buffer = mmap.mmap(-1, BATCH, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return _Worker(
        stack.enter_context(closing(source.clone())),
        stack.enter_context(closing(target.clone())),
        stack.enter_context(closing(theirs.clone())),
        memoryview(buffer),
    )


def differing_runs(here: bytes, there: bytes, length: int) -> Iterator[tuple[int, int, bool]]:
    """Yield the runs of blocks that differ: first byte, the one after the last, whether all is zero here.

    Args:
        here: digests of the blocks as they shall be.
        there: digests of the blocks as they are.
        length: bytes that they are of.
    """
    start = end = 0
    run_zero = False
    for number in range(0, len(here), DIGEST_SIZE):
        digest = here[number : number + DIGEST_SIZE]
        if digest == there[number : number + DIGEST_SIZE]:
            continue
        at = number // DIGEST_SIZE * BLOCK
        zero = digest == ZERO_DIGEST
        if end != at or zero != run_zero:
            if start < end:
                yield start, end, run_zero
            start, run_zero = at, zero
        end = min(at + BLOCK, length)
    if start < end:
        yield start, end, run_zero
