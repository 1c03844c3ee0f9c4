"""Where the time of a transfer goes: which of reading, processing and storing do the others wait for?

The thread that packs tells the time. At each moment it seals a chunk, which is processing; or it waits for
the store; or it waits for the workers, which read, process, or fetch from the store what they compare with:
that time is divided among the three as the workers' own is. So the parts add up to the time that the transfer
took, and whoever has the largest holds it up. It costs a few looks at the clock for each stripe of 4 MiB.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from hotspare.repository.waits import StoreWaits

Result = TypeVar("Result")


class Stages(NamedTuple):
    """Seconds of a transfer, so far, by what held it up."""

    reading: float
    """Waiting to spare the guest, or for a limit of the user's, is part of it."""
    processing: float
    storing: float


class StageClock:
    """Measures the transfer of a run, one disk after the other.

    Args:
        waits: those of the run's writer.
        clock: seconds that pass.
    """

    def __init__(self, waits: StoreWaits, clock: Callable[[], float] = time.monotonic) -> None:
        self._waits = waits
        self._clock = clock
        self._waited = 0.0
        """For workers."""
        self._sealed = 0.0
        self._read = 0.0
        """By all workers, added up."""
        self._prepared = 0.0
        """By all workers, added up, with what they fetched."""

    def timed(self, results: Iterable[Result]) -> Iterator[Result]:
        """Yield what the workers give, and take the time of waiting for it, and of what is done with it."""
        stored = self._waits.appending
        asked = self._clock()
        for result in results:
            came = self._clock()
            self._waited += came - asked
            yield result
            asked = self._clock()
            stored, before = self._waits.appending, stored
            self._sealed += asked - came - (stored - before)
        self._waited += self._clock() - asked

    def note(self, reading: float, preparing: float) -> None:
        """Take in for how many seconds a worker read, and then prepared, what it gives."""
        self._read += reading
        self._prepared += preparing

    @property
    def stages(self) -> Stages:
        """What is known so far; what the writer waited for after the last disk is storing too."""
        fetched = min(self._waits.fetching, self._prepared)
        busy = self._read + self._prepared
        share = self._waited / busy if busy else 0.0
        return Stages(
            reading=self._read * share if busy else self._waited,
            processing=self._sealed + (self._prepared - fetched) * share,
            storing=self._waits.appending + fetched * share,
        )
