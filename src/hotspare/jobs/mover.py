"""A mover: carries runs out, shows that it lives, stops what is to be stopped, takes over from the dead."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from hotspare.cancellation import Cancellation
from hotspare.documents.progress import ProgressWatch
from hotspare.errors import HotspareError, RunExpelled
from hotspare.jobs import worker
from hotspare.jobs.claims import ClaimRow, Claims, JobClaim
from hotspare.jobs.database import is_outage
from hotspare.jobs.movers import BEAT_SECONDS, Movers, Watch, known_dead
from hotspare.jobs.orders import Order, Result
from hotspare.jobs.queue import JobQueue
from hotspare.jobs.work import Work
from hotspare.repository.liveness import is_known_dead

ATTEMPTS_MAX = 5
"""A run that so many movers died of is not begun again."""
_Reason = Literal["cancelled", "window", "stopping", "given up"]
_Given = TypeVar("_Given")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    """A run that goes on here."""

    order: Order
    claim: JobClaim
    cancellation: Cancellation
    stopped_for: _Reason | None = None
    watch: ProgressWatch = field(default_factory=ProgressWatch)
    """Keeps what events say of how far it is."""

    def stop(self, reason: _Reason) -> None:
        """Have it end at its next safe moment."""
        self.stopped_for = self.stopped_for or reason
        self.cancellation.cancel()


class Mover:
    """One process that carries runs out. ``on_given_up`` is called when others believe that it is dead."""

    def __init__(
        self, engine: sa.Engine, url: str, work: Work, on_given_up: Callable[[], None] = lambda: None
    ) -> None:
        self._engine = engine
        self._url = url
        self._work = work
        self._on_given_up = on_given_up
        self._movers = Movers(engine)
        self._claims = Claims(engine)
        self._running: dict[str, _Running] = {}
        self._watch = Watch()
        self._stopping = threading.Event()
        self._heart = threading.Thread(target=self._beat_until_stopped, name="heartbeat", daemon=True)
        self.id = 0

    def start(self, number: int, queues: Sequence[str], slots: int) -> None:
        """Begin to take runs, and take over what dead movers of this host have left.

        Args:
            number: what ``Movers.join`` gave this process.
            queues: names of the hosts whose runs it takes.
            slots: how many runs of each go on at once here.
        """
        self.id = number
        worker.launch(self._url, self.id, queues, slots, self._carry_out)
        self._queue = JobQueue(self._url)
        self._give_up(known_dead(self._movers.all()))
        self._take_over()
        self._heart.start()

    def stop(self) -> None:
        """Stop what goes on at its next safe moment; other movers, or we after a restart, finish it."""
        self._stopping.set()
        self._heart.join()
        for running in list(self._running.values()):
            running.stop("stopping")
        worker.shut_down()
        while self._running:
            time.sleep(0.05)
        with suppress(sa.exc.SQLAlchemyError):  # then it is found out: our process is dead, or silent
            self._movers.give_up(self.id)
        self._queue.close()

    @property
    def busy(self) -> int:
        """How many runs go on here."""
        return len(self._running)

    # What DBOS calls, each run in a thread of its own.

    def _carry_out(self, job: str, order: Order) -> Result:
        cancellation = Cancellation()
        try:
            claim, before = self._patiently(lambda: self._claims.take(job, self.id, cancellation))
        except RunExpelled as error:
            raise worker.GivenUp from error
        if before is not None and (known := self._known_result(order, claim, before)):
            return known
        running = _Running(order, claim, cancellation)
        self._running[job] = running
        try:
            if self._stopping.is_set():
                running.stop("stopping")
            result = self._work.back_up(order, claim, running.watch, running.cancellation)
            result = self._judged(running, result)
            self._end(claim, result)
        finally:
            del self._running[job]
        return result

    def _known_result(self, order: Order, claim: JobClaim, before: ClaimRow) -> Result | None:
        """Give what an earlier attempt came to, when it did; None when the run has to be done."""
        if before.state == "ended":
            return before.result
        if before.state == "committing" and before.session:
            try:
                point = self._work.settle(order, before.session)
            except HotspareError as error:
                return self._ended(claim, Result(outcome="failed", error_code=error.code, error=error.what))
            if point is not None:
                return self._ended(claim, Result(outcome="ok", point=point, finished_at=time.time()))
            self._patiently(claim.settled)
        if before.attempt >= ATTEMPTS_MAX:
            what = f"{before.attempt} movers died while they backed {order.machine} up"
            return self._ended(claim, Result(outcome="failed", error_code="movers-died", error=what))
        return None

    def _judged(self, running: _Running, result: Result) -> Result:
        if result.outcome != "interrupted":
            return result
        if running.stopped_for in {"stopping", "given up"}:
            raise worker.GivenUp
        if running.stopped_for == "cancelled":
            return msgspec.structs.replace(result, outcome="cancelled", error="It was cancelled")
        return msgspec.structs.replace(
            result, error="Its window closed before it was through; what it stored is used by the next run"
        )

    def _ended(self, claim: JobClaim, result: Result) -> Result:
        self._end(claim, result)
        return result

    def _end(self, claim: JobClaim, result: Result) -> None:
        try:
            self._patiently(lambda: claim.end(result))
        except RunExpelled as error:
            raise worker.GivenUp from error

    def _patiently(self, ask: Callable[[], _Given]) -> _Given:
        """Ask the database until it answers; who stops meanwhile leaves the run to others."""
        while True:
            try:
                return ask()
            except SQLAlchemyError as error:
                if not is_outage(error):
                    raise
                _log.warning("The job database does not answer: %s", error)
                if self._stopping.wait(1):
                    raise worker.GivenUp from error

    # The heartbeat.

    def _beat_until_stopped(self) -> None:
        while not self._stopping.wait(BEAT_SECONDS):
            try:
                if not self._movers.beat(self.id):
                    self._leave()
                    return
                self._look_at_runs()
                self._look_at_others()
            except Exception as error:  # noqa: BLE001 - a heart that stops kills a mover that lives
                # Who cannot see others must not take them for dead.
                self._watch.forget()
                _log.warning("A heartbeat was left out: %s", error)

    def _leave(self) -> None:
        _log.error("Other movers have given this one up, and finish what it had begun")
        for running in list(self._running.values()):
            running.stop("given up")
        self._on_given_up()

    def _look_at_runs(self) -> None:
        running = dict(self._running)
        states = self._queue.states(list(running))
        for job, one in running.items():
            if states.get(job) == "CANCELLED":
                one.stop("cancelled")
            elif one.order.stop_at is not None and time.time() >= one.order.stop_at:
                one.stop("window")
            one.claim.report(one.watch.progress)

    def _look_at_others(self) -> None:
        others = [row for row in self._movers.all() if row.id != self.id]
        beats = {row.id: row.beats for row in others if row.state == "alive"}
        self._give_up({*self._watch.silent(beats, time.monotonic()), *known_dead(others)})
        self._take_over()

    def _give_up(self, dead: Iterable[int]) -> None:
        for mover in dead:
            _log.warning("Mover %d is dead or silent: what it was doing is taken over", mover)
            self._movers.give_up(mover)

    def _take_over(self) -> None:
        given_up = [row for row in self._movers.all() if row.state == "given up" and row.id != self.id]
        for job in self._queue.take_over([row.id for row in given_up]):
            _log.warning("Run %s is taken over", job)
        for row in given_up:
            # One that may live can still take a run out of the queue, so it is looked at again and again.
            if is_known_dead(row.life):
                self._movers.gone(row.id)
