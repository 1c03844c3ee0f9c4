"""Which points are kept: examples that can be checked by hand, and what must always be so."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.policy.retention import DatedPoint, Retention, judge_points

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def daily_points(days: int) -> list[DatedPoint]:
    """Give one point each night at 2:15 of Berlin, the last one that of today."""
    last = datetime(2026, 11, 26, 2, 15, tzinfo=BERLIN)
    return [
        DatedPoint(f"{last - timedelta(days=back):%Y-%m-%d}", last - timedelta(days=back))
        for back in range(days)
    ]


def kept(points: list[DatedPoint], retention: Retention, now: datetime = NOW) -> dict[str, tuple[str, ...]]:
    verdicts = judge_points(points, retention, BERLIN, now)
    return {verdict.point.id: verdict.reasons for verdict in verdicts if verdict.kept}


def test_a_usual_scheme_over_a_year() -> None:
    found = kept(daily_points(400), Retention(daily=3, weekly=2, monthly=2, yearly=2))
    assert found == {
        "2026-11-26": ("daily 2026-11-26", "weekly 2026-W48", "monthly 2026-11", "yearly 2026"),
        "2026-11-25": ("daily 2026-11-25",),
        "2026-11-24": ("daily 2026-11-24",),
        "2026-11-22": ("weekly 2026-W47",),
        "2026-10-31": ("monthly 2026-10",),
        "2025-12-31": ("yearly 2025",),
    }


def test_periods_without_a_point_do_not_count() -> None:
    points = [point for point in daily_points(40) if not "2026-11-02" <= point.id <= "2026-11-25"]
    assert list(kept(points, Retention(daily=3))) == ["2026-10-31", "2026-11-01", "2026-11-26"]


def test_nothing_set_keeps_everything() -> None:
    assert len(kept(daily_points(50), Retention())) == 50


def test_the_newest_stays_whatever_is_asked_for() -> None:
    points = daily_points(3)
    assert kept(points, Retention(last=0, hourly=0, yearly=0, weekly=1))["2026-11-26"] == ("weekly 2026-W48",)
    held = [*points[1:], DatedPoint(points[0].id, points[0].finished_at, held=True)]
    # The one that is held does not count: the next one is the last.
    assert list(kept(held, Retention(last=1))) == ["2026-11-25", "2026-11-26"]


def test_what_a_user_keeps_stays() -> None:
    points = daily_points(10)
    points[9] = DatedPoint(points[9].id, points[9].finished_at, held=True)
    assert kept(points, Retention(last=1)) == {
        "2026-11-17": ("kept by hand",),
        "2026-11-26": ("last 1 of 1",),
    }


def test_points_of_a_wrong_clock_are_kept_and_push_out_no_other() -> None:
    points = [*daily_points(5), DatedPoint("2031", datetime(2031, 1, 1, tzinfo=UTC))]
    found = kept(points, Retention(last=2))
    assert found == {
        "2026-11-25": ("last 2 of 2",),
        "2026-11-26": ("last 1 of 2",),
        "2031": ("its time is in the future",),
    }


def test_periods_are_those_of_the_zone_and_the_hour_that_comes_twice_is_two() -> None:
    before_midnight = datetime(2026, 10, 31, 22, 30, tzinfo=UTC)  # 23:30 in Berlin
    after_midnight = datetime(2026, 10, 31, 23, 30, tzinfo=UTC)  # 0:30 of 1 November there
    points = [DatedPoint("october", before_midnight), DatedPoint("november", after_midnight)]
    assert list(kept(points, Retention(monthly=2))) == ["october", "november"]
    twice = [DatedPoint(f"{hour}", datetime(2026, 10, 25, hour, 30, tzinfo=UTC)) for hour in (0, 1)]
    assert kept(twice, Retention(hourly=2)) == {
        "0": ("hourly 2026-10-25 02:00",),
        "1": ("hourly 2026-10-25 02:00 again",),
    }


COUNTS = st.integers(0, 5)
RETENTIONS = st.builds(
    Retention, last=COUNTS, hourly=COUNTS, daily=COUNTS, weekly=COUNTS, monthly=COUNTS, yearly=COUNTS
)
POINTS = st.lists(
    st.tuples(st.integers(-24 * 20, 24 * 900), st.booleans()), max_size=60, unique_by=lambda pair: pair[0]
).map(
    lambda pairs: [
        DatedPoint(f"{hours:06d}", NOW - timedelta(hours=hours, minutes=1), held and hours % 7 == 0)
        for hours, held in pairs
    ]
)


@given(POINTS, RETENTIONS)
def test_what_always_holds(points: list[DatedPoint], retention: Retention) -> None:
    found = kept(points, retention)
    newest = max(points, key=lambda point: point.finished_at, default=None)
    assert newest is None or newest.id in found
    assert {point.id for point in points if point.held or point.finished_at > NOW} <= set(found)
    # Applied again to what was left, nothing more goes: however often it runs, it comes to the same.
    assert set(kept([point for point in points if point.id in found], retention)) == set(found)
    if not retention.keeps_all:
        held = sum(point.held or point.finished_at > NOW for point in points)
        wanted = sum(getattr(retention, name) for name in retention.__struct_fields__)
        assert len(found) <= max(1, wanted) + held


@given(POINTS, RETENTIONS, st.sampled_from(Retention.__struct_fields__))
def test_keeping_more_never_forgets_what_less_kept(
    points: list[DatedPoint], retention: Retention, kind: str
) -> None:
    if retention.keeps_all:
        return
    values = {name: getattr(retention, name) for name in retention.__struct_fields__}
    more = Retention(**{**values, kind: values[kind] + 1})
    assert set(kept(points, retention)) <= set(kept(points, more))


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_in_which_points_come_does_not_matter(order: int) -> None:
    points = daily_points(30)[::order]
    assert list(kept(points, Retention(daily=2))) == ["2026-11-25", "2026-11-26"]
