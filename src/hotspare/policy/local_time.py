"""From what a clock on the wall shows to moments, also where that clock is set forward or back.

``zoneinfo`` gives moments for times that no clock showed (a *gap*, in spring) and one of two for times that
it showed twice (a *fold*, in autumn). What we want of them is decided here, once.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hotspare.errors import UsageError

_A_DAY = timedelta(days=1)


def zone_named(name: str) -> ZoneInfo:
    """Give the time zone of that name. Raises ``UsageError``."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"There is no time zone {name!r}", hint="Write it like Europe/Berlin, America/New_York or UTC"
        ) from error


def moment_of(shown: datetime, zone: ZoneInfo) -> datetime:
    """Give the moment, in UTC, at which a clock shows ``shown``, or first goes past it.

    Args:
        shown: without a zone. In a gap it means the end of the gap; shown twice, the first time.
        zone: where the clock hangs.
    """
    moment = shown.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == shown:
        return moment
    return _end_of_gap(shown, zone)


def second_moment_of(shown: datetime, zone: ZoneInfo) -> datetime | None:
    """Give the later moment of a time that the clock shows twice; None for all others."""
    first = shown.replace(tzinfo=zone, fold=0).astimezone(UTC)
    second = shown.replace(tzinfo=zone, fold=1).astimezone(UTC)
    # In a gap the two differ as well, the other way round.
    return second if second > first else None


def last_moment_of(shown: datetime, zone: ZoneInfo) -> datetime:
    """Give the last moment at which a clock shows ``shown``: there ends what includes all before."""
    return second_moment_of(shown, zone) or moment_of(shown, zone)


def _end_of_gap(shown: datetime, zone: ZoneInfo) -> datetime:
    # The two readings of a time in a gap lie on either side of it; the clock jumps between them.
    before, after = sorted(shown.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    offset = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)


def is_steady(moment: datetime, zone: ZoneInfo) -> bool:
    """Tell whether the clock was not set within a day before or after ``moment``."""
    local = [(moment + shift).astimezone(zone).utcoffset() for shift in (-_A_DAY, timedelta(), _A_DAY)]
    return local[0] == local[1] == local[2]
