"""For how long a writer waits for its store."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StoreWaits:
    """Seconds, so far. Each number is written by whoever waits; any thread may read both."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.appending = 0.0
        """Of the one thread that appends: until packs, or an index segment, were stored."""
        self.fetching = 0.0
        """Of all threads that prepare, added up: until what chunks are compared with was fetched."""
        self._clock = clock
        self._lock = threading.Lock()

    @contextmanager
    def of_appending(self) -> Iterator[None]:
        """Count the block's time; for the thread that appends alone."""
        began = self._clock()
        try:
            yield
        finally:
            self.appending += self._clock() - began

    @contextmanager
    def of_fetching(self) -> Iterator[None]:
        """Count the block's time, in whatever thread."""
        began = self._clock()
        try:
            yield
        finally:
            waited = self._clock() - began
            with self._lock:
                self.fetching += waited
