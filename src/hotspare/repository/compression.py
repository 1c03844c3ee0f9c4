"""How hard to compress: as hard as costs no time.

Level 1 is where a run starts. When the source or the store is what holds the run up, processors stand
idle, and a higher level is free; when they do not, it is not.
"""

import os
import threading
import time
from collections.abc import Callable

from hotspare.block.pipeline import WORKERS

STEPS = ((1, 1.0), (2, 1.2), (3, 1.5), (5, 3.4), (7, 5.5))
"""Levels of zstd, and the time that each takes as a multiple of level 1 (measured on a Debian disk)."""
WINDOW = 1.0
"""Seconds between two decisions."""
_MARGIN = 2.0
"""Idle time must be this many times what a step up would take."""
_TIGHT = 0.1
"""Step down when less than this share of the processors' time is left."""
_SLOWER = 0.95
"""A step after which the run moves less than this share of the bytes per second is taken back."""
_HOLD = 20
"""Windows for which a step that was taken back is not tried again."""


class AdaptiveLevel:
    """The level to compress with, from what the workers of a run tell of their work. Thread-safe.

    Args:
        workers: how many threads read and compress.
        processors: how many of them can truly run at once.
        clock: seconds that pass.
        cpu_time: seconds of processor time that this process has used.
    """

    def __init__(
        self,
        workers: int = WORKERS,
        processors: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        cpu_time: Callable[[], float] = time.process_time,
    ) -> None:
        self._workers = workers
        self._processors = processors or len(os.sched_getaffinity(0))
        self._clock = clock
        self._cpu_time = cpu_time
        self._lock = threading.Lock()
        self._step = 0
        self._rate_before = 0.0
        self._hold = 0
        self._begin(clock())

    @property
    def level(self) -> int:
        """The zstd level for the next chunk."""
        return STEPS[self._step][0]

    def note(self, size: int, reading: float, busy: float) -> None:
        """Take in that a worker has moved ``size`` bytes.

        Args:
            size: bytes.
            reading: seconds that it waited for the source.
            busy: seconds that it hashed and compressed. Waiting for a processor is part of them: so a busy
                host counts as no idle time.
        """
        with self._lock:
            self._moved += size
            self._reading += reading
            self._busy += busy
            now = self._clock()
            if now - self._began >= WINDOW:
                self._decide(now - self._began)
                self._begin(now)

    def spare(self) -> None:
        """Go back to the lowest level: what the processors have left belongs to somebody else."""
        with self._lock:
            self._step = 0
            self._hold = _HOLD
            self._begin(self._clock())

    def _begin(self, now: float) -> None:
        self._began = now
        self._cpu_began = self._cpu_time()
        self._moved = 0
        self._reading = 0.0
        self._busy = 0.0

    def _decide(self, window: float) -> None:
        capacity = window * self._processors
        idle = capacity - max(self._busy, self._cpu_time() - self._cpu_began)
        rate = self._moved / window
        self._hold = max(0, self._hold - 1)
        slower = rate < _SLOWER * self._rate_before
        self._rate_before = 0.0
        if self._step and (idle < _TIGHT * capacity or slower):
            self._step -= 1
            self._hold = _HOLD
        elif not self._hold and self._step + 1 < len(STEPS) and self._busy:
            wanted = _MARGIN * self._busy * (STEPS[self._step + 1][1] / STEPS[self._step][1] - 1)
            if idle <= wanted:
                return
            self._step += 1
            # Workers with nothing to do wait for the store: what they do more of is free. While they wait for
            # the source it is free only if the source would not have been asked sooner: that has to be tried.
            if window * self._workers - self._reading - self._busy <= wanted:
                self._rate_before = rate
