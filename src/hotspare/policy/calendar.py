"""When something is due: calendar expressions as of systemd's ``OnCalendar=`` or of cron.

Reading the expressions is left to two libraries, which step through what a clock on the wall shows. When the
clock itself is set is decided here, as both leave out a run whose time falls into a gap (systemd's rule), and
a night without a backup is what nobody wants:

- a time that no clock shows is due as soon as the clock has jumped over it;
- a time that is shown twice is due the first time only, except for what is due every hour or more often: that
  goes on through both hours.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from oncalendar import BaseIterator, OnCalendarError

from hotspare.errors import UsageError
from hotspare.policy.local_time import is_steady, moment_of, second_moment_of

_CRON_FIELDS = 5
_A_DAY = timedelta(days=1)
_ANY_DAY = datetime(2026, 1, 1)


class Calendar:
    """One expression in one time zone.

    Args:
        expression: ``22:00``, ``Mon..Fri 22:00``, ``*-*-01 03:00``, ``hourly``, or ``0 22 * * 1-5``.
        zone: whose clock it means.

    Raises:
        UsageError: it is no such expression, or nothing is ever due by it.
    """

    def __init__(self, expression: str, zone: ZoneInfo) -> None:
        self.expression = " ".join(expression.split())
        self.zone = zone
        self._shown_after(_ANY_DAY)
        if next(self._shown_after(_ANY_DAY), None) is None:
            raise UsageError(
                f"{expression!r} names no time that will ever come",
                hint="Mend the date in it, or leave it out",
            )

    def next_after(self, moment: datetime) -> datetime | None:
        """Give the first moment after ``moment`` at which it is due, in UTC; None when it never is again."""
        local = moment.astimezone(self.zone).replace(tzinfo=None)
        if is_steady(moment, self.zone):
            shown = next(self._shown_after(local.replace(fold=0)), None)
            return moment_of(shown, self.zone) if shown else None
        best: datetime | None = None
        # What is shown before may still come: a second time, or at the end of a gap.
        for shown in self._shown_after(local - _A_DAY - timedelta(seconds=1)):
            first = moment_of(shown, self.zone)
            if best is not None and first >= best:
                break
            for due in (first, self._again(shown)):
                if due is not None and due > moment and (best is None or due < best):
                    best = due
        return best

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield all moments after ``moment`` at which it is due, in UTC and in order."""
        due = self.next_after(moment)
        while due is not None:
            yield due
            due = self.next_after(due)

    def _again(self, shown: datetime) -> datetime | None:
        """Give the moment at which the clock shows it a second time, if that counts."""
        second = second_moment_of(shown, self.zone)
        if second is None:
            return None
        length = second - moment_of(shown, self.zone)
        repeats = all(self._shows(shown + shift) for shift in (-length, length))
        return second if repeats else None

    def _shows(self, shown: datetime) -> bool:
        return next(self._shown_after(shown - timedelta(seconds=1)), None) == shown

    def _shown_after(self, shown: datetime) -> Iterator[datetime]:
        """Yield what the clock shows when it is due, after ``shown``, as if nobody ever set the clock."""
        try:
            if len(self.expression.split()) == _CRON_FIELDS:
                return CronSim(self.expression, shown)
            return _all_of(BaseIterator(self.expression, shown))
        except (CronSimError, OnCalendarError) as error:
            raise UsageError(
                f"{self.expression!r} is no time that can be due: {error}",
                hint="Write it like 22:00, 'Mon..Fri 22:00', '*-*-01 03:00', hourly, or as for cron:"
                " '0 22 * * 1-5'",
            ) from error


def _all_of(dates: BaseIterator) -> Iterator[datetime]:
    while True:
        try:
            yield next(dates)
        except StopIteration:
            return


def next_of_all(calendars: list[Calendar], moment: datetime) -> datetime | None:
    """Give the first moment after ``moment`` at which any of them is due."""
    dues = [due for due in (calendar.next_after(moment) for calendar in calendars) if due]
    return min(dues, default=None)


def next_few(calendars: list[Calendar], moment: datetime, count: int) -> list[datetime]:
    """Give the first ``count`` moments after ``moment`` at which any of them is due."""

    def dues() -> Iterator[datetime]:
        due = next_of_all(calendars, moment)
        while due is not None:
            yield due
            due = next_of_all(calendars, due)

    return list(islice(dues(), count))
