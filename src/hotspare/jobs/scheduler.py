"""From due times to runs: asks who is due, lets admission decide, and submits whom it lets in.

What is due follows from the policies and the history, who runs from the queue: so a scheduler that starts
anew knows all that the one before it knew, and nothing is kept twice.
"""

import logging
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf

import msgspec

from hotspare.errors import PlatformUnavailable
from hotspare.jobs.claims import Claims
from hotspare.jobs.movers import Movers, who_schedules
from hotspare.jobs.orders import Order, Result
from hotspare.jobs.queue import JobQueue
from hotspare.jobs.waiting import Waiting, WaitingRow
from hotspare.jobs.work import Due, Plans
from hotspare.policy.admission import Admission, Grant, Request
from hotspare.policy.limits import Resource

LOOK_SECONDS = 20.0
"""Between two looks at what is due."""
KEPT = timedelta(days=30)
"""For so long a job can be seen after its end; the history has it for good."""
_log = logging.getLogger(__name__)


class Scheduler:
    """Decides who begins, as long as this mover is the one that schedules. Belongs to one thread."""

    def __init__(
        self, mover: int, plans: Plans, movers: Movers, claims: Claims, queue: JobQueue, waiting: Waiting
    ) -> None:
        self._mover = mover
        self._plans = plans
        self._movers = movers
        self._claims = claims
        self._queue = queue
        self._waiting = waiting
        self._admission: Admission | None = None
        self._dues: dict[str, Due] = {}
        """What waits, by its id in admission."""
        self._begun: dict[str, Order] = {}
        """Runs that were submitted and have not ended, by id."""
        self._explained: dict[str, str] = {}
        self._looked_at = float("-inf")

    def tick(self, now: float) -> None:
        """Take one look around. ``now`` is in seconds since the epoch.

        Raises:
            HotspareError, SQLAlchemyError: the job database does not answer; call it again later.
        """
        if who_schedules(self._movers.all()) != self._mover:
            self.begin_anew()
            return
        if self._admission is None:
            self._admission = Admission(self._plans.limits)
            self._dues, self._begun, self._looked_at = {}, {}, float("-inf")
        admission = self._admission
        admission.limits = self._plans.limits
        self._take_in_running(admission, now)
        self._note_ended(admission)
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._look_at_due(admission, now)
            self._claims.forget(self._queue.forget_ended(datetime.fromtimestamp(now, UTC) - KEPT))
            self._looked_at = time.monotonic()
        rows = self._read_wishes(admission, now)
        for grant in admission.grants(now):
            self._submit(admission, grant, rows, now)
        self._explain(admission, rows, now)

    def begin_anew(self) -> None:
        """Forget all: after a failure, what was decided and not done would count as running for ever."""
        self._admission = None

    def _take_in_running(self, admission: Admission, now: float) -> None:
        """Count runs that others submitted: a scheduler before us, and somebody who wanted a run again."""
        self._active = {one.job: one for one in self._queue.active()}
        for one in self._active.values():
            if one.job not in self._begun:
                self._begun[one.job] = one.order
                due = None
                with suppress(PlatformUnavailable):
                    due = self._plans.asked_for(one.order, now)
                admission.resume(due.request if due else _bare_request(one.order, now))

    def _note_ended(self, admission: Admission) -> None:
        ended = {row.job: row for row in self._claims.ended_unnoted()}
        over = [job for job in self._begun if job not in self._active]
        claims = self._claims.of(over)
        living = {row.id for row in self._movers.all() if row.state == "alive"} if over else set()
        for job in over:
            order, claim = self._begun[job], claims.get(job)
            if claim is None or claim.state != "ended":
                if claim is not None and claim.mover in living:
                    continue  # it was cancelled, and its mover is about to stop
                self._plans.ended(order, Result(outcome="cancelled", error="It was cancelled"))
            admission.finish(order.request)
            del self._begun[job]
        for job, row in ended.items():
            known = self._queue.get(job)
            if known is not None and row.result is not None:
                self._plans.ended(known.order, row.result)
            self._claims.note(job)

    def _look_at_due(self, admission: Admission, now: float) -> None:
        due = {one.order.request: one for one in self._plans.due(now)}
        known = {row.order.request: row for row in self._waiting.all()}
        for request, row in known.items():
            if request not in due and not row.asked:
                self._withdraw(admission, row)
        running = {order.request for order in self._begun.values()}
        for request, one in due.items():
            if request in running or (request in known and known[request].asked):
                continue
            if request not in known:
                self._waiting.ask(one.order, asked=False)
            self._ask(admission, one, known.get(request))
        for host, ratio in self._plans.latency():
            admission.latency(host, ratio, now)

    def _read_wishes(self, admission: Admission, now: float) -> dict[str, WaitingRow]:
        rows = {}
        for row in self._waiting.all():
            request = row.order.request
            if row.dropped:
                self._withdraw(admission, row)
                self._plans.ended(row.order, Result(outcome="cancelled", error="It was cancelled"))
                continue
            rows[request] = row
            due = self._dues.get(request)
            if due is None and row.asked:
                try:
                    due = self._plans.asked_for(row.order, now)
                except PlatformUnavailable as error:
                    if row.because != error.what:
                        self._waiting.explain({row.job: error.what})
                    continue
                if due is None:
                    _log.warning("%s by %s cannot be done any more", row.order.machine, row.order.policy)
                    self._withdraw(admission, row)
                    continue
            if due is not None:
                self._ask(admission, due, row)
        return rows

    def _ask(self, admission: Admission, due: Due, row: WaitingRow | None) -> None:
        if row is not None and row.priority is not None:
            due = replace(due, request=replace(due.request, priority=row.priority))
        before = self._dues.get(due.order.request)
        if before is not None:
            due = replace(due, request=replace(due.request, asked_at=before.request.asked_at))
        self._dues[due.order.request] = due
        admission.ask(due.request)

    def _withdraw(self, admission: Admission, row: WaitingRow) -> None:
        admission.withdraw(row.order.request)
        self._dues.pop(row.order.request, None)
        self._waiting.remove(row.job)

    def _submit(self, admission: Admission, grant: Grant, rows: dict[str, WaitingRow], now: float) -> None:
        request, because = grant.request, grant.because
        row, due = rows[request.id], self._dues[request.id]
        if any(_same_machine(order, due.order) for order in self._begun.values()):
            # Another policy has it backed up now: it stays in line.
            admission.finish(request.id)
            admission.ask(request)
            return
        del self._dues[request.id]
        opened = request.openings.at(now) if due.stops_with_window else None
        stop_at = opened[1] if opened and opened[1] < inf else None
        order = msgspec.structs.replace(due.order, because=because, stop_at=stop_at)
        # In this order, as the second submission of one id does nothing.
        self._queue.submit(row.job, due.queue, order)
        self._waiting.remove(row.job)
        self._begun[row.job] = order
        self._plans.began(due)

    def _explain(self, admission: Admission, rows: dict[str, WaitingRow], now: float) -> None:
        reasons = {
            rows[request.id].job: admission.why_waiting(request.id, now)
            for request in admission.waiting
            if request.id in rows
        }
        changed = {job: why for job, why in reasons.items() if self._explained.get(job) != why}
        if changed:
            self._waiting.explain(changed)
        self._explained = reasons


def _same_machine(one: Order, other: Order) -> bool:
    return (one.platform, one.machine_id) == (other.platform, other.machine_id)


def _bare_request(order: Order, now: float) -> Request:
    """Give what is known of a run whose policy is gone."""
    host = frozenset({Resource("host", order.platform)})
    return Request(id=order.request, host=order.platform, resources=host, asked_at=now)
