"""Stretches of time as half-open pairs of moments, in order and apart from each other."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple


class Interval(NamedTuple):
    """From ``start`` until just before ``end``."""

    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        """How long it is."""
        return self.end - self.start


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Give the same times in order, those that touch or overlap as one, without empty ones."""
    found: list[Interval] = []
    for one in sorted(each for each in intervals if each.start < each.end):
        if found and one.start <= found[-1].end:
            found[-1] = Interval(found[-1].start, max(found[-1].end, one.end))
        else:
            found.append(one)
    return found


def without(intervals: Iterable[Interval], removed: Iterable[Interval]) -> list[Interval]:
    """Give what is in ``intervals`` and in none of ``removed``."""
    left = merged(intervals)
    for gone in merged(removed):
        left = [
            piece
            for one in left
            for piece in (
                Interval(one.start, min(one.end, gone.start)),
                Interval(max(one.start, gone.end), one.end),
            )
            if piece.start < piece.end
        ]
    return left


def common(some: Iterable[Interval], others: Iterable[Interval]) -> list[Interval]:
    """Give what is in both."""
    others = merged(others)
    return merged(
        Interval(max(one.start, other.start), min(one.end, other.end))
        for one in merged(some)
        for other in others
    )
