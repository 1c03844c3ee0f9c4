"""``hotspare replica``: keep machines on a second host as well."""

import logging
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output, replica_failover, replica_group, replica_plain
from hotspare.cli.confirmation import Yes, confirm
from hotspare.cli.help import closing, noun
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.replica_documents import peer_fields, point_fields, status_fields, status_rows
from hotspare.cli.replica_options import DEFAULT_MANNER, Manner
from hotspare.cli.replica_state import State, agent_of, state_folder
from hotspare.errors import MachineNotFound, PermissionRefused, PlatformUnavailable, TargetExists, UsageError
from hotspare.replication import pairing, protections
from hotspare.replication.agent import Agent
from hotspare.replication.link.wire import NOTHING
from hotspare.replication.model import (
    DEFAULT_PORT,
    NamedProtection,
    Protection,
    Status,
)
from hotspare.replication.parts import PARTS, RUNNERS
from hotspare.replication.standby import service

app = noun("replica", "Keep machines on a second host as well, ready to go on there.")


@app.command(
    help_epilogue=closing(
        ["hotspare replica agent", "hotspare replica agent --name rack2 --listen 10.0.0.2"],
        PlatformUnavailable,
        interruptible=True,
    )
)
def agent(
    *,
    name: str = "",
    listen: str = "",
    port: int = DEFAULT_PORT,
    state: State = None,
    options: Options = DEFAULTS,
) -> None:
    """Run this host's agent, until Ctrl-C or SIGTERM.

    Each host that takes part in replication runs one, as root. When it ends, or is killed, machines go on and
    replicas follow them all the same; the next agent takes over. What it does is told on stderr.

    Args:
        name: What the others call this host; its host name if not said.
        listen: IP address on which other agents reach it; all of this host's if not said.
        port: For other agents. Each replica takes one of the 99 ports after it.
        state: Folder of what it keeps; /var/lib/hotspare/replication if not said.
        options: See below.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    running = Agent(state_folder(state, options), RUNNERS, PARTS, name=name, address=listen, port=port)
    with cancelled_by_signals() as cancellation:
        running.start()
        cancellation.wait()
    running.close()


@app.command(
    help_epilogue=closing(
        [
            "hotspare replica pair --address standby.example.org   # on the standby: prints a token",
            "hotspare replica pair TOKEN --address source.example.org   # on the source",
            "hotspare replica pair --list",
        ],
        PlatformUnavailable,
        PermissionRefused,
    )
)
def pair(
    token: str | None = None,
    /,
    *,
    address: str = "",
    list_: Annotated[bool, Parameter(name="--list", negative="", show_default=False)] = False,
    state: State = None,
    options: Options = DEFAULTS,
) -> None:
    """Make two hosts known to each other, so that they trust each other's certificates.

    On the one host, run it without a token: it prints one, which is good once and for ten minutes. Run it
    with that on the other. Each host keeps its own keys; nobody else is asked.

    Args:
        token: What the other host printed.
        address: Where the other host reaches this one: a name or an IP address.
        list_: List the hosts that this one was paired with.
        state: Folder of this host's agent.
        options: See below.
    """
    with agent_of(state, options) as asked:
        if list_:
            peers = asked.call(pairing.LIST, NOTHING)
            if options.output == "json":
                output.print_document(output.document("peers", peers=[peer_fields(one) for one in peers]))
                return
            rows = [(one.name, one.address, str(one.port), one.id) for one in peers]
            output.print_table(("HOST", "ADDRESS", "PORT", "ID"), rows, right=("PORT",))
            return
        if not address:
            raise UsageError(
                "The other host must know where to reach this one",
                meaning="Nothing was done",
                hint="Name this host's address with --address",
            )
        if token is None:
            offered = asked.call(pairing.OFFER, pairing.Offer(address=address))
            if options.output == "json":
                output.print_document(output.document("pairing-token", token=offered.token))
            else:
                output.note("Run this on the other host, within ten minutes:")
                output.print_text(f"hotspare replica pair {offered.token} --address ITS-OWN-ADDRESS")
            return
        peer = asked.call(pairing.ACCEPT, pairing.Accept(token=token, address=address))
        if options.output == "json":
            output.print_document(output.document("peer", **peer_fields(peer)))
        else:
            output.print_text(f"Paired with {peer.name} ({peer.address}:{peer.port}).")


@app.command(
    help_epilogue=closing(
        [
            "hotspare replica create web01 --to standby",
            "hotspare replica create db01 --to standby --every 30s --keep '1m for 1h, 1h for 2d'",
            "hotspare replica create web01 --to standby --bandwidth 50MiB/s",
            "hotspare replica create web01 --to standby --group shop",
        ],
        PlatformUnavailable,
        MachineNotFound,
        TargetExists,
    )
)
def create(
    machine: str,
    /,
    *,
    to: str,
    manner: Manner = DEFAULT_MANNER,
    state: State = None,
    options: Options = DEFAULTS,
) -> None:
    """Keep a machine on a second host as well, from now on.

    Run it on the host of the machine. In sync mode each write is on both hosts before the guest learns that
    it is done; in interval mode what has changed is sent again and again. It begins at once, and goes on
    whenever the machine runs; "hotspare replica status" tells how far it is.

    Args:
        machine: Name or UUID.
        to: Name of the host that keeps the replica; see "hotspare replica pair".
        manner: See below.
        state: Folder of this host's agent.
        options: See below.
    """
    with agent_of(state, options) as asked:
        made = asked.call(protections.CREATE, protections.Create(protection=manner.protection(machine, to)))
    if options.output == "json":
        output.print_document(output.document("protection", id=made.id, machine=made.machine))
    else:
        output.print_text(f"{made.machine} is kept on {to} from now on (protection {made.id}).")


@app.command(
    name="list",
    help_epilogue=closing(["hotspare replica list", "hotspare replica list -o json"], PlatformUnavailable),
)
def list_protections(*, state: State = None, options: Options = DEFAULTS) -> None:
    """List the machines that this host protects, and the replicas that it keeps.

    Args:
        state: Folder of this host's agent.
        options: See below.
    """
    _show(_statuses(state, options), options)


@app.command(
    help_epilogue=closing(
        ["hotspare replica status", "hotspare replica status web01 -o json"],
        PlatformUnavailable,
        MachineNotFound,
    )
)
def status(machine: str | None = None, /, *, state: State = None, options: Options = DEFAULTS) -> None:
    """Tell how the replication of machines goes: the phase, and the lag in bytes and seconds.

    Args:
        machine: Just this one, by name or by the id of its protection.
        state: Folder of this host's agent.
        options: See below.
    """
    found = _statuses(state, options)
    if machine is not None:
        found = [one for one in found if machine in {one.protection.machine, one.protection.id}]
        if not found:
            raise MachineNotFound(
                f"No machine {machine!r} is protected here, and no replica of one kept",
                hint='See "hotspare replica list"',
            )
    _show(found, options)


def _statuses(state: Path | None, options: Options) -> list[Status]:
    with agent_of(state, options) as asked:
        return asked.call(protections.STATUS, NOTHING)


def _show(statuses: list[Status], options: Options) -> None:
    if options.output == "json":
        document = output.document("replicas", replicas=[status_fields(one) for one in statuses])
        output.print_document(document)
        return
    header = ("MACHINE", "GROUP", "MODE", "PHASE", "FOR", "LAG", "POINTS", "NEWEST POINT", "DETAIL")
    output.print_table(header, status_rows(statuses), right=("FOR", "POINTS"))


@app.command(help_epilogue=closing(["hotspare replica stop web01"], PlatformUnavailable, MachineNotFound))
def stop(machine: str, /, *, state: State = None, options: Options = DEFAULTS) -> None:
    """Stop replicating a machine; its replica stays as it is, and the machine runs on.

    Args:
        machine: By name, or by the id of its protection.
        state: Folder of this host's agent.
        options: See below.
    """
    with agent_of(state, options) as asked:
        stopped = asked.call(protections.STOP, NamedProtection(protection=machine))
    _say(stopped, "stopped", f"{stopped.machine} is not replicated any more; its replica stays.", options)


@app.command(help_epilogue=closing(["hotspare replica start web01"], PlatformUnavailable, MachineNotFound))
def start(machine: str, /, *, state: State = None, options: Options = DEFAULTS) -> None:
    """Go on with a replication that was stopped.

    Args:
        machine: By name, or by the id of its protection.
        state: Folder of this host's agent.
        options: See below.
    """
    with agent_of(state, options) as asked:
        started = asked.call(protections.START, NamedProtection(protection=machine))
    _say(started, "started", f"{started.machine} is replicated again.", options)


@app.command(
    help_epilogue=closing(["hotspare replica remove web01 --yes"], PlatformUnavailable, MachineNotFound)
)
def remove(
    machine: str,
    /,
    *,
    only_here: Switch = False,
    yes: Yes = False,
    state: State = None,
    options: Options = DEFAULTS,
) -> None:
    """Stop replicating a machine, and remove its replica with all points. The machine runs on.

    Args:
        machine: By name, or by the id of its protection.
        only_here: The standby is gone for good: do not ask it to remove the replica.
        yes: Do not ask.
        state: Folder of this host's agent.
        options: See below.
    """
    confirm(f"Remove the replica of {machine} with all of its points?", "Nothing was removed", yes=yes)
    with agent_of(state, options) as asked:
        removed = asked.call(
            protections.REMOVE, protections.Remove(protection=machine, only_here=only_here), timeout=120
        )
    _say(removed, "removed", f"The replica of {removed.machine} is removed.", options)


def _say(protection: Protection, kind: str, text: str, options: Options) -> None:
    if options.output == "json":
        document = output.document(f"replica-{kind}", id=protection.id, machine=protection.machine)
        output.print_document(document)
    else:
        output.print_text(text)


@app.command(
    help_epilogue=closing(
        ["hotspare replica points web01   # on the standby"], PlatformUnavailable, MachineNotFound
    )
)
def points(machine: str, /, *, state: State = None, options: Options = DEFAULTS) -> None:
    """List the points of a replica that this host keeps, the oldest first: states to step back to.

    Args:
        machine: By name, or by the id of its protection.
        state: Folder of this host's agent.
        options: See below.
    """
    with agent_of(state, options) as asked:
        found = asked.call(service.POINTS, NamedProtection(protection=machine)).points
    if options.output == "json":
        document = output.document("replica-points", points=[point_fields(one) for one in found])
        output.print_document(document)
        return
    rows = [
        (
            one.id,
            output.local_time(one.taken_at),
            one.consistency,
            ", ".join(disk.name for disk in one.disks),
            one.group.name if one.group else "",
        )
        for one in found
    ]
    output.print_table(("POINT", "TAKEN", "CONSISTENCY", "DISKS", "GROUP"), rows)


replica_failover.add_commands(app)
replica_group.add_commands(app)
replica_plain.add_commands(app)
