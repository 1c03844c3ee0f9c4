"""Open stretches as plain numbers, quick to ask: what admission decides by, thousands of times."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Self

from hotspare.policy.interval import Interval


@dataclass(frozen=True, slots=True)
class Openings:
    """Stretches from a start until just before an end, in seconds since the epoch, in order and apart."""

    starts: tuple[float, ...]
    ends: tuple[float, ...]

    @classmethod
    def of(cls, intervals: Iterable[Interval]) -> Self:
        """Take them from intervals that are in order and apart."""
        pairs = [(one.start.timestamp(), one.end.timestamp()) for one in intervals]
        return cls(tuple(start for start, _ in pairs), tuple(end for _, end in pairs))

    def at(self, now: float) -> tuple[float, float] | None:
        """Give the stretch that a time is in; None when it is in none."""
        index = bisect_right(self.starts, now) - 1
        return (self.starts[index], self.ends[index]) if index >= 0 and now < self.ends[index] else None

    def next_start(self, now: float) -> float | None:
        """Give when the next stretch after ``now`` begins; None when there is none."""
        index = bisect_right(self.starts, now)
        return self.starts[index] if index < len(self.starts) else None


ALWAYS = Openings((-inf,), (inf,))
