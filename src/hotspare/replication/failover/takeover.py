"""Taking a machine over: on the standby, once this host is the holder."""

import logging
import os
import subprocess
import threading
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hotspare.errors import HotspareError, MachineNotFound
from hotspare.platforms.libvirt.connection import open_connection
from hotspare.platforms.libvirt.entrance import let_qemu_reach
from hotspare.replication.failover import machine as machines
from hotspare.replication.failover.active import Active, drop_active, make_active, note_defined, read_active
from hotspare.replication.failover.cards import cards_of, mac_there
from hotspare.replication.failover.report import Loss, Report, new_report
from hotspare.replication.kept import write_struct
from hotspare.replication.lease.terms import How, Record
from hotspare.replication.model import Protection, Tenure

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent

_LOG = logging.getLogger("hotspare.replica")
REPORT = "failover-report.json"
REQUEST = "failover-request.json"
"""What the user asked for, until it is done: an agent that dies meanwhile goes on with it."""
TENURE = "tenure.json"
"""What the runner of the source reads: in which epoch this host runs the machine."""
_BOOT_SECONDS = 300.0
_HOOK_SECONDS = 120.0
_starting: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
"""By the protection: held while its machine is brought up, so that the lease's keeper and a user do not at
the same time. Machines of a lost host do not wait for each other."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be started."""

    point: str = ""


def bring_up(agent: "Agent", protection: Protection, record: Record) -> Report:
    """Start the machine upon its replica, in an epoch of which this host is the holder.

    May be called again after any interruption: it goes on with what there is.

    Raises:
        HotspareError: it cannot be started; the report, kept in the protection's folder, says at which step.
    """
    with _starting[protection.id]:
        return _bring_up(agent, protection, record)


def _bring_up(agent: "Agent", protection: Protection, record: Record) -> Report:
    folder = agent.folder_of(protection.id)
    report = new_report("failover", protection.machine, protection.id)
    report.epoch = record.epoch
    try:
        with report.step("close the replica"):
            tenure = Tenure(epoch=record.epoch, holder=agent.identity.id)
            replica = agent.replica(protection.id)
            replica.pass_on(tenure)
            write_struct(folder / TENURE, tenure)
        with report.step("put an image upon it"):
            active = read_active(folder)
            if active is None:
                active = make_active(folder, replica, record.epoch, _request(folder).point)
            if active.ended:
                raise HotspareError("What is here is older than where the machine went from here")
            report.point = "" if active.newest else active.point
            for point in replica.points():
                if point.id == active.point:
                    report.point_taken_at = point.taken_at
                    report.warnings += point.warnings
            _tell_age(report, active, record)
        with report.step("define the machine"):
            domain = machines.find_again(protection, defined=active.defined)
            if domain is None:
                domain, warnings = machines.define(
                    protection.platform,
                    active.machine,
                    protection.machine,
                    {disk.name: replica.folder / disk.image for disk in active.disks},
                    active.state,
                    protection.failover,
                    replica.folder / "nvram",
                )
                report.warnings += warnings
                note_defined(folder, active)
            report.cards = cards_of(active.machine, protection.failover)
        with report.step("start it"):
            let_qemu_reach(open_connection(protection.platform), replica.folder, agent.state.parent)
            machines.start(domain)
    finally:
        write_struct(folder / REPORT, report)
    (folder / REQUEST).unlink(missing_ok=True)
    _LOG.warning("%s was started here: %s", protection.machine, report.steps)
    threading.Thread(
        target=_after_start, args=(protection, active, report, folder), name="after-start", daemon=True
    ).start()
    return report


def begin_again(agent: "Agent", protection: Protection, record: Record, point: str) -> Report:
    """Start the machine here from another state of its replica, in place of the one that it runs from.

    What it wrote here is gone then. May be called again after any interruption; the agent's next start goes
    on with it.

    Args:
        agent: of this host, which is the holder.
        protection: not turned yet, so nothing follows what the machine writes here.
        record: of the lease.
        point: beginning of a point's id; empty for all that the replica had.

    Raises:
        PointNotFound: there is no such point; nothing was done.
        HotspareError: it cannot be stopped, or started.
    """
    folder, replica = agent.folder_of(protection.id), agent.replica(protection.id)
    if point:
        replica.point(point)
    with _starting[protection.id]:
        ask_for(folder, Request(point=point))
        machines.destroy(protection.platform, protection.machine_id)
        drop_active(folder, replica)
        return bring_up(agent, protection, record)


def _tell_age(report: Report, active: Active, record: Record) -> None:
    """Say how old what it begins with is. Who asked for the failover may know better what is lost."""
    taken = report.point_taken_at
    if taken is None:
        return
    if not active.newest:
        report.loss = Loss(seconds=round(max(0.0, active.since - taken.timestamp()), 1), bytes=None)
    elif active.state and record.how is not How.HANDED:  # then that point is the last of all
        report.warnings.append(
            f"its UEFI variables and TPM state are as of {taken:%Y-%m-%d %H:%M:%S} UTC; its disks are newer"
        )


def ask_for(folder: Path, request: Request) -> None:
    """Note what the user wants to be started."""
    write_struct(folder / REQUEST, request)


def is_asked_for(folder: Path) -> bool:
    """Tell whether the user wants something to be started that is not yet."""
    return (folder / REQUEST).exists()


def _request(folder: Path) -> Request:
    path = folder / REQUEST
    return msgspec.json.decode(path.read_bytes(), type=Request) if path.exists() else Request()


def read_report(folder: Path) -> Report | None:
    """Give the report of the last failover to this host."""
    path = folder / REPORT
    return msgspec.json.decode(path.read_bytes(), type=Report) if path.exists() else None


def _after_start(protection: Protection, active: Active, report: Report, folder: Path) -> None:
    """Do what can be done only when the guest is up: its addresses, and the user's command."""
    try:
        with report.step("wait for the guest's agent"):
            domain = machines.find(protection.platform, protection.machine_id)
            if not machines.wait_for_agent(domain, _BOOT_SECONDS):
                report.warnings.append("the guest's agent has not answered")
        if not _is_still(folder, active):
            return
        if protection.failover.addresses:
            with report.step("change addresses inside"):
                policy = protection.failover
                addresses = {
                    mac_there(mac, policy.mac_map): wanted for mac, wanted in policy.addresses.items()
                }
                report.warnings += machines.change_addresses(domain, addresses)
        if protection.failover.after_start:
            with report.step("run the command after it"):
                _run_hook(protection, active)
    except HotspareError as error:
        _LOG.error("%s: %s", protection.machine, error)
    finally:
        if _is_still(folder, active):
            write_struct(folder / REPORT, report)


def _is_still(folder: Path, active: Active) -> bool:
    """Whether the machine runs from that still, and was not begun again from another state, or went home."""
    now = read_active(folder)
    return now is not None and not now.ended and now.since == active.since


def _run_hook(protection: Protection, active: Active) -> None:
    environment = {
        **os.environ,
        "HOTSPARE_MACHINE": protection.machine,
        "HOTSPARE_MACHINE_ID": protection.machine_id,
        "HOTSPARE_EPOCH": str(active.epoch),
        "HOTSPARE_POINT": active.point,
        "HOTSPARE_ADDRESSES": " ".join(protection.failover.addresses.values()),
    }
    run_command(protection.failover.after_start, environment)


def run_command(command: str, environment: dict[str, str]) -> None:
    """Run a command of the user's through the shell. Raises ``HotspareError`` when it fails."""
    try:
        ended = subprocess.run(  # noqa: S602 - a command line is what the user gave
            command,
            shell=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_HOOK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HotspareError(f"{command!r} did not end within {_HOOK_SECONDS:.0f} s") from error
    if ended.returncode:
        said = ended.stdout.decode(errors="replace").strip()[-500:]
        raise HotspareError(f"{command!r} ended with status {ended.returncode}: {said}")


def start_again(protection: Protection) -> None:
    """Start the machine on the host where it was before, after that was off for a while."""
    try:
        machines.start(machines.find(protection.platform, protection.machine_id))
    except MachineNotFound:
        _LOG.warning("%s is not defined here any more", protection.machine)
