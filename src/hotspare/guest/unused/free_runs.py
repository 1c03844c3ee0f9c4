"""The free units of a file system (clusters, blocks), collected in order from its allocation map."""

import numpy as np
from numpy.typing import NDArray

from hotspare.block.ranges import NOTHING, Ranges
from hotspare.guest.unused.volume_bytes import Octets

_RUNS_MAX = 2_000_000
"""A map that is a chequerboard would take more memory than it is worth: then the shortest runs are kept."""

Pairs = NDArray[np.int64]


class FreeRuns:
    """Runs of free units, as they come by.

    Args:
        unit: bytes.
        start: the byte of the volume at which unit 0 lies.
    """

    def __init__(self, unit: int, start: int = 0) -> None:
        self.unit = unit
        self.units = 0
        """How many have come by."""
        self.free = 0
        """How many of them were free."""
        self._start = start
        self._parts: list[Pairs] = []
        self._held = 0
        self._shortest = 1

    @property
    def incomplete(self) -> bool:
        """Whether short runs were left out, because there were too many."""
        return self._shortest > 1

    def add_bitmap(self, octets: Octets, units: int) -> None:
        """Take the next ``units`` units: a bit for each, the lowest of a byte first, 1 for what is in use.

        ``octets`` may have more bits than that, and must not have fewer.
        """
        whole, rest = divmod(units, 8)
        padded = np.full(-(-units // 64) * 8 + 8, 0xFF, dtype=np.uint8)
        padded[:whole] = octets[:whole]
        if rest:
            padded[whole] = int(octets[whole]) | (0xFF << rest & 0xFF)
        free = 8 * len(padded) - int(np.bitwise_count(padded).sum())
        if self.incomplete:
            # Runs are many: those within a byte are not worth the time to find them.
            self._add(_runs_of(padded == 0) * 8, units, free)
        else:
            self._add(_free_in(padded.view("<u8")), units, free)

    def add_flags(self, free: NDArray[np.bool_]) -> None:
        """Take the next units: an element for each, true for what is free."""
        self._add(_runs_of(free), len(free), int(free.sum()))

    def ranges(self) -> Ranges:
        """Give what was free, in bytes of the volume."""
        if not self._parts:
            return NOTHING
        return Ranges(np.concatenate(self._parts) * self.unit + self._start)

    def _add(self, runs: Pairs, units: int, free: int) -> None:
        self.free += free
        runs = runs + self.units
        self.units += units
        if not len(runs):
            return
        if self._parts and self._parts[-1][-1, 1] == runs[0, 0]:
            self._parts[-1][-1, 1] = runs[0, 1]
            runs = runs[1:]
        if len(runs):
            self._parts.append(runs)
            self._held += len(runs)
        while self._held > _RUNS_MAX:
            self._drop_short()

    def _drop_short(self) -> None:
        self._shortest *= 2
        runs = np.concatenate(self._parts)
        runs = runs[runs[:, 1] - runs[:, 0] >= self._shortest]
        self._parts = [runs] if len(runs) else []
        self._held = len(runs)


def _runs_of(flags: NDArray[np.bool_]) -> Pairs:
    padded = np.zeros(len(flags) + 2, dtype=np.int8)
    padded[1:-1] = flags
    runs: Pairs = np.flatnonzero(np.diff(padded)).reshape(-1, 2)
    return runs


def _free_in(words: NDArray[np.uint64]) -> Pairs:
    """Find the runs of zero bits; the last word is all ones. Work only where something changes."""
    before = np.ones_like(words)
    before[1:] = words[:-1] >> np.uint64(63)
    changes = words ^ (words << np.uint64(1) | before)
    at = np.flatnonzero(changes)
    bits = np.flatnonzero(np.unpackbits(changes[at].view(np.uint8), bitorder="little"))
    edges: Pairs = (at[bits >> 6] * 64 + (bits & 63)).reshape(-1, 2)
    return edges
