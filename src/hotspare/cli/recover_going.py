"""Recoveries that are going on: listed, gone on with, moved, thrown away."""

import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from hotspare.cancellation import Cancellation, cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.confirmation import confirm as ask
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.progress import shown_progress
from hotspare.cli.quantities import parse_bytes, parse_duration
from hotspare.cli.session import Session
from hotspare.errors import HotspareError, UsageError
from hotspare.events import Listener
from hotspare.restore.instant.chunk_cache import DEFAULT_CACHE_BYTES, DEFAULT_PATIENCE
from hotspare.restore.instant.following import Followed, follow
from hotspare.restore.instant.keeper import Keeper, Serving
from hotspare.restore.instant.record import Recoveries, Recovery
from hotspare.restore.instant.recovery import InstantRecovery
from hotspare.units import format_bytes

_FLAG = Parameter(negative="", show_default=False)
_CACHE, _PATIENCE = "HOTSPARE_INSTANT_CACHE", "HOTSPARE_INSTANT_PATIENCE"
_ANSWER_SECONDS = 120.0
"""So long at most a command waits for the agent of a machine that stays upon the repository."""


def recovery_of(session: Session) -> InstantRecovery:
    """Give what recovers machines on the session's platform. Raises as ``Session.platform``."""
    settings = session.settings
    return InstantRecovery(
        session.platform(),
        settings.state_folder,
        scratch_folder=settings.scratch_folder,
        download_limit=parse_bytes(settings.download_limit) if settings.download_limit else 0,
        serving=Serving(
            cache_bytes=parse_bytes(os.environ.get(_CACHE) or str(DEFAULT_CACHE_BYTES)),
            patience=parse_duration(os.environ.get(_PATIENCE) or str(DEFAULT_PATIENCE)),
        ),
    )


def following(
    recovery: InstantRecovery,
    name: str,
    listener: Listener,
    cancellation: Cancellation,
    *,
    stay: bool,
    background: bool,
) -> Followed:
    """See a recovery on as long as the command wants to. Raises as ``follow``."""
    if background:
        return Followed()
    record = recovery.recoveries.read(name)
    if record is None:  # it is moved already
        done = Followed()
        done.moved = True
        return done
    return follow(
        recovery.recoveries,
        recovery.instant,
        record,
        listener,
        cancellation,
        until_answer=stay,
        seconds=_ANSWER_SECONDS if stay else None,
    )


def list_recoveries(*, options: Options = DEFAULTS) -> None:
    """List the machines that still need the repository they were recovered from.

    Args:
        options: See below.
    """
    with Session(options) as session:
        recoveries = Recoveries(session.settings.state_folder)
        found = [one for name in recoveries.names() if (one := recoveries.read(name)) is not None]
        rows = [_fields(recoveries, one) for one in found]
        if session.as_json:
            output.print_document(output.document("recoveries", recoveries=rows))
            return
        header = ("MACHINE", "POINT", "STATE", "MOVED", "SIZE", "KEPT", "PROBLEM")
        cells = [
            (
                row["machine"],
                row["point"],
                row["stage"],
                format_bytes(row["bytes_moved"]),
                format_bytes(row["size"]),
                "yes" if row["kept"] else "no",
                row["problem"] or "",
            )
            for row in rows
        ]
        output.print_table(header, cells, right=("MOVED", "SIZE"))
        for row in rows:
            if not row["kept"]:
                output.print_text(
                    f"Nobody keeps {row['machine']}. Go on: hotspare recover resume {row['machine']}"
                )


def _fields(recoveries: Recoveries, one: Recovery) -> dict[str, Any]:
    status = recoveries.status(one.name)
    return {
        "machine": one.name,
        "platform": one.platform,
        "repository": one.repository,
        "point": one.point,
        "stage": one.stage,
        "began_at": output.utc_time(one.began_at),
        "size": sum(disk.size for disk in one.disks),
        "bytes_moved": sum(status.moved.values()) if status else 0,
        "kept": recoveries.is_kept(one.name),
        "problem": (status.problem or None) if status else None,
    }


def resume(
    machine: str | None = None,
    /,
    *,
    all_: Annotated[bool, Parameter(name="--all", negative="", show_default=False)] = False,
    background: Annotated[bool, _FLAG] = False,
    options: Options = DEFAULTS,
) -> None:
    """Go on with a recovery after whatever crash or restart: it is served, started and moved again.

    Args:
        machine: Its name.
        all_: All that are listed.
        background: End as soon as it runs; it moves all the same.
        options: See below.
    """
    if (machine is None) != all_:
        raise UsageError("A machine or --all is needed", meaning="Nothing was done")
    recoveries = Recoveries(_state_folder(options))
    names = recoveries.names() if machine is None else [machine]
    problems: list[HotspareError] = []
    for name in names:
        try:
            _resume(recoveries.find(name), options, background=background or all_)
        except HotspareError as error:
            problems.append(error)
            if len(names) > 1:
                output.warn(f"{name}: {error}")
    if problems:
        raise problems[0]
    if not names and options.output != "json":
        output.print_text("No machine is being recovered on this host.")


def _resume(recovery: Recovery, options: Options, *, background: bool) -> None:
    keeper = Keeper()
    begun = False
    try:
        with Session(options, platform=recovery.platform) as session:
            repository = session.repository(recovery.repository, cached=True)
            going = recovery_of(session)
            going.resume(repository, recovery, keeper)
            begun = True
            with (
                cancelled_by_signals() as cancellation,
                shown_progress(options.progress_form, cancellation) as listener,
            ):
                stay = recovery.stage == "running"
                seen = following(
                    going, recovery.name, listener, cancellation, stay=stay, background=background
                )
            _print_gone_on(session, recovery.name, moved=seen.moved)
    finally:
        if not begun:
            keeper.stop()


def move(
    machine: str,
    /,
    *,
    limit: str | None = None,
    background: Annotated[bool, _FLAG] = False,
    options: Options = DEFAULTS,
) -> None:
    """Move a machine off the repository that was recovered with --keep-running-from-backup.

    Args:
        machine: Its name.
        limit: How fast its disks move at most, like 50MiB/s.
        background: End at once; it moves all the same.
        options: See below.
    """
    recovery = Recoveries(_state_folder(options)).find(machine)
    with Session(options, platform=recovery.platform) as session:
        going = recovery_of(session)
        going.move(machine, parse_bytes(limit) if limit else 0)
        with (
            cancelled_by_signals() as cancellation,
            shown_progress(options.progress_form, cancellation) as listener,
        ):
            seen = following(going, machine, listener, cancellation, stay=False, background=background)
        _print_gone_on(session, machine, moved=seen.moved)


def undo(
    machine: str,
    /,
    *,
    yes: Annotated[bool, Parameter(name=("--yes", "-y"), negative="", show_default=False)] = False,
    options: Options = DEFAULTS,
) -> None:
    """Throw a recovered machine away that still needs the repository, with all that it wrote.

    Args:
        machine: Its name.
        yes: Do not ask.
        options: See below.
    """
    recovery = Recoveries(_state_folder(options)).find(machine)
    with Session(options, platform=recovery.platform) as session:
        ask(
            f"Power {machine} off and remove it, with all that it wrote since it was recovered?",
            "Nothing was done",
            yes=yes,
        )
        recovery_of(session).undo(recovery, lambda: session.repository(recovery.repository))
        if session.as_json:
            output.print_document(output.document("recovery-undone", machine=machine, point=recovery.point))
            return
        output.print_text(f"{machine} is gone, with its disks. The restore point is what it was.")


def _state_folder(options: Options) -> Path:
    with Session(options) as session:
        return session.settings.state_folder


def _print_gone_on(session: Session, name: str, *, moved: bool) -> None:
    if session.as_json:
        output.print_document(output.document("recovery-going", machine=name, moved=moved))
        return
    if moved:
        output.print_text(f"{name} is moved: nothing depends on the repository any more.")
    else:
        output.print_text(f"{name} runs. To see how far it is moved: hotspare recover list")
