"""How fast a running machine's disks may be read, so that the guest hardly notices: pure logic.

What the platform counts of the guest's own I/O (operations done, time they took) gives its mean latency
between two looks. That is held against a baseline, which is the latency while nothing is read: learnt
before the first read, and again in short pauses. Kind by kind of operation, as a flush takes longer than a
read on any day, and the guest may do more of the one in this second than in the last.

The rate follows the ratio: down quickly when the ratio is beyond the allowed factor, up slowly when it is
well below, and not at all between the two, so that it comes to rest. It never falls below ``FLOOR``: a
backup has to end. What a guest suffers by itself is learnt in the next pause, and not blamed on the backup.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hotspare.platforms.platform import IoTotals
from hotspare.units import KIB, MIB

DEFAULT_FACTOR = 2.0
FLOOR = 8 * MIB
"""Bytes per second that are always read."""
START = 128 * MIB
"""Bytes per second with which reading beside a busy guest begins."""
TICK = 0.2
"""Seconds between two decisions, when the guest does enough to judge by."""
LOOK_MAX = 1.0
"""Most seconds between two looks at the guest: so late is it noticed that a calm guest is so no more."""

_ENOUGH = 40
"""Operations of the guest whose mean says something."""
_BUSY = 40
"""Operations in a second from which on a guest is busy enough to begin slowly."""
_PATIENCE = 1.0
"""Seconds after which it is decided by fewer."""
_RELAXED = 0.8
"""Below this part of the allowed factor, reading becomes faster."""
_LOOK_GROWTH = 1.5
_GAIN = 0.5
"""How much of a deviation is answered in one step, as an exponent."""
_STEP_UP_MIN, _STEP_UP_MAX, _STEP_DOWN_MAX = 1.05, 1.25, 0.5
_RATIO_MIN = 0.01
_PERSISTENT = 5
"""So many decisions to slow down in a row make it likely that the reason is another."""
_GRAIN_SECONDS = 0.005
_GRAIN_MIN, _GRAIN_MAX = 256 * KIB, 4 * MIB

_SETTLE = 0.1
"""Seconds of a pause that do not count: what was being read is still under way."""
_LEARN_MIN, _LEARN_MAX = 0.25, 0.6
_LEARN_ENOUGH = 100
_LEARN_SHARE = 20
"""A pause is followed by so many times its length without another one, whatever happens."""
_FIRST_RELEARN, _RELEARN = 5.0, 30.0
_FRESH_WEIGHT = 0.7
"""What a pause with many operations counts for against what was known before."""

Totals = Mapping[str, IoTotals]


@dataclass(slots=True)
class HeldBack:
    """What a run gave up for the guest."""

    seconds: float = 0.0
    """For how long reading waited."""
    worst: float = 0.0
    """The highest ratio of the guest's latency to its baseline that was seen."""
    _weighted: float = 0.0
    _operations: int = 0

    @property
    def mean(self) -> float:
        """The ratio over all operations of the guest while its disks were read; 0 when it did none."""
        return self._weighted / self._operations if self._operations else 0.0

    def see(self, ratio: float, operations: int) -> None:
        """Take in the ratio of so many operations."""
        self.worst = max(self.worst, ratio)
        self._weighted += ratio * operations
        self._operations += operations


@dataclass(slots=True)
class _Window:
    """What has passed since a look at the guest."""

    began: float
    totals: Totals
    bytes_read: int = 0

    def passed(self, totals: Totals) -> dict[str, IoTotals] | None:
        """Give what the guest has done in the window; None when its counters were set back."""
        passed = {}
        for kind, now in totals.items():
            before = self.totals.get(kind, IoTotals(0, 0))
            operations, took = now.operations - before.operations, now.nanoseconds - before.nanoseconds
            if operations < 0 or took < 0:
                return None
            if operations:
                passed[kind] = IoTotals(operations, took)
        return passed


class LatencyControl:
    """Decides on the rate of reading from looks at the guest; belongs to one thread at a time.

    Args:
        factor: how many times its baseline the guest's latency may be; more than 1.
        now: the time of a clock that never goes back, in seconds.
    """

    def __init__(self, factor: float, now: float) -> None:
        if not factor > 1:
            raise ValueError(factor)
        self.factor = factor
        self.held_back = HeldBack()
        self.rate = math.inf
        """Bytes per second that may be read now."""
        self._baseline: dict[str, float] = {}
        self._window: _Window | None = None
        self._learning: float | None = now
        self._settled = now
        self._learn_again = math.inf
        self._not_before = 0.0
        self._relearn_after = _FIRST_RELEARN
        self._strikes = 0
        self._next_read = now
        self._look = TICK

    @property
    def look_after(self) -> float:
        """Seconds until the next look at the guest: no look costs nothing, as QEMU answers between its I/O.

        Two looks are needed to learn. Otherwise they become rarer while nothing has to be changed.
        """
        if not self.learning:
            return self._look
        unsettled = self._window is None or self._window.began < self._settled
        return _SETTLE if unsettled else _LEARN_MIN

    @property
    def learning(self) -> bool:
        """Whether reading pauses, so that the guest is seen as it is by itself."""
        return self._learning is not None

    @property
    def sparing(self) -> bool:
        """Whether there is anything to hold back for: the guest is busy, or not known yet."""
        return self.learning or self.rate < math.inf

    @property
    def grain(self) -> int:
        """Bytes to ask for at once: the guest waits behind them."""
        if self.rate * _GRAIN_SECONDS >= _GRAIN_MAX:
            return _GRAIN_MAX
        return max(_GRAIN_MIN, int(self.rate * _GRAIN_SECONDS) // _GRAIN_MIN * _GRAIN_MIN)

    def delay(self, now: float, count: int) -> float:
        """Give the seconds to wait before asking again to read ``count`` bytes; 0 lets them be read now."""
        if self._learning is not None:
            if now - self._learning <= _LEARN_MAX + _SETTLE + 2 * TICK:
                return 0.02
            self._resume(now)  # nobody looks at the guest any more
        if now < self._next_read:
            return self._next_read - now
        # What was not read in time is not made up for: a burst is what the guest would feel.
        self._next_read = max(self._next_read, now - _GRAIN_SECONDS) + count / self.rate
        if self._window is not None:
            self._window.bytes_read += count
        return 0.0

    def observe(self, now: float, totals: Totals) -> None:
        """Take in what the platform has counted of the guest's I/O since the machine was started."""
        if self._window is None:
            self._window = _Window(now, totals)
            return
        passed = self._window.passed(totals)
        if passed is None:
            self._window = _Window(now, totals)
            return
        seconds = now - self._window.began
        decided = self._learn(now, passed) if self.learning else self._judge(now, seconds, passed)
        if decided:
            self._window = _Window(now, totals)

    def _learn(self, now: float, passed: Totals) -> bool:
        """Take the latency in a pause for the baseline. Gives whether a new window begins."""
        window = self._window
        if window is None or window.began < self._settled:
            return now >= self._settled
        seconds, operations = now - window.began, _operations(passed)
        busy = operations >= _BUSY * seconds
        if seconds < _LEARN_MIN or (seconds < _LEARN_MAX and busy and operations < _LEARN_ENOUGH):
            return False
        if busy and not self._baseline:
            self.rate = min(self.rate, START)
        for kind, done in passed.items():
            mean = done.nanoseconds / done.operations
            known = self._baseline.get(kind)
            sure = min(1.0, done.operations / _ENOUGH)
            # A small difference is mostly chance; a large one says that the guest now does something else.
            if known is None or (sure == 1.0 and not known / 2 < mean < known * 2):
                self._baseline[kind] = mean
            else:
                self._baseline[kind] = known + sure * _FRESH_WEIGHT * (mean - known)
        self._resume(now)
        return True

    def _pause(self, now: float) -> None:
        self._learning, self._settled = now, now + _SETTLE
        self._look = TICK

    def _resume(self, now: float) -> None:
        took = now - self._learning if self._learning is not None else 0.0
        self._learning = None
        self._strikes = 0
        self._not_before = now + _LEARN_SHARE * took
        self._learn_again = now + max(self._relearn_after, _LEARN_SHARE * took)
        self._relearn_after = min(2 * self._relearn_after, _RELEARN)
        self._next_read = now

    def _judge(self, now: float, seconds: float, passed: Totals) -> bool:
        """Decide whether the rate changes. Gives whether a new window begins."""
        known = {kind: done for kind, done in passed.items() if self._baseline.get(kind)}
        operations, all_operations = _operations(known), _operations(passed)
        if seconds < TICK or (all_operations < _ENOUGH and seconds < _PATIENCE):
            return False
        self._look = min(LOOK_MAX, self._look * _LOOK_GROWTH)
        if 2 * operations < all_operations and now >= self._not_before:
            self._pause(now)  # the guest does what it did not do before, and perhaps slowly
            return True
        if operations:
            expected = sum(self._baseline[kind] * done.operations for kind, done in known.items())
            ratio = sum(done.nanoseconds for done in known.values()) / expected
            self.held_back.see(ratio, operations)
            self._follow(now, max(ratio, _RATIO_MIN), operations, seconds)
        else:
            self._speed_up(_STEP_UP_MAX, seconds)
        if now >= self._learn_again and operations:
            self._pause(now)
        return True

    def _follow(self, now: float, ratio: float, operations: int, seconds: float) -> None:
        wanted = (_RELAXED * self.factor / ratio) ** _GAIN
        if ratio > self.factor:
            # A few slow operations are chance, a few very slow ones are a guest that gets nothing done.
            evidence = math.sqrt(operations / _ENOUGH) * max(1.0, 2 * math.log(ratio / self.factor))
            self._slow_down(max(_STEP_DOWN_MAX, wanted) ** min(1.0, evidence), seconds)
            self._strikes += 1
            if self._strikes >= _PERSISTENT and now >= self._not_before:
                self._pause(now)
            return
        self._strikes = 0
        if ratio < _RELAXED * self.factor:
            self._speed_up(max(_STEP_UP_MIN, min(_STEP_UP_MAX, wanted)), seconds)

    def _slow_down(self, step: float, seconds: float) -> None:
        self._look = TICK
        achieved = self._achieved(seconds)
        if achieved >= FLOOR:  # else it is not the reading that the guest suffers from
            self.rate = max(FLOOR, min(self.rate, achieved) * step)

    def _speed_up(self, step: float, seconds: float) -> None:
        # Something else holds the reading up: a rate that is never tried out would mean nothing.
        if self._achieved(seconds) * 4 >= self.rate:
            self._look = 2 * TICK  # what comes of it is to be seen soon
            self.rate *= step ** (seconds / TICK)

    def _achieved(self, seconds: float) -> float:
        return self._window.bytes_read / seconds if self._window is not None else 0.0


def _operations(done: Totals) -> int:
    return sum(one.operations for one in done.values())
