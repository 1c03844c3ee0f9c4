"""Holds a store to a bandwidth, one limit for what is sent and one for what is received.

A token bucket that may go into debt: an object is paid for as a whole, and whoever comes next waits until
the debt is worked off. So the limit holds on the average over objects, not within one.
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from typing_extensions import Buffer

from hotspare.storage.backend import Backend, ObjectLocks
from hotspare.storage.wrappers.forwarding import ForwardingBackend, ForwardingLocks

_BURST = 0.5
"""Seconds' worth of bytes that an idle bucket saves up."""


class TokenBucket:
    """Lets bytes pass at a rate, for all threads together."""

    def __init__(
        self,
        rate: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Make a full bucket; ``rate`` is in bytes per second and more than nothing."""
        if rate <= 0:
            raise ValueError(rate)
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._tokens = rate * _BURST
        self._filled = clock()
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Take ``count`` bytes, and wait until they are paid for; first come, first served."""
        if (wait := self.charge(count)) > 0:
            self._sleep(wait)

    def charge(self, count: int) -> float:
        """Take ``count`` bytes, and give the seconds until they are paid for, to be waited by the caller."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._tokens + (now - self._filled) * self._rate, self._rate * _BURST) - count
            self._filled = now
            return max(0.0, -self._tokens / self._rate)


class ThrottledBackend(ForwardingBackend):
    """Waits before it sends and after it received; buckets may be shared by several stores."""

    def __init__(
        self, inner: Backend, *, up: TokenBucket | None = None, down: TokenBucket | None = None
    ) -> None:
        super().__init__(inner)
        self._up = up
        self._down = down

    def wrap_locks(self, locks: ObjectLocks) -> ObjectLocks:
        """See ``ForwardingBackend.wrap_locks``."""
        return _ThrottledLocks(locks, self._sending, self._received)

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        """See ``Backend.put``."""
        self._sending(parts)
        super().put(name, parts)

    def get(self, name: str) -> bytes:
        """See ``Backend.get``."""
        return self._received(super().get(name))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """See ``Backend.get_range``."""
        return self._received(super().get_range(name, offset, length))

    def _sending(self, parts: Sequence[Buffer]) -> None:
        if self._up:
            self._up.take(sum(memoryview(part).nbytes for part in parts))

    def _received(self, data: bytes) -> bytes:
        if self._down:
            self._down.take(len(data))
        return data


class _ThrottledLocks(ForwardingLocks):
    def __init__(
        self,
        inner: ObjectLocks,
        sending: Callable[[Sequence[Buffer]], None],
        received: Callable[[bytes], bytes],
    ) -> None:
        super().__init__(inner)
        self._sending = sending
        self._received = received

    def put_locked(self, name: str, parts: Sequence[Buffer], until: datetime) -> str:
        self._sending(parts)
        return super().put_locked(name, parts, until)

    def get_version(self, name: str, version: str) -> bytes:
        return self._received(super().get_version(name, version))
