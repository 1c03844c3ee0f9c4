"""Runs of block status: cutting, pairing and merging them."""

from collections.abc import Iterable, Iterator

from hotspare.block.extent import Extent
from hotspare.units import GIB

Run = tuple[int, int]
"""Bytes, and the flags of a meta context that hold for all of them."""

STATUS_STEP = 2 * GIB
"""Most that one question about block status covers; lengths have 32 bits on the wire."""


def next_step(position: int, end: int) -> int:
    """Give the length of the next question; questions stop at multiples of the step, so they stay aligned."""
    return min(end, (position // STATUS_STEP + 1) * STATUS_STEP) - position


def trimmed(runs: Iterable[Run], skip: int, length: int) -> list[Run]:
    """Leave out the first ``skip`` bytes and everything after the next ``length``."""
    kept = []
    position = -skip
    for run, flags in runs:
        start, end = max(position, 0), min(position + run, length)
        if start < end:
            kept.append((end - start, flags))
        position += run
    return kept


def paired(first: Iterable[Run], second: Iterable[Run]) -> Iterator[tuple[int, int, int]]:
    """Yield (length, flags of first, flags of second) as far as both reach."""
    others = iter(second)
    other, other_flags = 0, 0
    for run, flags in first:
        left = run
        while left:
            if not other:
                following = next(others, None)
                if following is None:
                    return
                other, other_flags = following
            length = min(left, other)
            yield length, flags, other_flags
            left -= length
            other -= length


def merged(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours of one kind; gaps stay."""
    last: Extent | None = None
    for extent in extents:
        if last is not None and last.end == extent.offset and last.kind is extent.kind:
            last = Extent(last.offset, last.length + extent.length, last.kind)
            continue
        if last is not None:
            yield last
        last = extent
    if last is not None:
        yield last
