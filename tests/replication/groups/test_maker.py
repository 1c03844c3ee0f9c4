"""A point of a group is of one instant: what was written after an answer is never there without the cause."""

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.groups import maker
from hotspare.replication.groups.hold import Hold, Holder
from hotspare.replication.groups.replicas import points_here
from hotspare.replication.groups.whole import half_points, whole_points
from hotspare.replication.model import Membership
from hotspare.replication.standby.replica import Replica
from tests.replication.groups.two_writers import GROUP, TwoWriters, two_writers, wait_for

pytestmark = pytest.mark.timeout(120)

POINTS = 5
QUICK = Membership(name=GROUP, interval=0.2, pause_limit=2.0, retention="all for 1h")


@pytest.fixture(autouse=True)
def _uneven(monkeypatch: pytest.MonkeyPatch) -> None:
    """The points of the members are not made at the same time, by far."""
    really = Replica.make_point
    chance = random.Random(7)

    def late(replica: Replica, point: ReplicaPoint, **how: Any) -> ReplicaPoint:
        time.sleep(chance.uniform(0, 0.1))
        return really(replica, point, **how)

    monkeypatch.setattr(Replica, "make_point", late)


def _points(both: TwoWriters) -> list[tuple[int, int]]:
    """Wait for some points, and give what they hold."""
    wait_for(lambda: both.status("standby").points >= POINTS, 60)
    found = whole_points(GROUP, points_here(both.standby))
    return [both.numbers(point.id) for point in found]


def test_what_was_written_after_an_answer_is_not_there_without_what_was_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with two_writers(monkeypatch, QUICK) as both:
        before = both.acknowledged
        found = _points(both)
        status = both.status("source")
        assert both.acknowledged > before
        assert status.problem == ""
        assert status.newest_point
        assert status.longest_pause is not None
        print(f"{len(found)} points, {both.acknowledged} writes, longest pause {status.longest_pause:.3f} s")
    assert all(first >= second >= first - 1 for first, second in found), found
    assert len(set(found)) > POINTS // 2  # it did write meanwhile


def test_without_the_pause_that_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def not_held(_holders: Mapping[str, Holder], _seconds: float) -> Iterator[Hold]:
        yield Hold()

    monkeypatch.setattr(maker, "held", not_held)
    with two_writers(monkeypatch, QUICK) as both:
        found = _points(both)
    assert not all(first >= second >= first - 1 for first, second in found)


@pytest.mark.parametrize("what", ["too slow", "mirror", "mark"])
def test_there_is_no_point_rather_than_half_a_one(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """The standby takes longer than the machines may stand still; a mirror breaks; it dies between marks."""
    place = Membership(name=GROUP, interval=0.2, pause_limit=0.05 if what == "too slow" else 2.0)
    expected = {
        "too slow": ("does not answer", "went on before"),
        "mirror": ("a mirror broke",),
        "mark": ("died",),
    }[what]
    if what == "mark":
        monkeypatch.setattr(Replica, "mark_point", _dies_at_the_second(Replica.mark_point))
    with two_writers(monkeypatch, place) as both:
        if what == "mirror":
            monkeypatch.setattr(type(both.runner(0)), "unbroken", _always_another)
        wait_for(lambda: any(words in both.status("source").problem for words in expected))
        already = whole_points(GROUP, points_here(both.standby))
        time.sleep(1)
        points = points_here(both.standby)
        before = both.acknowledged
        wait_for(lambda: both.acknowledged > before + 10)  # they are not left standing
    if what == "mark":
        assert half_points(GROUP, points)
    if what != "too slow":
        assert whole_points(GROUP, points) == already
        assert all(points.values())  # each has some, of itself alone
    for point in whole_points(GROUP, points):  # one may have been quick enough
        assert point.paused_seconds < 0.5


def test_what_a_crash_left_is_each_machines_own_and_all_let_the_same_points_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Replica, "mark_point", _dies_at_the_second(Replica.mark_point, attempts=2))
    place = Membership(name=GROUP, interval=0.2, pause_limit=2.0, retention="last 2")
    with two_writers(monkeypatch, place) as both:
        wait_for(lambda: half_points(GROUP, points_here(both.standby)))
        half = half_points(GROUP, points_here(both.standby))
        seen: set[str] = set()

        def has_gone_on() -> bool:
            seen.add(both.status("source").newest_point)
            return len(seen) > 4

        wait_for(has_gone_on, 60)
        both.source.stop_protecting(both.protections[1])  # so nothing is made any more
        wait_for(lambda: "not replicated" in both.status("source").problem)
        points = points_here(both.standby)
    assert len(whole_points(GROUP, points)) == 2
    assert half_points(GROUP, points) == set()
    assert all(half <= {point.id for point in of_one} for of_one in points.values())


def _always_another(runner: Any) -> int:
    runner.lives += 1
    return int(runner.lives)


def _dies_at_the_second(really: Any, attempts: int = 1000) -> Any:
    calls: list[object] = []

    def mark_point(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) % 2 == 0 and len(calls) <= 2 * attempts:
            raise RuntimeError("died")
        really(*arguments)

    return mark_point
