"""Windows and blackouts, also in nights in which clocks are set."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.errors import UsageError
from hotspare.policy.interval import Interval, common, merged, without
from hotspare.policy.window import DAYS, OpenTimes, Window, parse_blackout, parse_window

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = OpenTimes(BERLIN, (parse_window("22:00-06:00"),))
NOON = datetime(2026, 5, 4, 12, tzinfo=BERLIN)
"""A Monday."""


def hours(opened: Interval | None) -> float:
    assert opened is not None
    return opened.length / timedelta(hours=1)


def test_a_window_over_midnight() -> None:
    assert NIGHT.at(NOON) is None
    opened = NIGHT.next_from(NOON)
    assert opened == (NOON.replace(hour=22), NOON.replace(day=5, hour=6))
    assert NIGHT.at(NOON.replace(day=5, hour=5, minute=59)) == opened
    assert NIGHT.at(NOON.replace(day=5, hour=6)) is None


def test_nights_in_which_the_clock_is_set_are_shorter_and_longer() -> None:
    assert hours(NIGHT.next_from(datetime(2026, 3, 28, 12, tzinfo=BERLIN))) == 7
    assert hours(NIGHT.next_from(datetime(2026, 10, 24, 12, tzinfo=BERLIN))) == 9


def test_a_window_inside_the_gap_is_gone_that_night() -> None:
    short = OpenTimes(BERLIN, (parse_window("02:15-02:45"),))
    opened = short.next_from(datetime(2026, 3, 28, 12, tzinfo=BERLIN))
    assert opened is not None
    assert opened.start == datetime(2026, 3, 30, 2, 15, tzinfo=BERLIN)


def test_days_belong_to_the_beginning_and_touching_windows_are_one() -> None:
    weekend = OpenTimes(BERLIN, (parse_window("Fri 22:00-24:00"), parse_window("Sat,Sun 00:00-24:00")))
    assert hours(weekend.next_from(NOON)) == 50


def test_a_blackout_cuts_a_window() -> None:
    opened = OpenTimes(
        BERLIN, NIGHT.windows, (parse_blackout("Tue 02:00-03:00"), parse_blackout("2026-05-07..2026-05-08"))
    )
    first = opened.next_from(NOON)
    assert first == (NOON.replace(hour=22), NOON.replace(day=5, hour=2))
    # Wednesday's window ends with the day; the next is what the holidays leave of Friday's.
    assert opened.next_from(NOON.replace(day=6)) == (
        NOON.replace(day=6, hour=22),
        NOON.replace(day=7, hour=0),
    )
    assert opened.next_from(NOON.replace(day=7)) == (NOON.replace(day=9, hour=0), NOON.replace(day=9, hour=6))


def test_without_windows_only_blackouts_count() -> None:
    always = OpenTimes(BERLIN, (), (parse_blackout("2026-05-04T08:00..2026-05-04T18:00"),))
    assert always.at(NOON) is None
    opened = always.next_from(NOON)
    assert opened is not None
    assert opened.start == NOON.replace(hour=18)


def test_nothing_opens_for_a_year() -> None:
    assert (
        OpenTimes(BERLIN, NIGHT.windows, (parse_blackout("2026-05-01..2028-01-01"),)).next_from(NOON) is None
    )


DAY_SETS = st.frozensets(st.integers(0, 6), min_size=1)
WINDOWS = st.builds(Window, DAY_SETS, st.integers(0, 1439), st.integers(1, 1440))


@settings(deadline=None, max_examples=60)
@given(WINDOWS)
def test_what_is_written_reads_back(window: Window) -> None:
    assert parse_window(str(window)) == window


@settings(deadline=None, max_examples=60)
@given(
    st.lists(WINDOWS, min_size=1, max_size=3),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.integers(0, 365 * 96),
)
def test_open_is_what_the_clock_on_the_wall_says(windows: list[Window], zone: str, quarter: int) -> None:
    """Compared with asking the wall clock directly, in every quarter of an hour of the year."""
    moment = datetime(2026, 1, 1, 0, 7, tzinfo=UTC) + timedelta(minutes=15 * quarter)
    local = moment.astimezone(ZoneInfo(zone))
    minute, day = local.hour * 60 + local.minute + local.second / 60, local.weekday()

    def inside(window: Window) -> bool:
        if window.end > window.start:
            return day in window.days and window.start <= minute < window.end
        return (day in window.days and minute >= window.start) or (
            (day - 1) % 7 in window.days and minute < window.end
        )

    expected = any(inside(window) for window in windows)
    found = OpenTimes(ZoneInfo(zone), windows).at(moment) is not None
    if found != expected:
        # Where a time is shown twice, all between its first and its last showing belongs to one side.
        assert (moment + timedelta(hours=1)).astimezone(ZoneInfo(zone)).utcoffset() != (
            moment - timedelta(hours=1)
        ).astimezone(ZoneInfo(zone)).utcoffset()


@pytest.mark.parametrize(
    "wrong",
    ["", "22:00", "22:00-25:00", "Foo 22:00-23:00", "22:61-23:00", "24:00-06:00", "Mon..Xyz 1:00-2:00"],
)
def test_what_is_no_window_is_refused_with_an_example(wrong: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_window(wrong)
    assert refused.value.hint


@pytest.mark.parametrize(
    "wrong", ["2026-13-01", "2026-05-02..2026-05-01", "2026-05-02T10:00+02:00..2026-05-03", "x"]
)
def test_what_is_no_blackout_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError):
        parse_blackout(wrong)


def test_days_are_read_in_any_way() -> None:
    assert parse_window("Monday..fri,Sun 01:00-2:00") == parse_window("Mon-Fri,Sun 1:00-02:00")
    assert parse_window("Sat..Mon 01:00-02:00").days == {5, 6, 0}
    assert str(parse_window("Mon,Tue,Wed,Sat 1:00-2:00")) == "Mon..Wed,Sat 01:00-02:00"
    assert len(DAYS) == 7


BASE = datetime(2026, 1, 1, tzinfo=UTC)
INTERVALS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 10)).map(
        lambda pair: Interval(BASE + timedelta(hours=pair[0]), BASE + timedelta(hours=sum(pair)))
    ),
    max_size=6,
)


def covered(intervals: list[Interval]) -> set[int]:
    return {
        hour
        for hour in range(60)
        if any(one.start <= BASE + timedelta(hours=hour) < one.end for one in intervals)
    }


@settings(deadline=None, max_examples=60)
@given(INTERVALS, INTERVALS)
def test_intervals_are_sets_of_time(some: list[Interval], others: list[Interval]) -> None:
    assert covered(merged(some)) == covered(some)
    assert covered(without(some, others)) == covered(some) - covered(others)
    assert covered(common(some, others)) == covered(some) & covered(others)
    for found in (merged(some), without(some, others), common(some, others)):
        assert all(one.start < one.end for one in found)
        assert all(one.end < after.start for one, after in pairwise(found))
