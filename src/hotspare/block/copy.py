"""Copying one disk onto another: only what is data is read and written."""

import mmap
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

from hotspare.block.device import BlockReader, BlockWriter
from hotspare.block.extent import Extent, ExtentKind
from hotspare.block.pipeline import WORKERS, ordered_map
from hotspare.cancellation import Cancellation
from hotspare.units import GIB, MIB

STRIPE = 4 * MIB
"""Bytes that one worker reads and writes at a time."""
_ZERO_STEP = 1 * GIB
"""Zeroes are cheap, but a progress bar should still move."""


@dataclass(slots=True)
class _Copier:
    source: BlockReader
    target: BlockWriter
    buffer: memoryview


def copy_disk(
    source: BlockReader,
    target: BlockWriter,
    *,
    target_is_blank: bool,
    on_progress: Callable[[int, int], None],
    cancellation: Cancellation,
) -> None:
    """Copy all of ``source`` onto ``target`` and make it durable.

    Args:
        source: the disk to read.
        target: at least as large.
        target_is_blank: it reads as zeroes, so that zeroes need not be written.
        on_progress: called with bytes handled so far and bytes read so far.
        cancellation: looked at before each piece.

    Raises:
        Interrupted: the copy was cancelled; the target is incomplete.
    """
    read = 0

    def note(piece: Extent) -> None:
        nonlocal read
        cancellation.check()
        read += piece.length if piece.kind is ExtentKind.DATA else 0
        on_progress(piece.end, read)

    extents = source.extents(0, source.size)
    if target_is_blank:
        extents = (extent for extent in extents if extent.kind is ExtentKind.DATA)
    copy_extents(source, target, extents, after_each=note)
    on_progress(source.size, read)


def copy_extents(
    source: BlockReader,
    target: BlockWriter,
    extents: Iterable[Extent],
    *,
    after_each: Callable[[Extent], None],
) -> None:
    """Copy ranges of ``source`` onto the same places of ``target``, and make them durable.

    Args:
        source: the disk to read.
        target: at least as large.
        extents: what to copy, in rising order; what is ``ZERO`` is not read but written as zeroes.
        after_each: called after each piece, in order; raises to stop.
    """
    with ExitStack() as stack:
        copiers = [_open_copier(source, target, stack) for _ in range(WORKERS)]
        for piece in stack.enter_context(closing(ordered_map(_copy_piece, _pieces(extents), copiers))):
            after_each(piece)
        for copier in copiers:
            copier.target.flush()


def _open_copier(source: BlockReader, target: BlockWriter, stack: ExitStack) -> _Copier:
    reader = stack.enter_context(closing(source.clone()))
    writer = stack.enter_context(closing(target.clone()))
    # A private map begins at a page, as writes past the page cache need it.
    buffer = mmap.mmap(-1, STRIPE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return _Copier(reader, writer, memoryview(buffer))


def _pieces(extents: Iterable[Extent]) -> Iterator[Extent]:
    for extent in extents:
        yield from _cut(extent, _ZERO_STEP if extent.kind is ExtentKind.ZERO else STRIPE)


def _cut(extent: Extent, step: int) -> Iterator[Extent]:
    """Cut at multiples of ``step`` from the start of the disk, so that pieces hold whole chunks."""
    offset = extent.offset
    while offset < extent.end:
        length = min(step - offset % step, extent.end - offset)
        yield Extent(offset, length, extent.kind)
        offset += length


def _copy_piece(copier: _Copier, piece: Extent) -> Extent:
    if piece.kind is ExtentKind.ZERO:
        copier.target.write_zeroes(piece.offset, piece.length)
    else:
        view = copier.buffer[: piece.length]
        copier.source.read_into(piece.offset, view)
        copier.target.write(piece.offset, view)
    return piece
