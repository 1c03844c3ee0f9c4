"""``hotspare recover --plan``: several machines, one after the other, each when those before it are up."""

import time
from pathlib import Path
from typing import Any, NamedTuple

from hotspare.cancellation import Cancellation, cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.history import History
from hotspare.cli.progress import shown_progress
from hotspare.cli.quantities import parse_duration
from hotspare.cli.recover_going import following, recovery_of
from hotspare.cli.session import Session
from hotspare.documents.plan import plan_fields
from hotspare.errors import ConfigError, HotspareError, PartialFailure
from hotspare.events import Listener
from hotspare.platforms.placement import TargetPlan
from hotspare.platforms.platform import TargetRequest
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.repository.select import find_points
from hotspare.restore.instant.following import follow
from hotspare.restore.instant.keeper import Keeper
from hotspare.restore.instant.plan import PlannedMachine, read_plan
from hotspare.restore.instant.recovery import InstantRecovery
from hotspare.units import format_duration


class _Step(NamedTuple):
    wanted: PlannedMachine
    point: RestorePoint
    request: TargetRequest
    plan: TargetPlan
    timeout: float
    delay: float


def recover_plan(session: Session, path: Path, *, limit: int, background: bool, dry_run: bool) -> None:
    """Start all machines of a plan. One that fails is told, and those after it are started all the same.

    Raises:
        ConfigError: the plan cannot be used.
        PartialFailure: some machines were started, and some not.
    """
    wanted = read_plan(path)
    repository = session.repository(cached=True)
    recovery = recovery_of(session)
    steps = [_step(repository, recovery, one) for one in wanted.machine]
    _refuse_same_names(steps)
    if dry_run:
        _print_steps(session, steps)
        return
    results: list[dict[str, Any]] = []
    with (
        cancelled_by_signals() as cancellation,
        shown_progress(session.options.progress_form, cancellation) as listener,
    ):
        for step in steps:
            if cancellation.requested:
                break
            results.append(_take(session, repository, recovery, step, limit, listener, cancellation))
        for result in results:
            if result["error"] is None and not result["stays"] and not background:
                result["moved"] = _moved(recovery, result["machine"], listener, cancellation)
    _print_results(session, results)
    failed = [result["machine"] for result in results if result["error"] is not None]
    cancellation.check()
    if failed:
        raise PartialFailure(
            f"{len(failed)} of {len(steps)} machines were not started: {', '.join(failed)}",
            meaning="The others run, and are moved by themselves",
            hint="What was in the way is said above; recover them one by one",
        )


def _step(repository: Repository, recovery: InstantRecovery, one: PlannedMachine) -> _Step:
    (point,) = find_points(repository, [one.point])
    request = one.request(one.to or point.machine_name)
    delay = 0.0 if one.delay.strip() in {"0", "0s"} else parse_duration(one.delay)
    plan = recovery.plan(point, request)
    return _Step(one, point, request, plan, parse_duration(one.timeout), delay)


def _refuse_same_names(steps: list[_Step]) -> None:
    names = [step.request.name for step in steps]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"The plan makes {name} a second time", meaning="Nothing was done")


def _take(
    session: Session,
    repository: Repository,
    recovery: InstantRecovery,
    step: _Step,
    limit: int,
    listener: Listener,
    cancellation: Cancellation,
) -> dict[str, Any]:
    name = step.request.name
    began = time.monotonic()
    result: dict[str, Any] = {
        "machine": name,
        "point": step.point.id,
        "seconds_to_start": None,
        "seconds_to_answer": None,
        "moved": False,
        "stays": step.wanted.stay,
        "error": None,
    }
    try:
        with History(session, repository.backend.url).run("recover", name, recovery.platform.uri) as run:
            run.point = step.point.id
            recovery.begin(
                repository,
                step.point,
                step.plan,
                step.request,
                Keeper(),
                run.watching(listener),
                stay=step.wanted.stay,
                limit=limit,
            )
        started = result["seconds_to_start"] = round(time.monotonic() - began, 3)
        if step.wanted.wait == "agent":
            record = recovery.recoveries.find(name)
            seen = follow(
                recovery.recoveries,
                recovery.instant,
                record,
                listener,
                cancellation,
                until_answer=True,
                seconds=step.timeout,
            )
            if seen.answered is None:
                output.warn(f"{name}: its agent did not answer within {format_duration(step.timeout)}")
            else:
                result["seconds_to_answer"] = round(started + seen.answered, 3)
    except HotspareError as error:
        output.warn(f"{name}: {error}")
        result["error"] = error.what
        return result
    _pause(step.delay, cancellation)
    return result


def _pause(seconds: float, cancellation: Cancellation) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not cancellation.requested:
        time.sleep(min(0.1, seconds))


def _moved(recovery: InstantRecovery, name: str, listener: Listener, cancellation: Cancellation) -> bool:
    try:
        return following(recovery, name, listener, cancellation, stay=False, background=False).moved
    except HotspareError as error:
        output.warn(f"{name}: {error}")
        return False


def _print_steps(session: Session, steps: list[_Step]) -> None:
    if session.as_json:
        fields = [
            {
                "point": step.point.id,
                "wait": step.wanted.wait,
                "timeout": step.timeout,
                "delay": step.delay,
                "stays": step.wanted.stay,
                "plan": plan_fields(step.plan),
            }
            for step in steps
        ]
        output.print_document(output.document("recovery-steps", steps=fields))
        return
    for number, step in enumerate(steps, start=1):
        when = output.local_time(step.point.finished_at)
        output.print_text(f"{number}. {step.plan.name}: {step.point.machine_name} as it was on {when}")
        for disk in step.plan.disks:
            output.print_text(f"   {disk.name} to {disk.path}")
        for warning in step.plan.warnings:
            output.print_text(f"   Warning: {warning}")
        waits = f"until its agent answers, {format_duration(step.timeout)} at most"
        then = waits if step.wanted.wait == "agent" else "not at all"
        more = f", then {format_duration(step.delay)}" if step.delay else ""
        output.print_text(f"   The next waits {then}{more}")
        output.print_text(f"   {'Stays upon the repository' if step.wanted.stay else 'Moves while it runs'}")


def _print_results(session: Session, results: list[dict[str, Any]]) -> None:
    if session.as_json:
        output.print_document(output.document("recoveries-done", results=results))
        return
    rows = [
        (
            result["machine"],
            result["point"],
            "-" if result["seconds_to_start"] is None else format_duration(result["seconds_to_start"]),
            "-" if result["seconds_to_answer"] is None else format_duration(result["seconds_to_answer"]),
            "yes" if result["moved"] else "no",
            result["error"] or "",
        )
        for result in results
    ]
    output.print_table(("MACHINE", "POINT", "STARTED", "ANSWERED", "MOVED", "PROBLEM"), rows)
