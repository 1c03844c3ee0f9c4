"""The commands of ``hotspare replica group``: several machines as one."""

from typing import Any

import msgspec
from cyclopts import App

from hotspare.cli import output
from hotspare.cli.confirmation import Yes, confirm
from hotspare.cli.help import closing, noun
from hotspare.cli.options import DEFAULTS, Options, Repeatable, Switch
from hotspare.cli.quantities import parse_duration
from hotspare.cli.replica_documents import group_fields, group_point_fields, group_rows
from hotspare.cli.replica_state import State, agent_of
from hotspare.errors import (
    HotspareError,
    MachineNotFound,
    PartialFailure,
    PlatformUnavailable,
    PointNotFound,
    UsageError,
)
from hotspare.replication.groups import failover as moving
from hotspare.replication.groups import rehearsal, service
from hotspare.replication.groups.failover import FailGroupOver, GroupReport, GroupTurned
from hotspare.replication.link.wire import NOTHING
from hotspare.units import format_duration

_LONG_SECONDS = 24 * 3600.0


def add_commands(app: App) -> None:
    """Add these commands to ``hotspare replica``."""
    group = noun("group", "Several machines as one: points of one instant, failovers in a set order.")
    errors = (PlatformUnavailable, MachineNotFound, UsageError)
    moved = (*errors, PointNotFound, PartialFailure)
    for command, name, examples, raised in (
        (
            set_group,
            "set",
            [
                "hotspare replica group set shop db01 web01 --every 30s",
                "hotspare replica group set shop --order db01,web01 --delay db01=20s --wait web01=start",
            ],
            errors,
        ),
        (leave, "leave", ["hotspare replica group leave web01"], errors),
        (list_groups, "list", ["hotspare replica group list", "hotspare replica group list -o json"], ()),
        (points, "points", ["hotspare replica group points shop   # on the standby"], errors),
        (
            failover,
            "failover",
            [
                "hotspare replica group failover shop --planned",
                "hotspare replica group failover shop --dry-run",
                "hotspare replica group failover shop --point 20261126-0215 --order db01,web01",
            ],
            moved,
        ),
        (failback, "failback", ["hotspare replica group failback shop"], moved),
        (
            rehearse,
            "rehearse",
            ["hotspare replica group rehearse shop --check 'web01=curl -sf http://10.0.0.5/'"],
            (*errors, PointNotFound),
        ),
        (reprotect, "reprotect", ["hotspare replica group reprotect shop"], (*errors, PartialFailure)),
    ):
        group.command(command, name=name, help_epilogue=closing(examples, *raised))
    app.command(group)


def set_group(
    group: str,
    /,
    *machine: str,
    every: str | None = None,
    keep: str | None = None,
    pause_limit: str | None = None,
    order: str = "",
    wait: Repeatable = (),
    wait_timeout: Repeatable = (),
    delay: Repeatable = (),
    state: State = None,
    options: Options = DEFAULTS,
) -> None:
    """Make a group of machines, or change it. Run it on the host that runs them.

    All are protected in sync mode, with the same standby. From then on all of them stand still together for
    some milliseconds, again and again, for a point of one instant. What is not named stays as it is.

    Args:
        group: Its name.
        machine: These are to be in it, too; by name, or by the id of the protection.
        every: Time between two points of all.
        keep: Which of these points stay.
        pause_limit: How long the machines may stand still for a point; else there is none this time.
        order: In which machines are started, with commas: db01,web01. Others come after.
        wait: What the next one waits for: MACHINE=agent for its guest agent, MACHINE=start for nothing;
            several times.
        wait_timeout: MACHINE=3m: so long at most; several times.
        delay: MACHINE=20s: and then this; several times.
        state: Folder of this host's agent.
        options: See below.
    """
    waits = _by_machine(wait)
    if wrong := set(waits.values()) - {"agent", "start"}:
        raise UsageError(f"One can wait for agent or start, not for {', '.join(sorted(wrong))}")
    asked = service.SetGroup(
        name=group,
        machines=machine,
        order=_names(order),
        interval=parse_duration(every) if every else None,
        retention=keep,
        pause_limit=parse_duration(pause_limit) if pause_limit else None,
        wait={name: "agent" if what == "agent" else "start" for name, what in waits.items()},
        wait_seconds={name: parse_duration(text) for name, text in _by_machine(wait_timeout).items()},
        delay={name: _delay(text) for name, text in _by_machine(delay).items()},
    )
    with agent_of(state, options) as agent:
        made = agent.call(service.SET, asked, timeout=_LONG_SECONDS)
    _show([made], options)


def leave(machine: str, /, *, state: State = None, options: Options = DEFAULTS) -> None:
    """Let a machine be in no group any more; it stays protected.

    Points of the group that it was in do not count any more once its replica has let one go.

    Args:
        machine: By name, or by the id of its protection.
        state: Folder of this host's agent.
        options: See below.
    """
    with agent_of(state, options) as agent:
        left = agent.call(service.LEAVE, service.Leave(machine=machine), timeout=_LONG_SECONDS)
    if options.output == "json":
        output.print_document(output.document("protection", id=left.id, machine=left.machine))
    else:
        output.print_text(f"{left.machine} is in no group any more.")


def list_groups(*, state: State = None, options: Options = DEFAULTS) -> None:
    """List the groups whose machines run here, or whose replicas are here, and how it goes with them.

    Args:
        state: Folder of this host's agent.
        options: See below.
    """
    with agent_of(state, options) as agent:
        found = agent.call(service.LIST, NOTHING)
    _show(found, options)


def _show(groups: list[service.GroupStatus], options: Options) -> None:
    if options.output == "json":
        document = output.document("replica-groups", groups=[group_fields(one) for one in groups])
        output.print_document(document)
        return
    header = ("GROUP", "MACHINES", "EVERY", "POINTS", "NEWEST POINT", "STOOD STILL", "DETAIL")
    output.print_table(header, group_rows(groups), right=("POINTS",))


def points(group: str, /, *, state: State = None, options: Options = DEFAULTS) -> None:
    """List the points of a group that count, the oldest first: those that all members have. On the standby.

    Args:
        group: Its name.
        state: Folder of this host's agent.
        options: See below.
    """
    with agent_of(state, options) as agent:
        found = agent.call(service.POINTS, service.NamedGroup(group=group)).points
    if options.output == "json":
        document = output.document("group-points", points=[group_point_fields(one) for one in found])
        output.print_document(document)
        return
    rows = [
        (one.id, output.local_time(one.taken_at), f"{one.paused_seconds:.3f} s", str(len(one.members)))
        for one in found
    ]
    output.print_table(("POINT", "TAKEN", "STOOD STILL", "MACHINES"), rows, right=("MACHINES",))


def failover(
    group: str,
    /,
    *,
    planned: Switch = False,
    point: str = "",
    order: str = "",
    force: Switch = False,
    dry_run: Switch = False,
    timeout: str = "2m",
    yes: Yes = False,
    state: State = None,
    options: Options = DEFAULTS,
) -> None:
    """Start all machines of a group on their standby, one after the other. Run it there.

    Planned, all are shut down where they run, the last first; then each is moved and started, and nothing is
    lost. What was not moved is told; the same command goes on with it.

    Args:
        group: Its name.
        planned: Shut them down where they run first; nothing is lost.
        point: Begin with this point of the group in place of all that each replica has.
        order: In which they are started this time, with commas: db01,web01.
        force: They surely do not run on the other host: its plug is pulled.
        dry_run: Only say what would be lost.
        timeout: Planned: how long each machine may take to shut down.
        yes: Do not ask whether to do it.
        state: Folder of this host's agent.
        options: See below.
    """
    asked = FailGroupOver(
        group=group,
        order=_names(order),
        point=point,
        planned=planned,
        force=force,
        dry_run=True,
        shutdown_seconds=parse_duration(timeout),
    )
    with agent_of(state, options) as agent:
        report = agent.call(moving.FAIL_OVER, asked)
        if not dry_run:
            names = ", ".join(one.machine for one in report.machines if not one.moved)
            for warning in report.warnings:
                output.warn(warning)
            confirm(f"Start {names} here?", "Nothing was done", yes=yes or options.output == "json")
            real = msgspec.structs.replace(asked, dry_run=False)
            report = agent.call(moving.FAIL_OVER, real, timeout=_LONG_SECONDS)
    _tell(report, options, dry_run=dry_run)


def failback(
    group: str,
    /,
    *,
    order: str = "",
    dry_run: Switch = False,
    timeout: str = "2m",
    yes: Yes = False,
    state: State = None,
    options: Options = DEFAULTS,
) -> None:
    """Bring a group home that was taken over. Run it on the host that it comes home to.

    It must be protected in this direction (group reprotect). It is the same as "group failover --planned".

    Args:
        group: Its name.
        order: In which they are started this time, with commas.
        dry_run: Only say how it stands.
        timeout: How long each machine may take to shut down.
        yes: Do not ask whether to do it.
        state: Folder of this host's agent.
        options: See below.
    """
    failover(
        group,
        planned=True,
        order=order,
        dry_run=dry_run,
        timeout=timeout,
        yes=yes,
        state=state,
        options=options,
    )


def rehearse(
    group: str,
    /,
    *,
    point: str = "",
    order: str = "",
    check: Repeatable = (),
    check_timeout: str = "60s",
    state: State = None,
    options: Options = DEFAULTS,
) -> None:
    """Try the failover of a group while replication goes on. Run it on the standby.

    Copies of all machines as of one point are started in order, in one network without any way out. When all
    are up, the checks are run inside; then all are taken down. One that fails gives exit status 1.

    Args:
        group: Its name.
        point: Try this point of the group; the newest if not said.
        order: In which they are started this time, with commas.
        check: MACHINE=COMMAND for the shell inside, which must end with status 0; several times.
        check_timeout: How long each check may take.
        state: Folder of this host's agent.
        options: See below.
    """
    checks: dict[str, tuple[str, ...]] = {}
    for text in check:
        ((name, command),) = _by_machine((text,)).items()
        checks[name] = (*checks.get(name, ()), command)
    asked = rehearsal.RehearseGroup(
        group=group,
        order=_names(order),
        point=point,
        checks=checks,
        check_seconds=parse_duration(check_timeout),
    )
    with agent_of(state, options) as agent:
        done = agent.call(rehearsal.REHEARSE_GROUP, asked, timeout=_LONG_SECONDS)
    if options.output == "json":
        fields: dict[str, Any] = msgspec.to_builtins(done)
        output.print_document(output.document("group-rehearsal", **fields))
    else:
        rows = [
            (report.machine, step.name, f"{step.seconds:.2f}", step.problem)
            for report in done.reports
            for step in report.steps
        ]
        output.print_table(("MACHINE", "STEP", "SECONDS", "PROBLEM"), rows, right=("SECONDS",))
    if failed := [report.machine for report in done.reports if report.problem]:
        raise HotspareError(
            f"The rehearsal of {group} failed for {', '.join(failed)}",
            meaning="Replication goes on; the copies were taken down",
            hint="Look into that before it is needed",
        )


def reprotect(group: str, /, *, state: State = None, options: Options = DEFAULTS) -> None:
    """Protect a group that was taken over in the other direction. Run it where its machines run now.

    Args:
        group: Its name.
        state: Folder of this host's agent.
        options: See below.
    """
    with agent_of(state, options) as agent:
        turned = agent.call(moving.REPROTECT_GROUP, service.NamedGroup(group=group), timeout=_LONG_SECONDS)
    _tell_turned(group, turned, options)


def _tell_turned(group: str, turned: GroupTurned, options: Options) -> None:
    if options.output == "json":
        machines = [{"machine": one.machine, "error": one.error or None} for one in turned.machines]
        output.print_document(output.document("group-reprotected", group=group, machines=machines))
    else:
        rows = [(one.machine, "no" if one.error else "yes", one.error) for one in turned.machines]
        output.print_table(("MACHINE", "TURNED", "PROBLEM"), rows)
    _raise_partial([one.machine for one in turned.machines if one.error], "protected in the other direction")


def _tell(report: GroupReport, options: Options, *, dry_run: bool) -> None:
    if options.output == "json":
        fields: dict[str, Any] = msgspec.to_builtins(report)
        output.print_document(output.document("group-failover", dry_run=dry_run, **fields))
    else:
        rows = [
            (
                one.machine,
                "yes" if one.moved else "no",
                format_duration(one.report.seconds) if one.report and one.moved else "-",
                "-" if one.answered is None else "yes" if one.answered else "no",
                one.error,
            )
            for one in report.machines
        ]
        output.print_table(("MACHINE", "RUNS HERE", "IN", "ANSWERED", "PROBLEM"), rows)
        for warning in report.warnings:
            output.warn(warning)
    _raise_partial([one.machine for one in report.failed], "started here")


def _raise_partial(failed: list[str], what: str) -> None:
    if failed:
        raise PartialFailure(
            f"{', '.join(failed)} {'was' if len(failed) == 1 else 'were'} not {what}",
            meaning="The others were",
            hint="What was in the way is said above; the same command goes on with them",
        )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _delay(text: str) -> float:
    return 0.0 if text.strip() in {"0", "0s"} else parse_duration(text)


def _by_machine(texts: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name or not value:
            raise UsageError(f"{text!r} is not of the form MACHINE=VALUE", meaning="Nothing was done")
        found[name] = value
    return found
