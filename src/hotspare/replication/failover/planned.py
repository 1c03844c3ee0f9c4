"""Giving a machine to the other host without losing anything: on the host where it runs."""

import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import libvirt

from hotspare.block.qemu import QemuNbd
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError
from hotspare.platforms.libvirt.connection import explained
from hotspare.platforms.libvirt.inventory import DomainDisk, inspect_disks
from hotspare.replication.compare.bring_alike import CompareCounts, bring_alike
from hotspare.replication.failover import machine as machines
from hotspare.replication.failover.describe import describe_off
from hotspare.replication.failover.report import Report, new_report
from hotspare.replication.interval.remote import RemoteStandby
from hotspare.replication.lease.keeper import LeaseKeeper
from hotspare.replication.model import Protection

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent

_HAND_OVER_SECONDS = 60.0
_POLL_SECONDS = 0.05


def hand_over(agent: "Agent", protection: Protection, keeper: LeaseKeeper, shutdown_seconds: float) -> Report:
    """Shut the machine down, make the replica the same to the last byte, and give the machine away.

    Until it is given away, any failure lets it start here again.

    Raises:
        HotspareError: it did not shut down, or the standby does not answer.
    """
    report = new_report("hand-over", protection.machine, protection.id)
    domain = machines.find(protection.platform, protection.machine_id)
    with report.step("shut down"):
        machines.shut_down(domain, shutdown_seconds)
    agent.stop_protecting(protection)
    try:
        with report.step("last pass"):
            _last_pass(agent, protection, domain, report)
    except BaseException:
        agent.keep(protection)
        with suppress(HotspareError):
            machines.start(domain)
        raise
    with report.step("hand over"):
        keeper.hand_over(protection.standby)
        end = time.monotonic() + _HAND_OVER_SECONDS
        while keeper.record.holder != protection.standby:
            if time.monotonic() > end:
                raise HotspareError(
                    f"Nobody has confirmed that {protection.machine} was handed over",
                    meaning="It is off here, and is the standby's from now on; no data is missing there",
                    hint="It starts there as soon as the standby or the witness can be reached",
                )
            time.sleep(_POLL_SECONDS)
    return report


def _last_pass(agent: "Agent", protection: Protection, domain: libvirt.virDomain, report: Report) -> None:
    """Compare all disks with the replica's and send what differs; then make that a point."""
    with explained(f"The disks of {protection.machine} cannot be looked at"):
        disks = [
            disk
            for disk in inspect_disks(domain).backed_up
            if not protection.disks or disk.name in protection.disks
        ]
    identity = agent.identity
    standby = RemoteStandby(
        identity, identity.peer(protection.standby), protection, agent.tenure_of(protection)
    )
    with closing(standby):
        sizes = {disk.name: disk.size for disk in disks}
        standby.receive(sizes)
        for disk in disks:
            counts = _bring_alike(standby, disk)
            report.bytes_compared += counts.compared
            report.bytes_sent += counts.sent
        newest = [point.id for point in standby.points()][-1:]
        standby.make_point(describe_off(domain, protection.platform, sizes, after="".join(newest)))


def _bring_alike(standby: RemoteStandby, disk: DomainDisk) -> CompareCounts:
    # The image may be one upon a replica's: its references are ours.
    with (
        QemuNbd(disk.path, disk.format, allow_references=True) as served,
        closing(served.connect()) as source,
        closing(standby.hasher(disk.name)) as theirs,
    ):
        return bring_alike(
            source,
            standby.open_disk(disk.name),
            theirs,
            on_progress=lambda _counts: None,
            cancellation=Cancellation(),
        )
