"""The commands of ``hotspare replica`` that bring a machine up on its standby, and home again."""

from typing import Any

import msgspec
from cyclopts import App

from hotspare.cli import output
from hotspare.cli.confirmation import confirm
from hotspare.cli.help import closing
from hotspare.cli.options import DEFAULTS, Options, Repeatable, Switch
from hotspare.cli.quantities import parse_duration
from hotspare.cli.replica_state import State, agent_of
from hotspare.errors import HotspareError, MachineNotFound, PlatformUnavailable, PointNotFound, UsageError
from hotspare.replication import protections
from hotspare.replication.failover import service
from hotspare.replication.failover.cards import choose_macs
from hotspare.replication.failover.report import Loss, Report
from hotspare.replication.link.client import LocalClient
from hotspare.replication.link.wire import NOTHING
from hotspare.replication.model import FailoverPolicy, NamedProtection, Protection
from hotspare.units import format_bytes

_LONG_SECONDS = 24 * 3600.0


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
        (
            rehearse,
            [
                "hotspare replica rehearse web01 --check 'systemctl is-active nginx'",
                "hotspare replica rehearse web01 --point 20261123-0215 -o json",
            ],
        ),
        (
            policy,
            [
                "hotspare replica policy web01 --automatic",
                "hotspare replica policy web01 --map-network lan=lan2 --after-start /usr/local/bin/move-dns",
                "hotspare replica policy web01 --map-mac all=new",
            ],
        ),
        (reprotect, ["hotspare replica reprotect web01"]),
        (lease, ["hotspare replica lease web01", "hotspare replica lease web01 -o json"]),
    ):
        app.command(command, help_epilogue=closing(examples, *errors))


def failover(
    machine: str,
    *,
    planned: Switch = False,
    point: str = "",
    force: Switch = False,
    dry_run: Switch = False,
    timeout: str = "2m",
    yes: Switch = False,
    state: State = None,
    options: Options = DEFAULTS,
) -> None:
    """Start a machine on its standby. Run it there.

    Planned, it is shut down where it runs, what the replica lacks is sent, and nothing is lost. Without that
    it is for a host that is lost: refused while that is alive, or while it is not proven that the machine
    stands still there. With --force you say that you made sure of it.

    Once it runs here, --point begins again from another state of the replica, an earlier or a later one; what
    it wrote here is gone then. That can be done until it is protected in the other direction.

    Args:
        machine: Name or UUID.
        planned: Shut it down where it runs first; nothing is lost.
        point: Begin with this point in place of all that the replica has; "newest" goes back to that.
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
            notes = "".join(f" And {warning}." for warning in before.warnings)
            question = f"Start {machine} here? {_loss_in_words(before.loss)}.{notes}"
            confirm(question, "Nothing was done", yes=yes or options.output == "json")
            real = msgspec.structs.replace(asked, dry_run=False)
            before = agent.call(service.FAILOVER, real, timeout=_LONG_SECONDS)
    _tell(before, options, "would start here" if dry_run else "runs here")


def failback(
    machine: str,
    *,
    dry_run: Switch = False,
    timeout: str = "2m",
    yes: Switch = False,
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


def rehearse(
    machine: str,
    *,
    point: str = "",
    check: Repeatable = (),
    boot_timeout: str = "5m",
    check_timeout: str = "60s",
    state: State = None,
    options: Options = DEFAULTS,
) -> None:
    """Try a failover while replication goes on. Run it on the standby.

    A copy of a point is started, with network cards that are plugged into nothing but each other. When its
    guest agent answers, the checks are run inside. Then it is taken down, whatever happened. A rehearsal
    that fails ends with exit status 1.

    Args:
        machine: Name or UUID.
        point: Try this point; the newest if not said.
        check: Command for the shell inside, which must end with status 0; can be given several times.
        boot_timeout: How long the guest's agent may take to answer.
        check_timeout: How long each check may take.
        state: Folder of this host's agent.
        options: See below.
    """
    asked = service.Rehearse(
        protection=machine,
        point=point,
        checks=check,
        boot_seconds=parse_duration(boot_timeout),
        check_seconds=parse_duration(check_timeout),
    )
    with agent_of(state, options) as agent:
        report = agent.call(service.REHEARSE, asked, timeout=_LONG_SECONDS)
    if options.output == "json":
        output.print_document(output.document("rehearsal", **_fields(report)))
    else:
        taken = report.point_taken_at
        output.print_text(
            f"{report.machine}, as of {output.local_time(taken) if taken else report.point}:"
            f" {'failed' if report.problem else 'works'}, in {report.seconds:.1f} s."
        )
        _tell_report(report)
    if report.problem:
        raise HotspareError(
            f"The rehearsal of {report.machine} failed: {report.problem}",
            meaning="Replication goes on; the copy was taken down",
            hint="Look into that before it is needed",
        )


def policy(
    machine: str,
    *,
    automatic: bool | None = None,
    fence_command: str | None = None,
    after_start: str | None = None,
    map_network: Repeatable = (),
    map_mac: Repeatable = (),
    address: Repeatable = (),
    state: State = None,
    options: Options = DEFAULTS,
) -> None:
    """Say what happens when the host of a machine is lost. Run it on the host that runs it.

    What is not named stays as it is.

    Args:
        machine: Name or UUID.
        automatic: The standby takes over by itself; needs a witness (hotspare replica create --witness).
        fence_command: Run by the standby before it takes over; status 0 says that the source is surely off.
        after_start: Run by the standby once the machine is up there: DNS, say.
        map_network: Network or bridge there for the one here: lan=lan2; can be given several times.
        map_mac: MAC address there, for a card by its MAC address here: MAC=new, MAC=52:54:00:12:34:56, or
            MAC=keep. "all=new" is for all cards that are not named; several times.
        address: Inside the guest there, for the card with this MAC address here: MAC=10.0.0.5/24 or
            MAC=10.0.0.5/24,10.0.0.1; several times.
        state: Folder of this host's agent.
        options: See below.
    """
    with agent_of(state, options) as agent:
        protection = _protection_of(agent, machine)
        if automatic and not protection.witness:
            raise UsageError(
                f"{machine} has no witness, so nobody can tell a lost host from a lost network",
                meaning="Nothing was changed",
                hint="Protect it again with --witness",
            )
        before = protection.failover
        networks = dict(_pairs(map_network)) if map_network else before.network_map
        _refuse_no_way_back(networks)
        now = msgspec.structs.replace(
            before,
            automatic=before.automatic if automatic is None else automatic,
            fence_command=before.fence_command if fence_command is None else fence_command,
            after_start=before.after_start if after_start is None else after_start,
            network_map=networks,
            mac_map=_macs(agent, protection, map_mac) if map_mac else before.mac_map,
            addresses={mac: text.replace(",", " via ") for mac, text in _pairs(address)}
            if address
            else before.addresses,
        )
        agent.call(
            protections.CHANGE,
            protections.Change(protection=msgspec.structs.replace(protection, failover=now)),
        )
    _tell_policy(machine, now, options)


def _tell_policy(machine: str, now: FailoverPolicy, options: Options) -> None:
    if options.output == "json":
        output.print_document(output.document("failover-policy", **msgspec.to_builtins(now)))
        return
    output.print_text(
        f"{machine}: its standby {'takes over by itself' if now.automatic else 'waits for your word'}."
    )
    for mac, there in now.mac_map.items():
        output.print_text(f"The network card {mac} is {there} there.")


def _macs(agent: LocalClient, protection: Protection, choices: tuple[str, ...]) -> dict[str, str]:
    """Give what each card's MAC address becomes. Raises ``UsageError``, ``MachineNotFound``."""
    cards = agent.call(service.CARDS, NamedProtection(protection=protection.id)).cards
    return choose_macs(_pairs(choices), [card.mac for card in cards if card.mac], protection.id)


def _protection_of(agent: LocalClient, machine: str) -> Protection:
    known = [status.protection for status in agent.call(protections.STATUS, NOTHING)]
    found = [one for one in known if machine in {one.machine, one.machine_id, one.id}]
    if len(found) != 1:
        raise MachineNotFound(f"{len(found) or 'No'} protections here are of a machine {machine!r}")
    return found[0]


def _pairs(texts: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name or not value:
            raise UsageError(f"{text!r} is not of the form NAME=VALUE", meaning="Nothing was changed")
        pairs.append((name, value))
    return pairs


def _refuse_no_way_back(networks: dict[str, str]) -> None:
    """Raise ``UsageError`` when two networks become one: home again, nobody could tell which it was."""
    there = list(networks.values())
    if twice := sorted({name for name in there if there.count(name) > 1}):
        raise UsageError(
            f"Two networks would both become {twice[0]}, and come home as the same one",
            meaning="Nothing was changed",
            hint="Map each to one of its own on the standby; two bridges there can be one network, too",
        )


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
        made = agent.call(service.REPROTECT, NamedProtection(protection=machine), timeout=_LONG_SECONDS)
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
        status = agent.call(service.LEASE_STATUS, NamedProtection(protection=machine))
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
    cards = [(card.mac, card.here, card.network) for card in report.cards]
    if cards:
        output.print_table(("NETWORK CARD", "MAC HERE", "PLUGGED INTO"), cards)
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
