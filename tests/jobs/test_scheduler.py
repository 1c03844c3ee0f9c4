"""Who is let in, and what is known again after a restart; the queue and the plans are scripted."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from hotspare.errors import HotspareError, PlatformUnavailable
from hotspare.jobs import scheduler as module
from hotspare.jobs.claims import Claims
from hotspare.jobs.database import open_database
from hotspare.jobs.movers import Movers
from hotspare.jobs.orders import Order, Result
from hotspare.jobs.queue import QueuedJob
from hotspare.jobs.scheduler import Scheduler
from hotspare.jobs.waiting import Waiting
from hotspare.jobs.work import Due
from hotspare.policy.admission import Request
from hotspare.policy.limits import Limits, resources
from hotspare.policy.openings import Openings

NOW = 1_800_000_000.0


def order_of(machine: str, policy: str = "nightly") -> Order:
    return Order(policy=policy, platform="images:///x", machine_id=f"id of {machine}", machine=machine)


def due_of(machine: str, policy: str = "nightly") -> Due:
    order = order_of(machine, policy)
    taken = resources(host=order.platform)
    return Due(order, Request(id=order.request, host=order.platform, resources=taken, asked_at=NOW), "here")


class ScriptedQueue:
    """A queue in memory: ``active`` is what has not ended."""

    def __init__(self) -> None:
        self.submitted: dict[str, Order] = {}
        self.over: set[str] = set()
        self.broken = False

    def submit(self, job: str, queue: str, order: Order) -> None:
        if self.broken:
            raise HotspareError("the database is away")
        self.submitted[job] = order

    def active(self) -> list[QueuedJob]:
        return [one for job in self.submitted if job not in self.over and (one := self.get(job))]

    def forget_ended(self, before: datetime) -> list[str]:
        return []

    def get(self, job: str) -> QueuedJob | None:
        return QueuedJob(job, self.submitted[job], "here", "PENDING", None, NOW, None, None)


class ScriptedPlans:
    """Policies of which a test says who is due."""

    def __init__(self) -> None:
        self.limits = Limits(host=2)
        self.now_due: list[Due] = []
        self.told: list[tuple[str, str]] = []
        self.silent = False

    def due(self, now: float) -> Sequence[Due]:
        return self.now_due

    def asked_for(self, order: Order, now: float) -> Due | None:
        if self.silent:
            raise PlatformUnavailable("host2 does not answer")
        return due_of(order.machine, order.policy) if order.policy == "nightly" else None

    def latency(self) -> Sequence[tuple[str, float]]:
        return []

    def began(self, due: Due) -> None:
        self.told.append((due.order.machine, "began"))

    def ended(self, order: Order, result: Result) -> None:
        self.told.append((order.machine, result.outcome))


class Bench:
    """A scheduler and its surroundings."""

    def __init__(self, engine: sa.Engine) -> None:
        self.movers, self.claims, self.waiting = Movers(engine), Claims(engine), Waiting(engine)
        self.mover = self.movers.join("a", ["here"], schedules=True)
        self.queue, self.plans = ScriptedQueue(), ScriptedPlans()
        self.restart()

    def restart(self) -> None:
        self.scheduler = Scheduler(
            self.mover,
            self.plans,
            self.movers,
            self.claims,
            self.queue,  # type: ignore[arg-type]
            self.waiting,
        )

    def tick(self, now: float = NOW) -> list[str]:
        self.scheduler.tick(now)
        return [order.machine for job, order in self.queue.submitted.items() if job not in self.queue.over]

    def end(self, machine: str, result: Result) -> None:
        (job,) = [job for job, order in self.queue.submitted.items() if order.machine == machine]
        claim, _ = self.claims.take(job, self.mover)
        claim.end(result)
        self.queue.over.add(job)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    engine = open_database(f"sqlite:///{tmp_path}/jobs.sqlite")
    yield Bench(engine)
    engine.dispose()


def test_no_more_begin_than_the_limits_let_in(bench: Bench) -> None:
    bench.plans.now_due = [due_of(name) for name in ("a", "b", "c")]
    assert len(bench.tick()) == 2
    (left,) = bench.waiting.all()
    bench.tick()
    assert "has 2 of 2 runs" in bench.waiting.all()[0].because
    first = next(iter(bench.queue.submitted.values())).machine
    bench.plans.now_due = []
    bench.end(first, Result(outcome="ok", point="p"))
    bench.tick()
    assert bench.plans.told[-1] == (first, "ok")
    assert left.order.machine not in bench.tick()  # it is not due any more, so it does not wait either
    assert bench.waiting.all() == []


def test_a_new_scheduler_counts_what_runs_and_submits_nothing_twice(bench: Bench) -> None:
    bench.plans.now_due = [due_of(name) for name in ("a", "b", "c")]
    before = bench.tick()
    bench.restart()
    assert bench.tick() == before
    assert len(bench.waiting.all()) == 1


def test_what_could_not_be_submitted_is_not_counted_as_running(bench: Bench) -> None:
    bench.plans.now_due = [due_of("a"), due_of("b")]
    bench.queue.broken = True
    with pytest.raises(HotspareError):
        bench.tick()
    bench.scheduler.begin_anew()
    bench.queue.broken = False
    assert sorted(bench.tick()) == ["a", "b"]


def test_one_machine_is_never_backed_up_by_two_policies_at_once(bench: Bench) -> None:
    bench.plans.now_due = [due_of("a"), due_of("a", "weekly")]
    assert bench.tick() == ["a"]
    assert bench.tick() == ["a"]
    begun = next(iter(bench.queue.submitted.values()))
    bench.plans.now_due = [one for one in bench.plans.now_due if one.order.policy != begun.policy]
    bench.end("a", Result(outcome="ok"))
    assert bench.tick() == ["a"]
    assert len(bench.queue.submitted) == 2


def test_it_is_told_when_its_window_closes(bench: Bench) -> None:
    due = due_of("a")
    opened = Openings((NOW - 10,), (NOW + 100,))
    bench.plans.now_due = [
        replace(due, request=replace(due.request, openings=opened), stops_with_window=True)
    ]
    bench.tick()
    assert next(iter(bench.queue.submitted.values())).stop_at == NOW + 100


def test_outside_of_its_window_nothing_begins(bench: Bench) -> None:
    due = due_of("a")
    opened = Openings((NOW + 50,), (NOW + 100,))
    bench.plans.now_due = [replace(due, request=replace(due.request, openings=opened))]
    assert bench.tick() == []
    assert bench.tick(NOW - 3600) == []  # a clock that was set back
    assert bench.tick(NOW + 60) == ["a"]


def test_what_somebody_asks_for_begins_though_it_is_not_due(bench: Bench) -> None:
    bench.waiting.ask(order_of("a"))
    assert bench.tick() == ["a"]
    bench.waiting.ask(order_of("b", "gone"))
    assert bench.tick() == ["a"]
    assert bench.waiting.all() == []


def test_what_somebody_asks_for_waits_for_a_platform_that_does_not_answer(bench: Bench) -> None:
    bench.plans.silent = True
    bench.waiting.ask(order_of("a"))
    assert bench.tick() == []
    assert [row.because for row in bench.waiting.all()] == ["host2 does not answer"]
    bench.plans.silent = False
    assert bench.tick() == ["a"]


def test_what_waits_can_be_dropped_and_put_first(bench: Bench) -> None:
    bench.plans.limits = Limits(host=0)
    bench.plans.now_due = [due_of(name) for name in ("a", "b", "c")]
    assert bench.tick() == []
    jobs = {row.order.machine: row.job for row in bench.waiting.all()}
    assert bench.waiting.change(jobs["c"], priority=50)
    assert bench.waiting.change(jobs["a"], dropped=True)
    bench.plans.limits = Limits(host=1)
    assert bench.tick() == ["c"]
    assert ("a", "cancelled") in bench.plans.told
    assert not bench.waiting.change(jobs["a"], priority=1)


def test_a_run_that_was_cancelled_before_any_mover_had_it_is_told(bench: Bench) -> None:
    bench.plans.now_due = [due_of("a")]
    bench.tick()
    bench.queue.over.update(bench.queue.submitted)
    bench.plans.now_due = []
    assert bench.tick() == []
    assert bench.plans.told[-1] == ("a", "cancelled")


def test_an_end_that_the_queue_tells_later_than_the_claim_is_no_cancelling(bench: Bench) -> None:
    bench.plans.now_due = [due_of("a")]
    bench.tick()
    bench.plans.now_due = []
    bench.end("a", Result(outcome="ok"))
    bench.queue.over.clear()
    bench.tick()
    bench.queue.over.update(bench.queue.submitted)
    bench.tick()
    assert bench.plans.told == [("a", "began"), ("a", "ok")]


def test_a_run_that_is_being_cancelled_counts_until_its_mover_has_stopped_it(bench: Bench) -> None:
    bench.plans.now_due = [due_of("a")]
    bench.tick()
    bench.plans.now_due = []
    (job,) = bench.queue.submitted
    claim, _ = bench.claims.take(job, bench.mover)
    bench.queue.over.add(job)
    bench.tick()
    assert bench.plans.told == [("a", "began")]
    claim.end(Result(outcome="cancelled"))
    bench.tick()
    bench.tick()
    assert bench.plans.told == [("a", "began"), ("a", "cancelled")]


def test_a_second_server_leaves_it_to_the_first_until_that_is_given_up(bench: Bench) -> None:
    second = Bench.__new__(Bench)
    second.__dict__.update(bench.__dict__)
    second.mover = bench.movers.join("b", ["here"], schedules=True)
    second.restart()
    bench.plans.now_due = [due_of("a")]
    assert second.tick() == []
    bench.movers.give_up(bench.mover)
    assert second.tick() == ["a"]
