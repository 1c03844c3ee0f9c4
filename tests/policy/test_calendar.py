"""When something is due, above all around the hours in which clocks are set."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.errors import UsageError
from hotspare.policy.calendar import Calendar, next_few

BERLIN = ZoneInfo("Europe/Berlin")
"""Clocks go from 2:00 to 3:00 on 2026-03-29, and from 3:00 to 2:00 on 2026-10-25."""
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Asia/Kolkata",
)
EXPRESSIONS = (
    "22:00",
    "02:30",
    "hourly",
    "*:0/20",
    "Mon..Fri 02:15",
    "*-*-01 03:00",
    "30 2 * * *",
    "0 */6 * * *",
)


def shown(expression: str, start: str, count: int, zone: ZoneInfo = BERLIN) -> list[str]:
    """Give when it is due next, as the clock shows it with its offset."""
    begin = datetime.fromisoformat(start).replace(tzinfo=zone)
    dues = islice(Calendar(expression, zone).after(begin), count)
    return [f"{due.astimezone(zone):%m-%d %H:%M %z}" for due in dues]


@pytest.mark.parametrize("expression", ["22:30", "30 22 * * *", "*-*-* 22:30:00"])
def test_a_time_of_day_comes_every_day(expression: str) -> None:
    assert shown(expression, "2026-05-04T22:30", 2) == ["05-05 22:30 +0200", "05-06 22:30 +0200"]


@pytest.mark.parametrize("expression", ["Mon..Fri 22:00", "0 22 * * 1-5"])
def test_days_of_the_week(expression: str) -> None:
    assert shown(expression, "2026-05-07T23:00", 2) == ["05-08 22:00 +0200", "05-11 22:00 +0200"]


def test_the_last_day_of_a_month() -> None:
    assert shown("*-*~01 03:00", "2026-02-01T00:00", 2) == ["02-28 03:00 +0100", "03-31 03:00 +0200"]


def test_what_falls_into_the_gap_is_due_at_its_end() -> None:
    assert shown("02:30", "2026-03-28T12:00", 3) == [
        "03-29 03:00 +0200",
        "03-30 02:30 +0200",
        "03-31 02:30 +0200",
    ]
    assert shown("30 2 * * *", "2026-03-28T12:00", 1) == ["03-29 03:00 +0200"]


def test_what_falls_into_the_gap_beside_what_is_due_then_is_due_once() -> None:
    assert shown("02,03:00", "2026-03-28T12:00", 2) == ["03-29 03:00 +0200", "03-30 02:00 +0200"]


def test_a_time_that_is_shown_twice_is_due_once() -> None:
    assert shown("02:30", "2026-10-24T12:00", 2) == ["10-25 02:30 +0200", "10-26 02:30 +0100"]


def test_times_an_hour_apart_are_not_taken_for_hourly() -> None:
    assert shown("02,03:00", "2026-10-24T12:00", 3) == [
        "10-25 02:00 +0200",
        "10-25 03:00 +0100",
        "10-26 02:00 +0100",
    ]


def test_hourly_goes_on_through_both_hours_and_past_the_gap() -> None:
    assert shown("hourly", "2026-10-25T00:30", 5) == [
        "10-25 01:00 +0200",
        "10-25 02:00 +0200",
        "10-25 02:00 +0100",
        "10-25 03:00 +0100",
        "10-25 04:00 +0100",
    ]
    assert shown("hourly", "2026-03-29T00:30", 3) == [
        "03-29 01:00 +0100",
        "03-29 03:00 +0200",
        "03-29 04:00 +0200",
    ]


def test_every_20_minutes_is_a_real_twenty_minutes_when_the_clock_is_set_back() -> None:
    begin = datetime(2026, 10, 24, 22, tzinfo=UTC)
    dues = list(islice(Calendar("*:0/20", BERLIN).after(begin), 15))
    assert dues == [begin + timedelta(minutes=20 * count) for count in range(1, 16)]


def test_a_half_hour_change_and_a_day_that_a_place_skipped() -> None:
    assert shown("02:15", "2026-10-03T12:00", 1, ZoneInfo("Australia/Lord_Howe")) == ["10-04 02:30 +1100"]
    # Samoa had no 30 December 2011.
    assert shown("12:00", "2011-12-29T13:00", 2, ZoneInfo("Pacific/Apia")) == [
        "12-31 00:00 +1400",
        "12-31 12:00 +1400",
    ]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
)
def test_the_next_is_later_and_none_is_passed_over(expression: str, zone: str, moment: datetime) -> None:
    calendar = Calendar(expression, ZoneInfo(zone))
    due = calendar.next_after(moment)
    assert due is not None
    assert due > moment
    # Asked from anywhere between, it is the same: nothing lies there.
    for share in (0.25, 0.5, 0.999):
        assert calendar.next_after(moment + (due - moment) * share) == due
    assert calendar.next_after(due - timedelta(seconds=1)) == due


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["22:00", "02:30", "00:00"]), st.sampled_from(ZONES), st.integers(0, 330))
def test_a_daily_run_comes_once_on_each_date(expression: str, zone: str, day: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
    dues = list(islice(Calendar(expression, ZoneInfo(zone)).after(start), 10))
    dates = [due.astimezone(ZoneInfo(zone)).date() for due in dues]
    assert [date - dates[0] for date in dates] == [timedelta(days=count) for count in range(10)]


@pytest.mark.parametrize(
    "wrong", ["", "25:00", "sometimes", "61 2 * * *", "* * * *", "22:00 Europe/Berlin", "\x00"]
)
def test_what_is_no_time_is_refused_with_an_example(wrong: str) -> None:
    with pytest.raises(UsageError) as refused:
        Calendar(wrong, BERLIN)
    assert "22:00" in refused.value.hint


@pytest.mark.parametrize("never", ["*-02-30 12:00", "2020-01-01 12:00", "0 0 30 2 *"])
def test_what_never_comes_is_refused(never: str) -> None:
    with pytest.raises(UsageError):
        Calendar(never, BERLIN)


def test_several_calendars_are_one_list() -> None:
    calendars = [Calendar("Sat 03:00", BERLIN), Calendar("Mon..Fri 22:00", BERLIN), Calendar("22:00", BERLIN)]
    found = next_few(calendars, datetime(2026, 5, 8, 12, tzinfo=BERLIN), 3)
    assert [f"{due.astimezone(BERLIN):%a %H:%M}" for due in found] == ["Fri 22:00", "Sat 03:00", "Sat 22:00"]
