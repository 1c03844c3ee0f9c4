"""Moving one disk from a snapshot into the repository.

Each worker reads a stripe of chunks, hashes them, and compresses those that are new; their results are
packed in the order of the disk, so that what belongs together lies together.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from hotspare.backup.paced_reading import ReadInto, read_freely
from hotspare.backup.plan import ChunkRun, TransferPlan, stripes
from hotspare.backup.stages import StageClock
from hotspare.block.device import BlockReader
from hotspare.block.pipeline import WORKERS, ordered_map
from hotspare.block.ranges import NOTHING, Ranges, blank
from hotspare.block.zeroes import is_zero
from hotspare.errors import RepositoryDamaged, StorageError
from hotspare.repository.disk_map import DiskMap, DiskMapBuilder, chunk_count
from hotspare.repository.format import HOLE
from hotspare.repository.writer import Prepared, RepositoryWriter
from hotspare.units import MIB

STRIPE = 4 * MIB
CHECK_INTERVAL = 0.5
"""Seconds between two looks at the snapshot's health."""


@dataclass(slots=True)
class TransferCounts:
    """Bytes of one disk's transfer, so far."""

    processed: int = 0
    read: int = 0
    new: int = 0
    stored: int = 0


class _Stripe(NamedTuple):
    """A run of chunks to be prepared, and the ids of those that lay there before."""

    run: ChunkRun
    parents: list[bytes]


class _Piece(NamedTuple):
    """One stripe's outcome: a chunk that is None was read and is zero."""

    run: ChunkRun
    chunks: list[Prepared | None]
    reading: float = 0.0
    """Seconds that it took."""
    preparing: float = 0.0
    """The same of all that came after."""


@dataclass(slots=True)
class _Preparer:
    """One worker: a connection to the disk and a buffer, both its own."""

    reader: BlockReader
    writer: RepositoryWriter
    chunk_size: int
    read_into: ReadInto
    unused: Ranges
    buffer: memoryview = field(init=False)

    def __post_init__(self) -> None:
        self.buffer = memoryview(bytearray(max(STRIPE, self.chunk_size)))

    def prepare(self, stripe: _Stripe) -> _Piece:
        run = stripe.run
        if run.zero:
            return _Piece(run, [])
        start = run.first * self.chunk_size
        length = min(run.chunks * self.chunk_size, self.reader.size - start)
        data = self.buffer[:length]
        began = time.monotonic()
        waited = self.read_into(self.reader, start, data)
        blank(self.unused, start, data)
        was_read = time.monotonic()
        pieces = (data[at : at + self.chunk_size] for at in range(0, length, self.chunk_size))
        filled = [(at, piece, stripe.parents[at]) for at, piece in enumerate(pieces) if not is_zero(piece)]
        chunks: list[Prepared | None] = [None] * run.chunks
        prepared = self.writer.prepare_run(
            [piece for _, piece, _ in filled], [parent_id for _, _, parent_id in filled]
        )
        for (at, _, _), one in zip(filled, prepared, strict=True):
            chunks[at] = one
        reading, preparing = was_read - began, time.monotonic() - was_read
        if waited:
            self.writer.compression.spare()
        else:
            self.writer.compression.note(length, reading, preparing)
        return _Piece(run, chunks, reading, preparing)


def transfer_disk(
    reader: BlockReader,
    writer: RepositoryWriter,
    plan: TransferPlan,
    parent: DiskMap | None,
    chunk_size: int,
    check: Callable[[], None],
    on_progress: Callable[[TransferCounts], None],
    alike: DiskMap | None = None,
    read_into: ReadInto = read_freely,
    unused: Ranges = NOTHING,
    stages: StageClock | None = None,
) -> tuple[bytes, TransferCounts]:
    """Store what the plan names and give the root of the disk's map, and what it took.

    Args:
        reader: the whole frozen disk.
        writer: where chunks go.
        plan: what to read.
        parent: the map that everything else is taken from; None makes the rest a hole.
        chunk_size: bytes.
        check: called again and again; raises to stop the transfer.
        on_progress: called after each stripe, always with the same object.
        alike: without a parent, the map of an earlier state of the disk: chunks may be stored as deltas upon
            what lay in their place there. Nothing is taken from it, and damage in it does no harm.
        read_into: how the disk is read; called by several threads.
        unused: is stored as zeroes, whatever the disk has there.
        stages: told what the time goes into; of the same writer. None where nobody wants to know.

    Raises:
        SourceLost: the disk went away.
        NoSpace, StorageError: the repository could not take the data.
    """
    counts = TransferCounts()
    stages = stages or StageClock(writer.waits)
    builder = DiskMapBuilder(writer.store_page, chunk_count(reader.size, chunk_size), parent)
    checked = time.monotonic()
    with ExitStack() as stack:
        workers = [
            _Preparer(stack.enter_context(closing(reader.clone())), writer, chunk_size, read_into, unused)
            for _ in range(WORKERS)
        ]
        runs = (
            _Stripe(run, _parents(run, parent, alike))
            for run in stripes(plan, reader.size, chunk_size, STRIPE)
        )
        pieces = stack.enter_context(closing(ordered_map(_Preparer.prepare, runs, workers)))
        for piece in stages.timed(pieces):
            stages.note(piece.reading, piece.preparing)
            if time.monotonic() - checked > CHECK_INTERVAL:
                check()
                checked = time.monotonic()
            _take_in(piece, builder, writer, counts)
            end = min((piece.run.first + piece.run.chunks) * chunk_size, reader.size)
            counts.processed += end - piece.run.first * chunk_size
            counts.read += 0 if piece.run.zero else end - piece.run.first * chunk_size
            on_progress(counts)
    check()
    return builder.finish(), counts


def _parents(run: ChunkRun, parent: DiskMap | None, alike: DiskMap | None) -> list[bytes]:
    """Give the ids of the chunks that lay in a run's place before; ``HOLE`` for what is not known."""
    if run.zero:
        return []
    chunks = range(run.first, run.first + run.chunks)
    if parent is not None:
        return [parent[chunk] for chunk in chunks]
    if alike is not None:
        with suppress(RepositoryDamaged, StorageError):
            return [alike[chunk] for chunk in chunks]
    return [HOLE] * run.chunks


def _take_in(
    piece: _Piece, builder: DiskMapBuilder, writer: RepositoryWriter, counts: TransferCounts
) -> None:
    if piece.run.zero:
        builder.set_holes(piece.run.first, piece.run.chunks)
    for number, prepared in enumerate(piece.chunks, piece.run.first):
        if prepared is None:
            builder.set_holes(number, 1)
            continue
        builder.set(number, prepared.id)
        stored = writer.append(prepared)
        if stored:
            counts.new += prepared.size
            counts.stored += stored
