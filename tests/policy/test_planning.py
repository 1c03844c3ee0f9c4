"""From policies to requests: when one is due, with which deadline, and within which hours."""

from datetime import UTC, datetime, timedelta
from math import inf
from zoneinfo import ZoneInfo

import pytest

from hotspare.policy.limits import resources
from hotspare.policy.low_peak import LowPeak
from hotspare.policy.planning import Standing, due_since, never_ran_since, request_for, timetable
from hotspare.policy.policy import Policy, Schedule
from hotspare.policy.selection import KnownMachine, Selection
from hotspare.policy.throughput import PastRun, estimate
from hotspare.policy.window import parse_window

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 5, 4, 12, tzinfo=BERLIN)
"""A Monday."""
WEB = KnownMachine("uuid", "web", "qemu:///system", ("prod",))


def scheduled(**schedule: object) -> Policy:
    return Policy(name="nightly", schedule=Schedule(time_zone="Europe/Berlin", **schedule))  # type: ignore[arg-type]


NIGHTLY = scheduled(when=("22:00",), windows=("21:00-06:00",), rpo="26h")


def test_it_is_due_once_however_often_it_was_missed() -> None:
    yesterday = NOW.replace(day=3, hour=22)
    assert due_since(NIGHTLY, NOW - timedelta(days=9), NOW) == NOW.replace(month=4, day=25, hour=22)
    assert due_since(NIGHTLY, yesterday - timedelta(minutes=1), NOW) == yesterday
    assert due_since(NIGHTLY, yesterday, NOW) is None
    assert due_since(NIGHTLY, NOW, NOW.replace(hour=22)) == NOW.replace(hour=22)


def test_a_clock_that_was_wrong_keeps_nobody_from_a_backup() -> None:
    future = NOW + timedelta(days=900)
    assert due_since(NIGHTLY, future, NOW) is not None
    request = request_for(NIGHTLY, Standing(WEB, future), resources(host="h"), None, NOW)
    assert request.deadline == (NOW + timedelta(hours=26)).timestamp()


def test_without_a_calendar_the_rpo_says_when() -> None:
    policy = Policy(name="rpo", schedule=Schedule(rpo="10h"))
    assert due_since(policy, NOW - timedelta(hours=5, minutes=59), NOW) is None
    assert due_since(policy, NOW - timedelta(hours=7), NOW) == NOW - timedelta(hours=1)
    # A machine that it has never backed up is due at once; by a calendar it waits for its time.
    assert due_since(policy, never_ran_since(policy, NOW), NOW) is not None
    assert due_since(NIGHTLY, never_ran_since(NIGHTLY, NOW), NOW) is None
    assert not Policy(name="off", enabled=False, schedule=Schedule(rpo="1h")).runs_by_itself


def test_a_clock_that_is_set_back_a_little_makes_nothing_due_twice() -> None:
    ran = NOW.replace(hour=22, minute=5)
    for minutes in range(0, 120, 5):
        assert due_since(NIGHTLY, ran, ran - timedelta(minutes=minutes)) is None
    assert due_since(NIGHTLY, ran, NOW.replace(day=5, hour=22)) == NOW.replace(day=5, hour=22)


def test_a_policy_that_is_not_enabled_or_by_hand_is_never_due() -> None:
    disabled = Policy(name="off", enabled=False, schedule=Schedule(when=("hourly",)))
    assert due_since(disabled, NOW - timedelta(days=9), NOW) is None
    assert due_since(Policy(name="hand"), NOW - timedelta(days=9), NOW) is None


def test_a_request_carries_promise_speed_and_hours() -> None:
    standing = Standing(WEB, NOW - timedelta(hours=20), [PastRun(600 * 2**20, 60.0)] * 3)
    request = request_for(NIGHTLY, standing, resources(host="h", repository="r"), None, NOW)
    assert request.id == "nightly/qemu:///system/uuid"
    assert request.deadline == (NOW + timedelta(hours=6)).timestamp()
    assert (request.rate, request.expected) == (10 * 2**20, 75.0)
    assert request.openings.at(NOW.timestamp()) is None
    tonight = (NOW.replace(hour=21).timestamp(), NOW.replace(day=5, hour=6).timestamp())
    assert request.openings.at(NOW.replace(hour=23).timestamp()) == tonight


def test_without_a_point_it_is_urgent_and_without_a_promise_never() -> None:
    assert request_for(NIGHTLY, Standing(WEB, None), resources(host="h"), None, NOW).deadline == -inf
    assert request_for(scheduled(), Standing(WEB, None), resources(host="h"), None, NOW).deadline == inf


@pytest.mark.parametrize(
    ("low_peak", "learnt", "opens"),
    [
        ("use", "01:00-04:00", 1),
        ("use", "10:00-14:00", 21),  # nothing in common with the windows: those alone
        ("propose", "01:00-04:00", 21),
    ],
)
def test_low_peak_hours_are_used_within_windows(low_peak: str, learnt: str, opens: int) -> None:
    policy = scheduled(when=("20:00",), windows=("21:00-06:00",), low_peak=low_peak)
    planned = timetable(policy, LowPeak((parse_window(learnt),), "", {}), NOW, 1)
    assert planned[0].opens is not None
    assert planned[0].opens.astimezone(BERLIN).hour == opens


def test_the_timetable_shows_when_runs_begin_and_windows_close() -> None:
    first, second = timetable(NIGHTLY, None, NOW, 2)
    assert (first.due, first.opens, first.closes) == (
        NOW.replace(hour=22),
        NOW.replace(hour=22),
        NOW.replace(day=5, hour=6),
    )
    assert second.due == NOW.replace(day=5, hour=22)
    never = scheduled(when=("22:00",), blackouts=("2026-01-01..2029-01-01",))
    assert timetable(never, None, NOW, 1)[0].opens is None
    always = timetable(scheduled(when=("22:00",)), None, NOW, 1)[0]
    assert (always.opens, always.closes) == (always.due, None)
    rare = scheduled(when=("*-05-05 12:00",), windows=("Sun 00:00-01:00",))
    opens = timetable(rare, None, NOW, 1)[0].opens
    assert opens is not None
    assert opens.astimezone(UTC) == datetime(2026, 5, 9, 22, tzinfo=UTC)


def test_estimates_are_medians_of_the_newest_runs() -> None:
    runs = [PastRun(100, 10.0), PastRun(100, 1000.0), PastRun(100, 10.0)]
    assert (estimate(runs).rate, estimate(runs).seconds) == (10.0, 12.5)
    assert estimate([PastRun(1, 1.0)] * 7 + [PastRun(10**9, 1.0)] * 99).rate == 1.0
    assert estimate([PastRun(5, 0.0)]).rate == 0.0


@pytest.mark.parametrize(
    ("selection", "obstacle", "reason"),
    [
        (Selection(), None, "the whole host"),
        (Selection(names=("w*",), tags=("prod", "x")), None, "name fits w*, tag prod"),
        (Selection(names=("db*",)), "no pattern fits its name", None),
        (Selection(names=("w*",), exclude=("*b",)), "excluded by *b", None),
        (Selection(tags=("test",)), "it has none of the tags", None),
    ],
)
def test_a_selection_says_why(selection: Selection, obstacle: str | None, reason: str | None) -> None:
    assert selection.obstacle(WEB.name, WEB.tags) == obstacle
    if reason:
        assert selection.reason(WEB.name, WEB.tags) == reason
