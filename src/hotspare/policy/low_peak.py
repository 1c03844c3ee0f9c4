"""Hours of the week in which a host has little to do, learnt from samples of its load.

For each hour of the week: the median of that hour in each of the last weeks, and the median of those. So one
week of holidays, or one night of maintenance, changes nothing. Hours that nobody looked at are taken from the
same hour of other days; with less than three days of samples nothing is said.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from hotspare.policy.load import LoadSample, busyness
from hotspare.policy.window import DAY_MINUTES, Window

HOURS = 7 * 24
WEEKS = 8
"""What is older is forgotten."""
_DAYS_NEEDED = 3
_HOURS_NEEDED = 18
"""Hours of the day that must have been seen at all."""
_LOW_SHARE = 0.25
"""Hours that are not further above the quietest than this share of the way to the busiest are low."""
_CONTRAST = 0.15
"""The busiest hours must be this much busier than the quietest, or there is no low peak."""
_SHORTEST = 2
"""Hours."""


@dataclass(frozen=True, slots=True)
class LowPeak:
    """What was learnt of one host."""

    windows: tuple[Window, ...]
    """Empty when there is nothing to propose."""
    because: str
    """In words for people: on what it is founded, or why there is nothing."""
    hours: Mapping[int, float]
    """How busy it usually is, 0 to about 1, by hour of the week from Monday 0:00; empty when not known."""

    @property
    def low_hours(self) -> frozenset[int]:
        """The hours of the week that are in its windows, which begin and end at full hours."""
        return frozenset(
            (day * 24 + window.start // 60 + hour) % HOURS
            for window in self.windows
            for day in window.days
            for hour in range(((window.end - window.start) % DAY_MINUTES or DAY_MINUTES) // 60)
        )


def learn_low_peak(samples: Sequence[LoadSample], zone: ZoneInfo) -> LowPeak:
    """Learn from samples of one host, in any order; those of backups of ours are not looked at."""
    own = [one for one in samples if not one.backing_up]
    if not own:
        return LowPeak((), "its load was never sampled", {})
    newest = max(one.at for one in own)
    own = [one for one in own if one.at > newest - timedelta(weeks=WEEKS)]
    by_day: dict[date, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one, busy in zip(own, busyness(own), strict=True):
        local = one.at.astimezone(zone)
        by_day[local.date()][local.hour].append(busy)
    seen = {hour for day in by_day.values() for hour in day}
    if len(by_day) < _DAYS_NEEDED or len(seen) < _HOURS_NEEDED:
        return LowPeak((), f"too little is known yet: {len(own)} samples of {len(by_day)} days", {})
    hours = _by_hour_of_week(by_day)
    lowest, highest = _quantile(hours.values(), 0.02), _quantile(hours.values(), 0.98)
    if highest - lowest < _CONTRAST:
        return LowPeak((), "it is about as busy at all hours", hours)
    limit = lowest + _LOW_SHARE * (highest - lowest)
    low = [hours[hour] <= limit for hour in range(HOURS)]
    windows = _windows(low)
    because = (
        f"{len(own)} samples of {len(by_day)} days: {lowest:.0%} busy in the quietest hours, {highest:.0%} in"
        " the busiest"
    )
    return LowPeak(windows, because if windows else f"no quiet stretch of two hours in {because}", hours)


def _by_hour_of_week(by_day: Mapping[date, Mapping[int, list[float]]]) -> dict[int, float]:
    of_week: dict[int, list[float]] = defaultdict(list)
    of_day: dict[int, list[float]] = defaultdict(list)
    for day, hours in by_day.items():
        for hour, values in hours.items():
            typical = statistics.median(values)
            of_week[day.weekday() * 24 + hour].append(typical)
            of_day[hour].append(typical)
    # An hour of the day that nobody ever looked at counts as busy.
    unseen = max(max(values) for values in of_day.values())
    return {
        hour: statistics.median(of_week.get(hour) or of_day.get(hour % 24) or [unseen])
        for hour in range(HOURS)
    }


def _windows(low: Sequence[bool]) -> tuple[Window, ...]:
    """Turn low hours of the week, which is a circle, into windows; the same one on several days is one."""
    days: dict[tuple[int, int], set[int]] = defaultdict(set)
    for first, length in _stretches(low):
        for offset in range(0, length, 24):
            start = (first + offset) % HOURS
            end = (start + min(24, length - offset)) * 60 % DAY_MINUTES
            days[start % 24 * 60, end or DAY_MINUTES].add(start // 24)
    windows = [Window(frozenset(found), start, end) for (start, end), found in days.items()]
    return tuple(sorted(windows, key=lambda window: (min(window.days), window.start)))


def _stretches(low: Sequence[bool]) -> list[tuple[int, int]]:
    """Give each stretch of low hours that is long enough: its first hour, and how many they are."""
    if all(low):
        return [(0, HOURS)]
    found = []
    for hour in range(HOURS):
        if low[hour] and not low[hour - 1]:
            length = next(count for count in range(1, HOURS) if not low[(hour + count) % HOURS])
            if length >= _SHORTEST:
                found.append((hour, length))
    return found


def _quantile(values: object, share: float) -> float:
    ordered = sorted(values)  # type: ignore[call-overload]
    return float(ordered[round(share * (len(ordered) - 1))])
