"""When runs may begin: windows of the week, less blackouts.

Windows are times on the wall: ``Mon..Fri 22:00-06:00`` is an hour shorter in the night in which the clock is
set forward, an hour longer when it is set back, and gone where the gap swallows it whole.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hotspare.errors import UsageError
from hotspare.policy.interval import Interval, common, merged, without
from hotspare.policy.local_time import last_moment_of, moment_of

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
EVERY_DAY = frozenset(range(7))
DAY_MINUTES = 24 * 60
_EXAMPLE = "Write it like '22:00-06:00', 'Mon..Fri 22:00-06:00' or 'Sat,Sun 00:00-24:00'"
_TIME = r"(\d{1,2}):(\d\d)"
_HORIZON = timedelta(days=400)
"""Beyond that nobody looks for the next window."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of some days, in minutes since midnight; over midnight where it ends before it begins."""

    days: frozenset[int]
    """On which it begins; 0 is Monday."""
    start: int
    end: int
    """At most 1440, midnight; the same as ``start`` is a whole day."""

    def on(self, day: date, zone: ZoneInfo) -> Interval | None:
        """Give it as it begins on a day; None when it does not."""
        if day.weekday() not in self.days:
            return None
        length = (self.end - self.start) % DAY_MINUTES or DAY_MINUTES
        opens = datetime.combine(day, time()) + timedelta(minutes=self.start)
        return Interval(moment_of(opens, zone), last_moment_of(opens + timedelta(minutes=length), zone))

    def __str__(self) -> str:
        times = f"{_clock(self.start)}-{_clock(self.end)}"
        return times if self.days == EVERY_DAY else f"{_days_words(self.days)} {times}"


@dataclass(frozen=True, slots=True)
class Blackout:
    """Something like holidays, once: from one time on the wall to another."""

    start: datetime
    end: datetime

    def interval(self, zone: ZoneInfo) -> Interval:
        """Give it in moments."""
        return Interval(moment_of(self.start, zone), last_moment_of(self.end, zone))


@dataclass(frozen=True, slots=True)
class OpenTimes:
    """All windows and blackouts of one policy; without windows it is always open."""

    zone: ZoneInfo
    windows: Sequence[Window] = ()
    blackouts: Sequence[Window | Blackout] = ()

    def between(self, start: datetime, end: datetime) -> list[Interval]:
        """Give when it is open from ``start`` until ``end``, in UTC; what began before is cut off."""
        span = Interval(start.astimezone(UTC), end.astimezone(UTC))
        opened = list(self._of(self.windows, span)) if self.windows else [span]
        return without(common(opened, [span]), self._of(self.blackouts, span))

    def at(self, moment: datetime) -> Interval | None:
        """Give the open stretch that a moment is in, whole but for what is more than a week away."""
        week = timedelta(days=7)
        around = self.between(moment - week, moment + week)
        return next((one for one in around if one.start <= moment < one.end), None)

    def next_from(self, moment: datetime) -> Interval | None:
        """Give the stretch that is open at ``moment``, else the next; None when there is none for a year."""
        if opened := self.at(moment):
            return opened
        looked = moment
        while looked < moment + _HORIZON:
            found = self.between(looked, looked + timedelta(days=16))
            if found:
                return self.at(found[0].start)
            looked += timedelta(days=16)
        return None

    def _of(self, kinds: Sequence[Window | Blackout], span: Interval) -> Iterator[Interval]:
        # A window lasts a day at most, and began the day before at the earliest; zones differ by a day.
        first = span.start.astimezone(self.zone).date() - timedelta(days=2)
        days = (span.end.astimezone(self.zone).date() - first).days + 1
        for kind in kinds:
            if isinstance(kind, Blackout):
                yield kind.interval(self.zone)
                continue
            for count in range(days):
                if found := kind.on(first + timedelta(days=count), self.zone):
                    yield found


def both_open(some: Sequence[Interval], others: Sequence[Interval]) -> list[Interval]:
    """Give when both are open; the first alone where they have nothing in common."""
    return common(some, others) or merged(some)


def parse_window(text: str) -> Window:
    """Read ``Mon..Fri 22:00-06:00``. Raises ``UsageError``."""
    match = re.fullmatch(rf"(?:(\S+)\s+)?{_TIME}\s*-\s*{_TIME}", text.strip())
    if not match:
        raise UsageError(f"{text!r} is no window", hint=_EXAMPLE)
    start, end = _minutes(match[2], match[3], text), _minutes(match[4], match[5], text)
    if start == DAY_MINUTES:
        raise UsageError(f"{text!r} begins at 24:00", hint="Write 00:00 and the day after")
    return Window(_parse_days(match[1], text) if match[1] else EVERY_DAY, start, end)


def parse_blackout(text: str) -> Window | Blackout:
    """Read ``2026-12-24..2026-12-26`` (whole days), ``2026-12-24T18:00..2026-12-27T06:00``, or a window.

    Raises:
        UsageError: it is none.
    """
    if not re.match(r"\s*\d{4}-", text):
        return parse_window(text)
    first, _, last = (part.strip() for part in text.partition(".."))
    start, end = _date(first, text, ends=False), _date(last or first, text, ends=True)
    if end <= start:
        raise UsageError(f"{text!r} ends before it begins", hint="Write the earlier date first")
    return Blackout(start, end)


def _date(text: str, whole: str, *, ends: bool) -> datetime:
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            day = datetime.combine(date.fromisoformat(text), time())
            return day + timedelta(days=1) if ends else day
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{whole!r} is no blackout", hint="Write it like 2026-12-24..2026-12-26, or like a window"
        ) from error
    if found.tzinfo is not None:
        raise UsageError(f"{whole!r} names a time zone", hint="Leave it out: the policy's time_zone counts")
    return found


def _minutes(hours: str, minutes: str, text: str) -> int:
    total = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or total > DAY_MINUTES:
        raise UsageError(f"{text!r} has a time of day that there is not", hint=_EXAMPLE)
    return total


def _parse_days(text: str, whole: str) -> frozenset[int]:
    names = [name.lower() for name in DAYS]
    found: set[int] = set()
    for part in text.lower().split(","):
        first, _, last = part.replace("-", "..").partition("..")
        if first[:3] not in names or (last and last[:3] not in names):
            raise UsageError(f"{whole!r} has a day that there is not: {part!r}", hint=_EXAMPLE)
        start, end = names.index(first[:3]), names.index((last or first)[:3])
        found.update((start + count) % 7 for count in range((end - start) % 7 + 1))
    return frozenset(found)


def _days_words(days: frozenset[int]) -> str:
    """Write days the short way: ``Mon..Fri``, ``Sat,Sun``."""
    parts = []
    ordered = sorted(days)
    while ordered:
        run = [ordered.pop(0)]
        while ordered and ordered[0] == run[-1] + 1:
            run.append(ordered.pop(0))
        parts += [f"{DAYS[run[0]]}..{DAYS[run[-1]]}"] if len(run) > 2 else [DAYS[day] for day in run]
    return ",".join(parts)


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
