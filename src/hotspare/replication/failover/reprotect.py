"""Protecting a machine in the other direction: the host that it was taken from becomes its standby.

That host has most of the data already: the machine's old disks, or an older replica. What differs is found by
comparing, and only that is sent.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hotspare.block.qemu import run_tool
from hotspare.errors import HotspareError, MachineNotFound
from hotspare.platforms.libvirt.connection import explained
from hotspare.platforms.libvirt.inventory import DomainDisk, inspect_disks
from hotspare.replication.failover import machine as machines
from hotspare.replication.failover.active import fold_back
from hotspare.replication.model import Protection, Tenure
from hotspare.replication.standby.chain import Chain, new_layer
from hotspare.replication.standby.replica import Replica

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent


def turned(protection: Protection) -> Protection:
    """Give the same protection in the other direction."""
    turned: Protection = msgspec.structs.replace(
        protection,
        source=protection.standby,
        standby=protection.source,
        folder="",
        stopped=False,
        failover=msgspec.structs.replace(
            protection.failover,
            network_map={there: here for here, there in protection.failover.network_map.items()},
            mac_map={there: here for here, there in protection.failover.mac_map.items()},
            addresses={},
        ),
    )
    return turned


def become_standby(agent: "Agent", protection: Protection, tenure: Tenure) -> None:
    """Make this host's old disks of a machine the beginning of a replica; may be called again.

    Args:
        agent: of this host, on which the machine does not run.
        protection: as it is from now on; this host is its standby.
        tenure: of the host that runs the machine.

    Raises:
        HotspareError: the machine runs here.
        NoSpace, PermissionRefused, SourceLost: a disk cannot be taken over.
    """
    disks = _old_disks(protection)
    agent.keep(protection)
    folder = agent.folder_of(protection.id)
    is_new = False
    try:
        replica = agent.replica(protection.id)
    except MachineNotFound:
        is_new = True
        replica = agent.make_replica(protection, tenure)
    replica.pass_on(tenure)
    if is_new or not replica.state.chains:
        _adopt(replica, disks)
    else:
        fold_back(folder, replica)


def _old_disks(protection: Protection) -> list[DomainDisk]:
    try:
        domain = machines.find(protection.platform, protection.machine_id)
    except MachineNotFound:
        return []
    with explained(f"The disks of {protection.machine} cannot be looked at"):
        if domain.isActive():
            raise HotspareError(
                f"The machine {protection.machine} runs on this host",
                meaning="Nothing was done: its disks here would be overwritten",
                hint="Stop it here first",
            )
        return list(inspect_disks(domain).backed_up)


def _adopt(replica: Replica, disks: list[DomainDisk]) -> None:
    """Begin the chains with the old disks: the same file where that can be, else a copy of it."""
    chains = []
    for disk in disks:
        base = f"{disk.name}.{os.urandom(6).hex()}.qcow2"
        _link_or_copy(disk, replica.folder / base)
        top = new_layer(replica.folder, disk.name, disk.size, base)
        chains.append(Chain(name=disk.name, size=disk.size, layers=(base, top)))
    replica.change(chains=tuple(chains), whole=False, base="", blank=())


def _link_or_copy(disk: DomainDisk, place: Path) -> None:
    if disk.format == "qcow2":
        try:
            place.hardlink_to(disk.path)
        except OSError:
            pass  # it lies in another file system: then it is copied
        else:
            return
    run_tool(
        ["qemu-img", "convert", "-q", "-f", disk.format, "-O", "qcow2", str(disk.path), str(place)],
        place,
        timeout=None,
    )
