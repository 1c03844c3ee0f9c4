"""What a mover does with a run, with the real queue on SQLite; the work itself is scripted."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from hotspare.backup.claim import Claim
from hotspare.cancellation import Cancellation
from hotspare.errors import Interrupted, RunExpelled
from hotspare.events import DiskStarted, Listener, Progress
from hotspare.jobs import mover as module
from hotspare.jobs.book import JobBook
from hotspare.jobs.claims import Claims
from hotspare.jobs.database import checked_url, open_database
from hotspare.jobs.mover import ATTEMPTS_MAX, Mover
from hotspare.jobs.movers import Movers
from hotspare.jobs.orders import Job, Order, Result
from hotspare.jobs.queue import JobQueue
from tests.jobs.daemon import wait_for


class ScriptedWork:
    """A backup that a test holds in its hand."""

    def __init__(self) -> None:
        self.released = False
        self.begun = 0
        self.point_of_session: str | None = None
        self.asked_about: list[str] = []

    def back_up(self, order: Order, claim: Claim, listener: Listener, cancellation: Cancellation) -> Result:
        self.begun += 1
        try:
            claim.begun(f"w-{self.begun}")
        except Interrupted:
            return Result(outcome="interrupted")
        listener(DiskStarted(order.machine, "vda", 100, 80, "full"))
        listener(Progress(order.machine, "vda", 40, 40))
        while not self.released:
            if cancellation.requested:
                return Result(outcome="interrupted")
            time.sleep(0.02)
        try:
            claim.before_commit()
        except RunExpelled as error:
            return Result(outcome="failed", error_code=error.code)
        return Result(outcome="ok", point=f"point {self.begun}")

    def settle(self, order: Order, session: str) -> str | None:
        self.asked_about.append(session)
        return self.point_of_session


class Bench:
    """A mover on a job database, and what submits to it."""

    def __init__(self, url: str, work: ScriptedWork | None = None) -> None:
        self.url = checked_url(url)
        self.engine: sa.Engine = open_database(self.url)
        self.work = work or ScriptedWork()
        self.given_up: list[bool] = []
        self.mover = Mover(self.engine, self.url, self.work, lambda: self.given_up.append(True))
        start(self.mover, self.engine)
        self.queue = JobQueue(self.url)

    def close(self) -> None:
        """Stop the mover, and let go of the database."""
        self.mover.stop()
        self.queue.close()
        self.engine.dispose()

    def submit(self, job: str, **more: float) -> None:
        order = Order(policy="nightly", platform="p", machine_id=job, machine=job, **more)  # type: ignore[arg-type]
        self.queue.submit(job, "here", order)

    def wait(self, job: str, holds: Callable[[Job], bool]) -> Job:
        with JobBook(self.url) as book:
            wait_for(lambda: holds(book.get(job)), lambda: str(book.get(job)))
            return book.get(job)

    def died(self, job: str, attempts: int, *, committing: bool) -> None:
        """Leave what movers that died leave."""
        movers, claims = Movers(self.engine), Claims(self.engine)
        for _ in range(attempts):
            dead = movers.join("dead", ["here"], schedules=False)
            claim, _ = claims.take(job, dead)
            claim.begun("w-dead")
            if committing:
                claim.before_commit()
            movers.give_up(dead)


def start(mover: Mover, engine: sa.Engine) -> None:
    """Have a mover join and begin."""
    mover.start(Movers(engine).join("test", ["here"], schedules=False), ["here"], 4)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.2)
    made = Bench(f"sqlite:///{tmp_path}/jobs.sqlite")
    yield made
    made.close()


def test_runs_are_seen_cancelled_and_stopped_with_their_window(bench: Bench) -> None:
    for job in ("done", "unwanted"):
        bench.submit(job)
    bench.submit("late", stop_at=time.time() + 1)
    seen = bench.wait("done", lambda job: bool(job.progress and job.progress.bytes_processed))
    assert seen.progress is not None
    assert (seen.state, seen.progress.bytes_total, seen.progress.bytes_processed) == ("running", 80, 40)

    with JobBook(bench.url) as book:
        bench.wait("unwanted", lambda job: job.state == "running")
        book.cancel("unwanted")
    wait_for(lambda: bench.mover.busy < 3)
    assert bench.wait("unwanted", lambda job: job.result is not None).state == "cancelled"

    late = bench.wait("late", lambda job: job.state == "interrupted")
    assert late.result is not None
    assert "window closed" in str(late.result.error)

    bench.work.released = True
    done = bench.wait("done", lambda job: job.state == "ok")
    now = datetime.now(UTC)
    assert bench.queue.forget_ended(now - timedelta(hours=1)) == []
    assert sorted(bench.queue.forget_ended(now + timedelta(hours=1))) == ["done", "late", "unwanted"]
    assert bench.queue.newest(10) == []
    assert (done.attempt, done.result and done.result.point is not None) == (1, True)


def test_what_dead_movers_left_is_settled_before_it_is_done_again(bench: Bench) -> None:
    bench.work.released = True
    bench.died("transferring", 1, committing=False)
    bench.submit("transferring")
    assert bench.wait("transferring", lambda job: job.state == "ok").attempt == 2
    assert bench.work.asked_about == []

    bench.died("committing", 1, committing=True)
    bench.submit("committing")
    again = bench.wait("committing", lambda job: job.state == "ok")
    assert bench.work.asked_about == ["w-dead"]
    assert again.result is not None
    assert again.result.point == "point 2"

    bench.work.point_of_session = "the dead one's"
    bench.died("committed", 1, committing=True)
    bench.submit("committed")
    known = bench.wait("committed", lambda job: job.state == "ok")
    assert known.result is not None
    assert (known.result.point, bench.work.begun) == ("the dead one's", 2)

    bench.died("deadly", ATTEMPTS_MAX, committing=False)
    bench.submit("deadly")
    deadly = bench.wait("deadly", lambda job: job.state == "failed")
    assert deadly.result is not None
    assert deadly.result.error_code == "movers-died"


def test_a_mover_that_is_stopped_leaves_its_run_to_the_next(bench: Bench) -> None:
    bench.submit("job")
    bench.wait("job", lambda job: job.state == "running" and job.attempt == 1)
    bench.mover.stop()
    bench.work.released = True
    bench.mover = Mover(bench.engine, bench.url, bench.work)
    start(bench.mover, bench.engine)
    done = bench.wait("job", lambda job: job.state == "ok")
    assert (done.attempt, bench.work.begun) == (2, 2)


def test_a_mover_that_was_given_up_stops_and_leaves_its_run_to_others(bench: Bench) -> None:
    bench.submit("job")
    bench.wait("job", lambda job: job.state == "running" and job.attempt == 1)
    Movers(bench.engine).give_up(bench.mover.id)
    wait_for(lambda: bool(bench.given_up))
    wait_for(lambda: bench.mover.busy == 0)
    # Nothing was recorded: it can be taken over, and is what it was.
    assert bench.queue.take_over([bench.mover.id]) == ["job"]
    assert bench.wait("job", lambda job: job.state == "queued").result is None
