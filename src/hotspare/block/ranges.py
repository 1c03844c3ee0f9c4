"""Sets of bytes, as ranges: what a file system has free, what a backup leaves out."""

from collections.abc import Iterable, Iterator
from typing import Self

import numpy as np
from numpy.typing import NDArray

Bounds = NDArray[np.int64]


class Ranges:
    """An immutable set of byte offsets, kept as ascending ranges that neither overlap nor touch.

    A range takes 16 bytes, and all set operations are vectorised: a set of millions of ranges is combined
    with another in well under a second.
    """

    __slots__ = ("bounds",)

    def __init__(self, bounds: Bounds) -> None:
        """Take over an array of shape (n, 2): a row for each range, its first byte and the one after it.

        Rows must be ascending, neither empty nor overlapping nor touching. ``of`` accepts anything else.
        """
        self.bounds = bounds

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int]] | Bounds) -> Self:
        """Make a set of (start, end) pairs in any order, which may be empty, overlap and touch."""
        rows = ranges if isinstance(ranges, np.ndarray) else np.array(list(ranges), dtype=np.int64)
        return cls(_levels([rows.reshape(-1, 2)], 1))

    @classmethod
    def whole(cls, size: int) -> Self:
        """Give all bytes of something of that size."""
        return cls.of([(0, size)])

    @classmethod
    def of_bits(cls, bits: NDArray[np.bool_] | NDArray[np.uint8], unit: int, start: int = 0) -> Self:
        """Make a set of an array with an element for each ``unit`` bytes from ``start`` on; 0 is outside."""
        padded = np.zeros(len(bits) + 2, dtype=np.int8)
        padded[1:-1] = bits != 0
        edges = np.flatnonzero(np.diff(padded)).astype(np.int64)
        return cls(edges.reshape(-1, 2) * unit + start)

    @classmethod
    def union(cls, sets: Iterable["Ranges"]) -> Self:
        """Join many sets at once."""
        return cls(_levels([one.bounds for one in sets], 1))

    @property
    def total(self) -> int:
        """How many bytes there are."""
        return int((self.bounds[:, 1] - self.bounds[:, 0]).sum())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for start, end in self.bounds:
            yield int(start), int(end)

    def __len__(self) -> int:
        """Count the ranges, not the bytes."""
        return len(self.bounds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and np.array_equal(self.bounds, other.bounds)

    def __hash__(self) -> int:
        return hash(self.bounds.tobytes())

    def __repr__(self) -> str:
        shown = ", ".join(f"{start}-{end}" for start, end in list(self)[:4])
        return f"Ranges({shown}{', …' if len(self) > 4 else ''})"

    def __or__(self, other: "Ranges") -> Self:
        return type(self)(_levels([self.bounds, other.bounds], 1))

    def __and__(self, other: "Ranges") -> Self:
        return type(self)(_levels([self.bounds, other.bounds], 2))

    def __sub__(self, other: "Ranges") -> Self:
        if not len(self) or not len(other):
            return type(self)(self.bounds)
        low = min(int(self.bounds[0, 0]), int(other.bounds[0, 0]))
        high = max(int(self.bounds[-1, 1]), int(other.bounds[-1, 1]))
        edges = np.concatenate(([low], other.bounds.reshape(-1), [high])).reshape(-1, 2)
        gaps = edges[edges[:, 0] < edges[:, 1]]
        return type(self)(_levels([self.bounds, gaps], 2))

    def complement(self, size: int) -> Self:
        """Give the bytes of something of that size that are not in here."""
        return type(self).whole(size) - self

    def within(self, start: int, end: int) -> Self:
        """Give the part from ``start`` up to, not including, ``end``; costs what that part is large."""
        first = int(np.searchsorted(self.bounds[:, 1], start, side="right"))
        last = int(np.searchsorted(self.bounds[:, 0], end, side="left"))
        if start >= end or first >= last:
            return type(self)(np.empty((0, 2), dtype=np.int64))
        return type(self)(np.clip(self.bounds[first:last], start, end))

    def moved(self, by: int) -> Self:
        """Add ``by`` to each offset."""
        return type(self)(self.bounds + by)

    def aligned_inside(self, unit: int) -> Self:
        """Keep only whole units: starts rounded up, ends rounded down."""
        starts = -(-self.bounds[:, 0] // unit) * unit
        ends = self.bounds[:, 1] // unit * unit
        keep = starts < ends
        return type(self)(np.column_stack((starts[keep], ends[keep])))

    def largest(self, count: int) -> Self:
        """Keep at most so many ranges, the longest."""
        if len(self) <= count:
            return type(self)(self.bounds)
        lengths = self.bounds[:, 1] - self.bounds[:, 0]
        chosen = np.sort(np.argsort(lengths, kind="stable")[len(lengths) - count :])
        return type(self)(self.bounds[chosen])

    def covers(self, start: int, end: int) -> bool:
        """Tell whether all bytes from ``start`` up to ``end`` are in here."""
        at = int(np.searchsorted(self.bounds[:, 0], start, side="right")) - 1
        return start >= end or (at >= 0 and bool(self.bounds[at, 1] >= end))


NOTHING = Ranges(np.empty((0, 2), dtype=np.int64))
"""The empty set."""


def _levels(groups: list[Bounds], depth: int) -> Bounds:
    """Give the ranges that lie in at least ``depth`` of all ranges of all groups, joined where they touch."""
    rows = np.concatenate(groups) if groups else np.empty((0, 2), dtype=np.int64)
    rows = rows[rows[:, 0] < rows[:, 1]]
    if not len(rows):
        return np.empty((0, 2), dtype=np.int64)
    places = np.concatenate((rows[:, 0], rows[:, 1]))
    steps = np.concatenate((np.ones(len(rows), dtype=np.int64), -np.ones(len(rows), dtype=np.int64)))
    order = np.argsort(places, kind="stable")
    places, steps = places[order], steps[order]
    # Only the level after the last edge at a place counts: there ranges that touch are joined.
    last = np.append(places[1:] != places[:-1], True)
    places, inside = places[last], np.cumsum(steps)[last] >= depth
    changes = np.flatnonzero(np.diff(np.concatenate(([False], inside)).astype(np.int8)))
    bounds: Bounds = places[changes].reshape(-1, 2)
    return bounds


def blank(ranges: Ranges, offset: int, buffer: memoryview) -> None:
    """Put zeroes over those of the bytes from ``offset`` that are in the set."""
    bytes_of_it = np.frombuffer(buffer, dtype=np.uint8)
    for start, end in ranges.within(offset, offset + len(buffer)):
        bytes_of_it[start - offset : end - offset] = 0
