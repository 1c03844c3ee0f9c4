"""Which restore points of one machine are kept: grandfather, father, son.

For each kind of period (hour, day, week, month, year) the newest point of each of the last so many periods
*that have one* is kept: a machine that was off for a month loses nothing by it. A point may be kept for
several reasons, all of which are told.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=100_000)]


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How many points are kept for each reason; all zero keeps every point for ever."""

    last: Count = 0
    hourly: Count = 0
    daily: Count = 0
    weekly: Count = 0
    """Weeks begin on Mondays."""
    monthly: Count = 0
    yearly: Count = 0

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever forgotten."""
        return not any(msgspec.structs.astuple(self))


@dataclass(frozen=True, slots=True)
class DatedPoint:
    """What retention has to know of a restore point."""

    id: str
    finished_at: datetime
    held: bool = False
    """A user keeps it ("point keep")."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of one point."""

    point: DatedPoint
    reasons: tuple[str, ...]
    """Why it is kept; empty when it is to be forgotten."""

    @property
    def kept(self) -> bool:
        """Whether it is."""
        return bool(self.reasons)


def _hour(local: datetime) -> str:
    # The hour that comes twice in autumn is two hours.
    return f"{local:%Y-%m-%d %H:00}{' again' if local.fold else ''}"


def _week(local: datetime) -> str:
    year, week, _ = local.isocalendar()
    return f"{year}-W{week:02d}"


_PERIODS: dict[str, Callable[[datetime], str]] = {
    "hourly": _hour,
    "daily": lambda local: f"{local:%Y-%m-%d}",
    "weekly": _week,
    "monthly": lambda local: f"{local:%Y-%m}",
    "yearly": lambda local: f"{local:%Y}",
}


def judge_points(
    points: Iterable[DatedPoint], retention: Retention, zone: ZoneInfo, now: datetime
) -> list[Verdict]:
    """Judge the points of one machine, the oldest first.

    The newest point is always kept, and so is what a user keeps, or what claims to be from the future (a
    clock was wrong): those two do not count for any number.
    """
    ordered = sorted(points, key=lambda point: (point.finished_at, point.id))
    reasons: dict[str, list[str]] = {point.id: [] for point in ordered}
    counting = [point for point in ordered if point.finished_at <= now]
    for point in ordered:
        if point.held:
            reasons[point.id].append("kept by hand")
        if point.finished_at > now:
            reasons[point.id].append("its time is in the future")
        if retention.keeps_all:
            reasons[point.id].append("everything is kept")
    if not retention.keeps_all:
        _count(counting, retention, zone, reasons)
    if ordered and not reasons[ordered[-1].id]:
        reasons[ordered[-1].id].append("the newest")
    return [Verdict(point, tuple(reasons[point.id])) for point in ordered]


def _count(
    points: Sequence[DatedPoint], retention: Retention, zone: ZoneInfo, reasons: dict[str, list[str]]
) -> None:
    newest_first = [point for point in reversed(points) if not point.held]
    for number, point in enumerate(newest_first[: retention.last], start=1):
        reasons[point.id].append(f"last {number} of {retention.last}")
    for kind, period_of in _PERIODS.items():
        wanted = getattr(retention, kind)
        seen: set[str] = set()
        for point in newest_first:
            period = period_of(point.finished_at.astimezone(zone))
            if period not in seen and len(seen) < wanted:
                reasons[point.id].append(f"{kind} {period}")
            seen.add(period)
