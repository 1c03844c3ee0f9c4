"""The period of a report: the last day, week or month, or from one time to another."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from hotspare.errors import UsageError

PeriodName = Literal["day", "week", "month"]
DAYS: dict[PeriodName, int] = {"day": 1, "week": 7, "month": 30}


@dataclass(frozen=True, slots=True)
class Period:
    """From a time on, up to another that is not in it."""

    since: datetime
    until: datetime


def period_of(name: PeriodName, since: datetime | None, until: datetime | None, now: datetime) -> Period:
    """Give the period that is asked for.

    Args:
        name: how long it is, where its begin is not given.
        since: its begin; has to know its time zone.
        until: its end; None for now.
        now: the time.

    Raises:
        UsageError: it ends before it begins, or begins in the future.
    """
    end = min(until or now, now)
    begin = since or end - timedelta(days=DAYS[name])
    if begin >= end:
        raise UsageError(
            f"A period cannot begin at {begin:%Y-%m-%d %H:%M} and end at {end:%Y-%m-%d %H:%M} UTC",
            meaning="Nothing was looked at",
            hint="Let it begin before it ends, and before now",
        )
    return Period(begin, end)
