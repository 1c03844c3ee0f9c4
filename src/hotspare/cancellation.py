"""Stopping a run at a safe moment.

A signal handler that raises wherever the program happens to be could do so inside the very clean-up
that thaws a guest. So the handlers only set a flag, and the engines look at it between steps.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hotspare.errors import Interrupted

_LOOK_INTERVAL = 0.2
"""Seconds."""


class Cancellation:
    """A flag that is set once; thread-safe."""

    def __init__(self) -> None:
        self._requested = threading.Event()

    def cancel(self) -> None:
        """Ask the run to stop at its next safe moment."""
        self._requested.set()

    @property
    def requested(self) -> bool:
        """Whether somebody asked the run to stop."""
        return self._requested.is_set()

    def wait(self) -> None:
        """Return once somebody asks the run to stop."""
        while not self._requested.wait(_LOOK_INTERVAL):
            pass  # a wait without limit would keep the main thread from running signal handlers

    def pause(self, seconds: float) -> None:
        """Return after so many seconds, or at once when somebody asks the run to stop."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._requested.wait(min(left, _LOOK_INTERVAL)):
            pass

    def check(self) -> None:
        """Raise ``Interrupted`` if somebody asked the run to stop."""
        if self.requested:
            raise Interrupted("Interrupted", meaning="Nothing half-done was left behind")


@contextmanager
def cancelled_by_signals() -> Iterator[Cancellation]:
    """Turn SIGINT, SIGTERM and SIGHUP into a request to stop while the block runs (main thread only)."""
    cancellation = Cancellation()

    def request(_number: int, _frame: FrameType | None) -> None:
        cancellation.cancel()

    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, request) for number in caught}
    try:
        yield cancellation
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
