"""Who is due, as policies, platforms and catalog of the server say; and what follows the end of a run."""

import logging
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from hotspare.catalog.rows import Ended, RunRow
from hotspare.cli.history import History
from hotspare.cli.known_hosts import KnownHosts
from hotspare.cli.load import latency_ratio
from hotspare.cli.logs import about_run
from hotspare.cli.options import Options
from hotspare.cli.output import local_time, warn
from hotspare.cli.policy_due import DueMachine, missed_times, request_of, those_due, upload_share
from hotspare.cli.policy_forget import forget_points
from hotspare.cli.server_work import own_catalog, policy_of, tags_of
from hotspare.cli.session import Session
from hotspare.cli.telling import EndedBackup, tell_backup, tell_missed
from hotspare.errors import HotspareError, PlatformUnavailable, StorageError
from hotspare.fleet.fleet import Chosen, Fleet
from hotspare.fleet.verdicts import judge
from hotspare.jobs.orders import Order, Result
from hotspare.jobs.work import Due
from hotspare.policy.admission import Request
from hotspare.policy.limits import Limits
from hotspare.policy.openings import ALWAYS
from hotspare.policy.policy import Policy

_LATENCY_SECONDS = 60.0
"""Between two looks at the latency of hosts where something waits: each takes some seconds."""
_log = logging.getLogger(__name__)


class ServerPlans:
    """Fulfils ``jobs.work.Plans``; belongs to the thread of the scheduler."""

    def __init__(self, options: Options, hosts: KnownHosts) -> None:
        self._options = options
        self._hosts = hosts
        self._session: Session | None = None
        self._fleet: Fleet | None = None
        self._said: set[str] = set()
        self._platforms_due: set[str] = set()
        self._latency_at = float("-inf")
        self._limits = Limits()

    def close(self) -> None:
        """Let go of platforms and repositories; the next call opens them again."""
        if self._session is not None:
            self._session.__exit__(None, None, None)
        self._session = self._fleet = None

    @property
    def limits(self) -> Limits:
        """See ``Plans``; those of before while the file cannot be read."""
        with self._only_said("The limits stay as they were"):
            self._limits = self._opened().session.policies().limits()
        return self._limits

    def due(self, now: float) -> Sequence[Due]:
        """See ``Plans``."""
        self._said.clear()
        found: list[Due] = []
        moment = datetime.fromtimestamp(now, UTC)
        names: list[str] = []
        with self._only_said("No policy is looked at"):
            fleet = self._opened()
            fleet.look_again()
            names = fleet.session.policies().names()
        for name in names:
            with self._only_said(f"Policy {name} is left out for now"):
                policy = self._opened().session.policies().get(name)
                if policy.runs_by_itself:
                    found += self._due_by(policy, moment)
        self._platforms_due = {one.order.platform for one in found}
        return found

    def asked_for(self, order: Order, now: float) -> Due | None:
        """See ``Plans``."""
        moment = datetime.fromtimestamp(now, UTC)
        silent: PlatformUnavailable | None = None
        with self._only_said(f"{order.machine} cannot be backed up by {order.policy}"):
            fleet = self._opened()
            policy = fleet.session.policies().get(order.policy)
            try:
                machine = fleet.machine(order.platform, order.machine_id)
            except PlatformUnavailable as error:
                self._say(f"{order.machine} waits for its platform", error)
                silent = error
            else:
                chosen = Chosen(machine, "somebody asked for it")
                request = request_of(fleet, policy, chosen, self._limits, _host(), moment)
                return self._due(policy, chosen, replace(request, openings=ALWAYS))
        if silent is not None:
            raise silent
        return None

    def latency(self) -> Sequence[tuple[str, float]]:
        """See ``Plans``."""
        if time.monotonic() - self._latency_at < _LATENCY_SECONDS:
            return []
        self._latency_at = time.monotonic()
        found = []
        for uri in self._platforms_due:
            with self._only_said(f"The latency of {uri} is not known"):
                ratio = latency_ratio(self._opened(), uri)
                if ratio is not None:
                    found.append((uri, ratio))
        return found

    def began(self, due: Due) -> None:
        """See ``Plans``."""
        about = about_run(due.order.machine, due.order.policy)
        _log.info("backup of %s by %s may begin", due.order.machine, due.order.policy, extra=about)
        if due.missed:
            now = time.time()
            missed = Result(outcome="failed", error_code="missed", error=due.missed, started_at=now)
            with self._only_said("What was missed is not in the history"):
                self._record(due.order, missed, "missed")

    def ended(self, order: Order, result: Result) -> None:
        """See ``Plans``."""
        with self._only_said(f"The end of a run of {order.machine} is not in the history"):
            if result.outcome == "cancelled" or result.catalog != own_catalog(self._opened().session):
                self._record(order, result, result.outcome)
        if result.outcome == "ok":
            with self._only_said(f"Retention of {order.machine} by {order.policy} was left out"):
                self._retain(order)

    def _due_by(self, policy: Policy, now: datetime) -> list[Due]:
        fleet = self._opened()
        silent: dict[str, HotspareError] = {}
        chosen = fleet.machines_of(policy, silent)
        for uri, error in silent.items():
            self._say(f"Machines of {uri} are left out for now", error)
        found = []
        for machine in those_due(fleet, policy, chosen, now):
            request = request_of(fleet, policy, machine.chosen, self._limits, _host(), now)
            due = self._due(policy, machine.chosen, request)
            found.append(replace(due, missed=_missed_words(policy, machine, now)))
        return found

    def _due(self, policy: Policy, chosen: Chosen, request: Request) -> Due:
        fleet = self._opened()
        machine = chosen.machine
        # Another mover may have another repository in its settings.
        policy = msgspec.structs.replace(policy, repository=fleet.repository_url(policy) or "")
        order = Order(
            policy=policy.name,
            platform=machine.platform,
            machine_id=machine.id,
            machine=machine.name,
            definition=msgspec.to_builtins(policy),
            upload_limit=upload_share(self._limits, request.resources),
        )
        return Due(order, request, _host(), stops_with_window=policy.schedule.stop_at_window_end)

    def _record(self, order: Order, result: Result, outcome: Ended) -> None:
        """Have the history know, and the log, what this process did not do itself."""
        level = logging.ERROR if outcome == "failed" else logging.INFO
        words = f"{outcome}. {result.error}" if result.error else outcome
        _log.log(
            level, "backup of %s: %s", order.machine, words, extra=about_run(order.machine, order.policy)
        )
        started = result.started_at or time.time()
        run = RunRow(
            id=0,
            kind="backup",
            machine=order.machine,
            platform=order.platform,
            repository=policy_of(order).repository if order.definition else "",
            started_at=datetime.fromtimestamp(started, UTC),
            finished_at=datetime.fromtimestamp(result.finished_at or started, UTC),
            outcome=outcome,
            error_code=result.error_code,
            error=result.error,
            point=result.point,
            bytes_read=result.bytes_read,
            bytes_stored=result.bytes_stored,
            held_back_seconds=None,
            latency_factor=None,
            policy=order.policy,
            warnings=result.warnings,
            seconds_reading=result.stages.reading if result.stages else None,
            seconds_processing=result.stages.processing if result.stages else None,
            seconds_storing=result.stages.storing if result.stages else None,
        )
        self._opened().catalog.add_run(run)
        self._tell(order, result, outcome)

    def _tell(self, order: Order, result: Result, outcome: Ended) -> None:
        if outcome not in {"ok", "failed", "missed"}:
            return
        fleet = self._opened()
        tags = None
        with suppress(HotspareError):
            tags = tags_of(fleet, order)
        ended = EndedBackup(
            machine=order.machine,
            platform=order.platform,
            repository=policy_of(order).repository if order.definition else "",
            policy=order.policy,
            tags=tags,
            point=result.point,
            error=None if outcome == "ok" else result.error or "It is not known why",
        )
        (tell_missed if outcome == "missed" else tell_backup)(fleet.session, ended)

    def _retain(self, order: Order) -> None:
        fleet = self._opened()
        policy = fleet.session.policies().get(order.policy)
        if policy.retention.keeps_all:
            return
        machine = fleet.machine(order.platform, order.machine_id)
        doomed = [one for one in judge(fleet, policy, [Chosen(machine, "")], warn) if not one.reasons]
        repository = fleet.repository(policy)
        forget_points(repository, doomed, History(fleet.session, repository.backend.url))

    def _opened(self) -> Fleet:
        if self._fleet is None:
            self._session = Session(self._options, known_hosts=self._hosts)
            self._fleet = Fleet(self._session)
        return self._fleet

    @contextmanager
    def _only_said(self, consequence: str) -> Iterator[None]:
        """Let the server go on whatever is wrong, and say it once in each look."""
        try:
            yield
        except HotspareError as error:
            self._say(consequence, error)
            if isinstance(error, (PlatformUnavailable, StorageError)):
                self.close()  # what was restarted has to be connected to again

    def _say(self, consequence: str, error: HotspareError) -> None:
        if consequence not in self._said:
            _log.warning("%s. %s", consequence, error)
        self._said.add(consequence)


def _host() -> str:
    return socket.gethostname()


def _missed_words(policy: Policy, machine: DueMachine, now: datetime) -> str:
    times = missed_times(policy, machine, now)
    if not times:
        return ""
    count = "Once" if len(times) == 1 else f"{len(times)} times"
    span = local_time(times[0]) + (f" to {local_time(times[-1])}" if len(times) > 1 else "")
    return f"{count} it was due and did not run ({span}); the run that began now makes up for it"
