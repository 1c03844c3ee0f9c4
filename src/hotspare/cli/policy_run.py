"""``hotspare policy run``: have machines backed up by a policy, in the order that admission gives."""

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import inf

import msgspec

from hotspare.cancellation import Cancellation, cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.backup_results import BackupResult, print_results, refuse_failures, results_document
from hotspare.cli.backup_runs import Backups, WantedMachine
from hotspare.cli.load import latency_ratio
from hotspare.cli.options import DEFAULTS, Options, ProgressForm, Switch
from hotspare.cli.policy_due import request_of, those_due, upload_share
from hotspare.cli.policy_engine import backups_of
from hotspare.cli.progress import shown_progress
from hotspare.cli.session import Session
from hotspare.errors import HotspareError, MachineNotFound, UsageError
from hotspare.events import Listener
from hotspare.fleet.fleet import Chosen, Fleet
from hotspare.policy.admission import Admission, Request
from hotspare.policy.limits import Limits
from hotspare.policy.openings import ALWAYS
from hotspare.policy.policy import Policy
from hotspare.units import format_rate


def run(
    name: str | None = None, /, *, due: Switch = False, dry_run: Switch = False, options: Options = DEFAULTS
) -> None:
    """Back up the machines of a policy now, one after the other; or with --due what is due by all policies.

    First those whose RPO is at risk, then those that are through fastest, as measured. By name a policy runs
    whether it is due or not, whatever its windows say. With --due a machine is backed up when its policy has
    become due since its last run by it and a window is open, or its RPO would break and the policy lets that
    count more; meant for a timer that fires every few minutes. Limits of 0 hold either way.

    Args:
        name: Name of the policy; with --due it may be left out.
        due: Only what is due, and within windows.
        dry_run: Only say what would be backed up, in this order.
        options: See below.
    """
    with Session(options) as session:
        names = _names(session, name, due=due)
        fleet = Fleet(session)
        limits = msgspec.structs.replace(session.policies().limits(), mover=1)
        queue = _Queue(session, fleet, limits, due=due)
        failures = _ask_for_all(queue, names)
        if failures and not queue.asked:
            _refuse(failures)
        if dry_run:
            _tell_order(session, queue)
            _refuse(failures)
            return
        results = queue.run(session.options.progress_form)
        waiting = queue.left_waiting()
        for machine, reason in waiting:
            output.note(f"{machine}: waits: {reason}")
        if session.as_json:
            output.print_document(results_document(results))
        elif results:
            print_results(results, alone=len(results) == 1)
        else:
            output.print_text(
                f"Nothing was backed up: {'all have to wait' if waiting else 'nothing is due'}."
            )
        refuse_failures(results)
        _refuse(failures)


def _names(session: Session, name: str | None, *, due: bool) -> list[str]:
    if name is not None:
        return [name]
    if not due:
        raise UsageError(
            "No policy is named",
            meaning="Nothing was backed up",
            hint="Name one, or say --due for all that are",
        )
    return session.policies().names()


def _ask_for_all(queue: "_Queue", names: Sequence[str]) -> list[HotspareError]:
    """Put the machines of policies in line; gives why some of the policies could not be asked for.

    A mistake in one policy, or a platform that does not answer, keeps no other from its backups.
    """
    failures: list[HotspareError] = []
    for name in names:
        try:
            failures += queue.ask_for(queue.fleet.session.policies().get(name))
        except HotspareError as error:
            failures.append(error)
    return failures


def _refuse(failures: Sequence[HotspareError]) -> None:
    for error in failures[1:]:
        output.warn(str(error))
    if failures:
        raise failures[0]


@dataclass(frozen=True, slots=True)
class _Job:
    """One machine by one policy."""

    policy: Policy
    chosen: Chosen
    request: Request


@dataclass(slots=True)
class _Queue:
    """The machines that are to be backed up, of all policies, and who is next."""

    session: Session
    fleet: Fleet
    limits: Limits
    due: bool
    _jobs: dict[str, _Job] = field(default_factory=dict)
    _admission: Admission = field(init=False)
    _engines: dict[tuple[str, str], Backups] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._admission = Admission(self.limits)

    @property
    def asked(self) -> bool:
        """Whether any machine is in line."""
        return bool(self._jobs)

    def ask_for(self, policy: Policy) -> list[HotspareError]:
        """Put the machines of a policy in line; with ``due`` those that are.

        Gives why some of its platforms could not be asked; the machines of others are in line.

        Raises:
            MachineNotFound: there are none, and the policy was to run whether due or not.
        """
        silent: dict[str, HotspareError] = {}
        chosen = self.fleet.machines_of(policy, silent)
        if not chosen and not silent and not self.due:
            raise MachineNotFound(
                f"{policy.name} selects no machine of {', '.join(self.fleet.platforms_of(policy))}",
                meaning="Nothing was backed up",
                hint=f"See 'hotspare policy preview {policy.name}'",
            )
        now = datetime.now(UTC)
        if self.due:
            chosen = [one.chosen for one in those_due(self.fleet, policy, chosen, now)]
        for one in chosen:
            request = request_of(self.fleet, policy, one, self.limits, socket.gethostname(), now)
            if not self.due:
                request = replace(request, openings=ALWAYS)
            self._jobs[request.id] = _Job(policy, one, request)
            self._admission.ask(request)
        return list(silent.values())

    def run(self, progress: ProgressForm) -> list[BackupResult]:
        """Back up one machine after the other, until none may begin; gives the results in that order."""
        if self.due:
            self._look_at_latency()
        results: list[BackupResult] = []
        with cancelled_by_signals() as cancellation, shown_progress(progress, cancellation) as listener:
            while job := self._next():
                if results and results[-1].outcome in {"interrupted", "not-begun"}:
                    results.append(BackupResult(job.chosen.machine.name, "not-begun"))
                else:
                    results.append(self._back_up(job, listener, cancellation))
                self._admission.finish(job.request.id)
        return results

    def order(self) -> list[tuple[_Job, str]]:
        """Give who would be backed up, in order and each with the reason, without doing it."""
        found = []
        now = datetime.now(UTC).timestamp()
        while grants := self._admission.grants(now):
            for grant in grants:
                found.append((self._jobs[grant.request.id], grant.because))
                self._admission.finish(grant.request.id)
        return found

    def left_waiting(self) -> list[tuple[str, str]]:
        """Give the machines that may not begin now, each with the reason."""
        now = datetime.now(UTC).timestamp()
        return [
            (self._jobs[request.id].chosen.machine.name, self._admission.why_waiting(request.id, now))
            for request in self._admission.waiting
        ]

    def _next(self) -> _Job | None:
        # There is one mover, which is us: so there is one grant at most.
        grants = self._admission.grants(datetime.now(UTC).timestamp())
        return self._jobs[grants[0].request.id] if grants else None

    def _look_at_latency(self) -> None:
        for uri in {job.chosen.machine.platform for job in self._jobs.values()}:
            ratio = None
            with suppress(HotspareError):  # what became of it, its machines' runs will tell
                ratio = latency_ratio(self.fleet, uri)
            if ratio is not None:
                self._admission.latency(uri, ratio, datetime.now(UTC).timestamp())

    def _back_up(self, job: _Job, listener: Listener, cancellation: Cancellation) -> BackupResult:
        machine = job.chosen.machine
        key = (job.policy.name, machine.platform)
        if key not in self._engines:
            share = upload_share(self.limits, job.request.resources)
            fleet = self.fleet if share is None else Fleet(self.session.limited(share))
            self._engines[key] = backups_of(fleet, job.policy, machine.platform)
        wanted = WantedMachine(machine.name, machine.id, listed=True, tags=machine.marks.tags)
        return self._engines[key].one(wanted, listener, cancellation)


def _tell_order(session: Session, queue: _Queue) -> None:
    order, waiting = queue.order(), queue.left_waiting()
    if session.as_json:
        planned = [
            {
                "policy": job.policy.name,
                "machine": job.chosen.machine.name,
                "platform": job.chosen.machine.platform,
                "because": because,
                "takes": [str(one) for one in sorted(job.request.resources)],
                "upload_limit": upload_share(queue.limits, job.request.resources),
                "rate": round(job.request.rate) or None,
                "deadline": _deadline(job.request),
            }
            for job, because in order
        ]
        left = [{"machine": machine, "because": reason} for machine, reason in waiting]
        output.print_document(output.document("policy-plan", machines=planned, waiting=left))
        return
    for number, (job, because) in enumerate(order, start=1):
        machine = job.chosen.machine
        over = _over(queue.limits, job.request)
        output.print_text(
            f"{number}. {machine.name} of {machine.platform} by {job.policy.name}: {because}{over}"
        )
    for machine_name, reason in waiting:
        output.print_text(f"{machine_name} would wait: {reason}")
    if not order and not waiting:
        output.print_text("Nothing is due.")


def _over(limits: Limits, request: Request) -> str:
    """Say which links a run crosses."""
    links = ", ".join(one.name for one in sorted(request.resources) if one.kind == "link")
    share = upload_share(limits, request.resources)
    rate = f", at {format_rate(share)} at most" if share else ""
    return f"; over {links}{rate}" if links else ""


def _deadline(request: Request) -> str | None:
    if request.deadline in {inf, -inf}:
        return None
    return output.utc_time(datetime.fromtimestamp(request.deadline, UTC))
