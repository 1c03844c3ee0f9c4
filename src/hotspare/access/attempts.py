"""Holding off those who guess: after some failures each next attempt has to wait longer."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hotspare.errors import TooManyAttempts

_WAIT_MAX = 900.0
"""Seconds."""
_FORGIVEN = 2 * _WAIT_MAX
"""After so many seconds without a failure, everything is."""
_KEYS_MAX = 10_000


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = 0.0


@dataclass(slots=True)
class Attempts:
    """Counts failures by key: a user's name, a client's address."""

    free: int = 5
    """Failures that cost nothing."""
    clock: Callable[[], float] = time.monotonic
    _failures: dict[str, _Failures] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, *keys: str) -> None:
        """Count an attempt as failed until ``succeeded`` says otherwise, so that many at once count as many.

        Raises:
            TooManyAttempts: one of the keys has to wait; nothing was counted.
        """
        now = self.clock()
        with self._lock:
            wait = max(self._wait(key, now) for key in keys)
            if wait > 0:
                raise TooManyAttempts(
                    "There were too many failed logins",
                    meaning="Nothing was looked at",
                    hint=f"Try again in {int(wait) + 1} seconds",
                    seconds=int(wait) + 1,
                )
            self._make_room(now)
            for key in keys:
                failures = self._failures.setdefault(key, _Failures())
                failures.count += 1
                failures.last = now

    def succeeded(self, *keys: str) -> None:
        """Forgive what there was."""
        with self._lock:
            for key in keys:
                self._failures.pop(key, None)

    def _wait(self, key: str, now: float) -> float:
        failures = self._failures.get(key)
        if failures is not None and failures.last + _FORGIVEN < now:
            del self._failures[key]
            return 0.0
        if failures is None or failures.count < self.free:
            return 0.0
        return failures.last + min(_WAIT_MAX, 2.0 ** (failures.count - self.free)) - now

    def _make_room(self, now: float) -> None:
        """Forget what is long ago; and when somebody tries endless names, the older half of what is not."""
        if len(self._failures) < _KEYS_MAX:
            return
        by_age = sorted(self._failures, key=lambda key: self._failures[key].last)
        recent = [key for key in by_age[_KEYS_MAX // 2 :] if self._failures[key].last + _FORGIVEN > now]
        self._failures = {key: self._failures[key] for key in recent}
