"""The commands of ``hotspare replica`` that bring a machine up on its standby, and home again."""

from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from hotspare.cli import output
from hotspare.cli.confirmation import confirm
from hotspare.cli.help import closing
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.quantities import parse_duration
from hotspare.cli.replica_state import State, agent_of
from hotspare.errors import MachineNotFound, PlatformUnavailable, PointNotFound, UsageError
from hotspare.replication.failover import service
from hotspare.replication.failover.report import Loss, Report
from hotspare.units import format_bytes

_LONG_SECONDS = 24 * 3600.0
_Flag = Annotated[bool, Parameter(negative="", show_default=False)]


def add_commands(app: App) -> None:
    """Add these commands to ``hotspare replica``."""
    errors = (PlatformUnavailable, MachineNotFound, PointNotFound, UsageError)
    for command, examples in (
        (
            failover,
            [
                "hotspare replica failover web01 --planned",
                "hotspare replica failover web01 --dry-run",
                "hotspare replica failover web01 --point 20261123-0215 --force",
            ],
        ),
        (failback, ["hotspare replica failback web01", "hotspare replica failback web01 --dry-run"]),
        (reprotect, ["hotspare replica reprotect web01"]),
        (lease, ["hotspare replica lease web01", "hotspare replica lease web01 -o json"]),
    ):
        app.command(command, help_epilogue=closing(examples, *errors))


def failover(
    machine: str,
    *,
    planned: _Flag = False,
    point: str = "",
    force: _Flag = False,
    dry_run: _Flag = False,
    timeout: str = "2m",
    yes: _Flag = False,
    state: State = None,
    options: Options = DEFAULTS,
) -> None:
    """Start a machine on its standby. Run it there.

    Planned, it is shut down where it runs, what the replica lacks is sent, and nothing is lost. Without that
    it is for a host that is lost: refused while that is alive, or while it is not proven that the machine
    stands still there. With --force you say that you made sure of it.

    Args:
        machine: Name or UUID.
        planned: Shut it down where it runs first; nothing is lost.
        point: Begin with this point in place of all that the replica has.
        force: The machine surely does not run on the other host: its plug is pulled.
        dry_run: Only say what would be lost.
        timeout: Planned: how long the machine may take to shut down.
        yes: Do not ask whether to do it.
        state: Folder of this host's agent.
        options: See below.
    """
    asked = service.Failover(
        protection=machine,
        point=point,
        planned=planned,
        force=force,
        dry_run=True,
        shutdown_seconds=parse_duration(timeout),
    )
    with agent_of(state, options) as agent:
        before = agent.call(service.FAILOVER, asked)
        if not dry_run:
            question = f"Start {machine} here? {_loss_in_words(before.loss)}."
            confirm(question, "Nothing was done", yes=yes or options.output == "json")
            real = msgspec.structs.replace(asked, dry_run=False)
            before = agent.call(service.FAILOVER, real, timeout=_LONG_SECONDS)
    _tell(before, options, "would start here" if dry_run else "runs here")


def failback(
    machine: str,
    *,
    dry_run: _Flag = False,
    timeout: str = "2m",
    yes: _Flag = False,
    state: State = None,
    options: Options = DEFAULTS,
) -> None:
    """Bring a machine home that was taken over. Run it on the host that it comes home to.

    It must be protected in this direction (reprotect), so only the last changes are to be moved while it is
    off. It is the same as "failover --planned".

    Args:
        machine: Name or UUID.
        dry_run: Only say how it stands.
        timeout: How long the machine may take to shut down.
        yes: Do not ask whether to do it.
        state: Folder of this host's agent.
        options: See below.
    """
    failover(machine, planned=True, dry_run=dry_run, timeout=timeout, yes=yes, state=state, options=options)


def reprotect(machine: str, *, state: State = None, options: Options = DEFAULTS) -> None:
    """Protect a machine that was taken over in the other direction. Run it where it runs now.

    The host that it was taken from becomes the standby. Its old disks are compared with the machine's, and
    only what differs is sent. What was written there and never reached this host is gone then.

    Args:
        machine: Name or UUID.
        state: Folder of this host's agent.
        options: See below.
    """
    with agent_of(state, options) as agent:
        made = agent.call(service.REPROTECT, service.Named(protection=machine), timeout=_LONG_SECONDS)
    if options.output == "json":
        output.print_document(output.document("protection", id=made.id, machine=made.machine))
    else:
        output.print_text(
            f"{made.machine} is protected in the other direction from now on;"
            f' "hotspare replica status {made.machine}" tells how far it is.'
        )


def lease(machine: str, *, state: State = None, options: Options = DEFAULTS) -> None:
    """Tell which host may run a machine, and whether the other one takes over by itself.

    Args:
        machine: Name or UUID.
        state: Folder of this host's agent.
        options: See below.
    """
    with agent_of(state, options) as agent:
        status = agent.call(service.LEASE_STATUS, service.Named(protection=machine))
    if options.output == "json":
        fields = msgspec.to_builtins(status)
        fields["protection"], fields["machine"] = status.protection.id, status.protection.machine
        output.print_document(output.document("lease", **fields))
        return
    mine = status.holder == status.me
    output.print_text(f"Epoch {status.epoch}: {'this host' if mine else 'the other host'} may run {machine}.")
    automatic = (
        "takes over by itself when the holder is gone" if status.armed else "does not take over by itself"
    )
    output.print_text(f"The standby {automatic} at the moment.")
    for name, answers in status.answers.items():
        output.print_text(f"{name}: {'answers' if answers else 'has not answered lately'}")
    if not mine:
        output.print_text(f"The holder was heard {status.silent_for:.1f} s ago, or longer.")
    if status.report is not None:
        _tell_report(status.report)


def _tell(report: Report, options: Options, what: str) -> None:
    if options.output == "json":
        output.print_document(output.document("failover", **_fields(report)))
        return
    output.print_text(f"{report.machine} {what}. {_loss_in_words(report.loss)}.")
    _tell_report(report)


def _tell_report(report: Report) -> None:
    rows = [(step.name, f"{step.seconds:.2f}", step.problem) for step in report.steps]
    if rows:
        output.print_table(("STEP", "SECONDS", "PROBLEM"), rows, right=("SECONDS",))
    if report.bytes_compared:
        output.print_text(
            f"{format_bytes(report.bytes_compared)} compared, {format_bytes(report.bytes_sent)} sent."
        )
    for warning in report.warnings:
        output.warn(warning)


def _loss_in_words(loss: Loss | None) -> str:
    if loss is None:
        return "What is lost is not known"
    if loss.bytes == 0 and not loss.seconds:
        return "Nothing is lost"
    if loss.bytes == 0:
        return (
            f"All that was acknowledged is there; the host was last heard {loss.seconds:.0f} s ago, or longer"
        )
    return f"What was written in the last {loss.seconds or 0:.0f} s is lost"


def _fields(report: Report) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(report)
    return fields
