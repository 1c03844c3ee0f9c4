"""``hotspare recover``: machines that start straight from the repository, and move off it while they run."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from hotspare.cancellation import Cancellation, cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.documents import left_out, machine_fields
from hotspare.cli.help import OPENING, closing, noun
from hotspare.cli.history import History
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.placement import AS_USUAL, PlacementOptions, print_plan
from hotspare.cli.progress import shown_progress
from hotspare.cli.quantities import parse_bytes
from hotspare.cli.recover_going import following, list_recoveries, move, recovery_of, resume, undo
from hotspare.cli.recover_plan import recover_plan
from hotspare.cli.session import Session
from hotspare.documents.plan import plan_fields
from hotspare.errors import (
    Interrupted,
    MachineNotFound,
    NoSpace,
    PlatformUnavailable,
    PointNotFound,
    TargetExists,
    UsageError,
)
from hotspare.platforms.platform import TargetRequest
from hotspare.repository.select import find_point
from hotspare.restore.instant.keeper import Keeper
from hotspare.restore.machine import plan_with_data
from hotspare.units import format_duration

app = noun("recover", "Start a machine straight from the repository, within seconds.")

_FLAG = Parameter(negative="", show_default=False)
_SEE = 'See "hotspare recover --help"'

for _command, _name, _examples in (
    (list_recoveries, "list", ["hotspare recover list", "hotspare recover list -o json"]),
    (resume, "resume", ["hotspare recover resume web", "hotspare recover resume --all"]),
    (move, "move", ["hotspare recover move web", "hotspare recover move web --limit 50MiB/s"]),
    (undo, "undo", ["hotspare recover undo web", "hotspare recover undo web --yes"]),
):
    app.command(
        _command,
        name=_name,
        help_epilogue=closing(_examples, *OPENING, MachineNotFound, PlatformUnavailable, NoSpace),
    )


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    request_to: str | None
    where: PlacementOptions
    stay: bool
    background: bool
    limit: int
    dry_run: bool


@app.default
def recover(
    point: str | None = None,
    /,
    *,
    now: Annotated[bool, _FLAG] = False,
    to: str | None = None,
    platform: Annotated[str | None, Parameter(name="--platform")] = None,
    keep_running_from_backup: Annotated[bool, _FLAG] = False,
    background: Annotated[bool, _FLAG] = False,
    limit: str | None = None,
    plan: Path | None = None,
    dry_run: Annotated[bool, _FLAG] = False,
    where: PlacementOptions = AS_USUAL,
    options: Options = DEFAULTS,
) -> None:
    """Start a machine from a restore point at once; its disks move to their place while it runs.

    It reads what it needs from the repository, and writes to its own disks. Killing this command, or Ctrl-C,
    does not stop it: a process of its own goes on. After a restart of the host, "recover resume" does.

    Args:
        point: Id of a restore point or the beginning of one; or a machine's name, for its newest.
        now: At once, which is the only way; "hotspare restore" makes a machine without starting it.
        to: Name of the machine; else the one that it had.
        platform: URI of the platform that gets the machine; else HOTSPARE_PLATFORM, else qemu:///system.
        keep_running_from_backup: Do not move its disks before "recover move" is run.
        background: End as soon as it was started; it moves all the same.
        limit: How fast its disks move at most, like 50MiB/s.
        plan: A file that lists several machines, in the order in which they are to be started.
        dry_run: Only show what would be made.
        where: See below.
        options: See below.
    """
    del now
    if (point is None) == (plan is None):
        raise UsageError("A restore point or a --plan is needed", meaning="Nothing was done", hint=_SEE)
    wanted = _Wanted(
        request_to=to,
        where=where,
        stay=keep_running_from_backup,
        background=background,
        limit=parse_bytes(limit) if limit else 0,
        dry_run=dry_run,
    )
    began = time.monotonic()
    with Session(options, platform=platform) as session:
        if plan is not None:
            if to or where != AS_USUAL or keep_running_from_backup:
                problem = "--to, --keep-running-from-backup and places do not go with --plan"
                raise UsageError(problem, meaning="Nothing was done", hint="Write them into the plan")
            recover_plan(session, plan, limit=wanted.limit, background=background, dry_run=dry_run)
        elif point is not None:
            _recover(session, point, wanted, began)


app.help_epilogue = closing(
    [
        "hotspare recover web --now",
        "hotspare recover 20261123-021500-k3fz7 --now --to web-again --pool fast",
        "hotspare recover web --now --keep-running-from-backup",
        "hotspare recover --plan site.toml --dry-run",
    ],
    *OPENING,
    PlatformUnavailable,
    PointNotFound,
    MachineNotFound,
    NoSpace,
    TargetExists,
    interruptible=True,
)


def _recover(session: Session, reference: str, wanted: _Wanted, began: float) -> None:
    # It needs as long to come up as we to find out what it shall do.
    keeper = None if wanted.dry_run else Keeper()
    begun = False
    try:
        with ThreadPoolExecutor(1) as aside:
            # Connecting takes Python's time, deriving the repository's key does not.
            connecting = aside.submit(recovery_of, session)
            repository = session.repository(cached=True)
            recovery = connecting.result()
        point = find_point(repository, reference)
        request = TargetRequest(
            name=wanted.request_to or point.machine_name,
            folder=wanted.where.folder,
            placement=wanted.where.placement(),
        )
        plan = recovery.plan(point, request)
        if keeper is None:
            plan = plan_with_data(repository, point, plan)
            if session.as_json:
                fields = {"point": point.id, "stays": wanted.stay, "plan": plan_fields(plan)}
                output.print_document(output.document("recovery-plan", **fields))
            else:
                print_plan(plan, point, in_place=False)
            return
        for warning in plan.warnings:
            output.warn(warning)
        history = History(session, repository.backend.url)
        with (
            history.run("recover", plan.name, recovery.platform.uri) as run,
            cancelled_by_signals() as cancellation,
            shown_progress(session.options.progress_form, cancellation) as shown,
        ):
            run.point = point.id
            listener = run.watching(shown)
            machine = recovery.begin(
                repository, point, plan, request, keeper, listener, stay=wanted.stay, limit=wanted.limit
            )
            begun = True
            started = time.monotonic() - began
            if not session.as_json:
                output.note(f"{machine.name} was started {format_duration(started)} after the command.")
            followed = following(
                recovery, plan.name, listener, cancellation, stay=wanted.stay, background=wanted.background
            )
        fields = {
            "point": point.id,
            "machine": machine_fields(machine),
            "seconds_to_start": round(started, 3),
            "seconds_to_answer": None if followed.answered is None else round(started + followed.answered, 3),
            "moved": followed.moved,
            "stays": wanted.stay,
            "without": left_out(point),
        }
        _print_recovered(session, fields, machine.name)
        _refuse_interrupted(cancellation, machine.name, moved=followed.moved)
    finally:
        if keeper is not None and not begun:
            keeper.stop()


def _print_recovered(session: Session, fields: dict[str, Any], name: str) -> None:
    if session.as_json:
        output.print_document(output.document("recovery", **fields))
        return
    answered = fields["seconds_to_answer"]
    said = "" if answered is None else f"; its agent answered after {format_duration(answered)}"
    output.print_text(f"{name} runs{said}.")
    for reason in fields["without"]:
        output.print_text(f"  without {reason}")
    if fields["moved"]:
        output.print_text("Its disks are moved: nothing depends on the repository any more.")
    elif fields["stays"]:
        output.print_text(f"It runs from the repository. To move it off that: hotspare recover move {name}")
    else:
        output.print_text("Its disks are being moved. To see how far that is: hotspare recover list")


def _refuse_interrupted(cancellation: Cancellation, name: str, *, moved: bool) -> None:
    if cancellation.requested and not moved:
        raise Interrupted(
            "Interrupted",
            meaning=f"{name} runs, and its disks go on being moved",
            hint=f"See 'hotspare recover list'; 'hotspare recover undo {name}' throws the machine away",
        )
