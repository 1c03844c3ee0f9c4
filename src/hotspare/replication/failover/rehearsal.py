"""Trying a failover while replication goes on: a copy of a point is started where nobody can reach it.

The copy has disks that lie upon the point's and take all writes, an identity of its own, and network cards
that are plugged into nothing but each other. It is taken down on every way out; what a killed agent has left,
the next one takes down when it starts.
"""

import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import libvirt
import msgspec

from hotspare.block.qemu import run_tool
from hotspare.errors import HotspareError, PointNotFound, TargetExists
from hotspare.platforms.libvirt.connection import explained, open_connection
from hotspare.platforms.libvirt.definition import NewDisk, restored_definition
from hotspare.platforms.libvirt.entrance import let_qemu_reach
from hotspare.platforms.libvirt.guest_agent import run_shell
from hotspare.platforms.libvirt.kvm import kvm_problem
from hotspare.platforms.libvirt.restored_state import RestoredState
from hotspare.platforms.placement import Placement
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.failover import machine as machines
from hotspare.replication.failover.cards import compare_cards
from hotspare.replication.failover.report import Report, new_report
from hotspare.replication.kept import write_struct
from hotspare.replication.model import Protection

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent

_FOLDER = "rehearsals"
_RECORD = "rehearsal.json"
_WHY = "a rehearsal uses it"


class _Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be taken down."""

    name: str
    """Of the machine that is the copy."""
    platform: str
    protection: str
    point: str
    network: str = ""
    """Where its network cards are; a network of its name, unless it has others with it."""


@dataclass(slots=True)
class Copy:
    """A copy of a point, which is taken down at the end of ``copied``; its report says how it went."""

    agent: "Agent"
    rehearsal: _Rehearsal
    point: ReplicaPoint
    folder: Path
    report: Report
    macs: Mapping[str, str]
    """MAC addresses that its cards get in place of others, as after a failover."""
    domain: libvirt.virDomain | None = None

    def start(self) -> None:
        """Start it. Raises ``HotspareError``, which the report says, too."""
        replica = self.agent.replica(self.rehearsal.protection)
        with self.report.step("put disks upon the point"):
            write_struct(self.folder / _RECORD, self.rehearsal)
            replica.pin(self.point.id, _WHY)
            disks = {}
            for disk in self.point.disks:
                image, path = replica.folder / disk.image, self.folder / f"{disk.name}.qcow2"
                onto = ["-b", str(image), "-F", "qcow2", "-u"]
                run_tool(["qemu-img", "create", "-q", "-f", "qcow2", *onto, str(path), str(disk.size)], path)
                disks[disk.name] = NewDisk(path, "qcow2")
        with self.report.step("start it"):
            connection = open_connection(self.rehearsal.platform)
            definition = _definition(self, disks)
            self.report.cards = compare_cards(self.point.machine, definition)
            for folder in (replica.folder, self.folder):
                let_qemu_reach(connection, folder, self.agent.state.parent)
            with explained(f"{self.rehearsal.name} does not start"):
                if definition.find("devices/interface") is not None:
                    _make_network(connection, _network(self.rehearsal))
                self.domain = connection.createXML(ET.tostring(definition, encoding="unicode"))

    def wait_for_agent(self, seconds: float) -> None:
        """Wait until its guest agent answers. Raises ``HotspareError``, which the report says, too."""
        with self.report.step("wait for the guest's agent"):
            if self.domain is None or not machines.wait_for_agent(self.domain, seconds):
                raise HotspareError(f"the guest's agent has not answered within {seconds:.0f} s")

    def check(self, command: str, seconds: float) -> None:
        """Run a command inside, which must end with status 0. Raises likewise."""
        with self.report.step(f"check: {command}"):
            if self.domain is None:
                raise HotspareError("it was not started")
            _check(self.domain, command, seconds)


def rehearse(
    agent: "Agent",
    protection: Protection,
    point_name: str,
    checks: Sequence[str],
    *,
    boot_seconds: float,
    check_seconds: float,
) -> Report:
    """Start a copy of a point, check it, take it down; the report says how that went, and fails nothing.

    Args:
        agent: of the standby.
        protection: of the machine.
        point_name: beginning of the point's id; empty for the newest.
        checks: commands for the shell inside; each must end with status 0.
        boot_seconds: how long the guest's agent may take to answer.
        check_seconds: how long each check may take.

    Raises:
        PointNotFound: there is no such point.
        TargetExists: a rehearsal of this machine is under way.
    """
    with copied(agent, protection, point_name) as copy, suppress(HotspareError):  # the report says it
        copy.start()
        copy.wait_for_agent(boot_seconds)
        for check in checks:
            copy.check(check, check_seconds)
    return copy.report


@contextmanager
def copied(agent: "Agent", protection: Protection, point_name: str, network: str = "") -> Iterator[Copy]:
    """Take down, after the block, the copy that is started in it. Raises as ``rehearse``.

    Args:
        agent: of the standby.
        protection: of the machine.
        point_name: beginning of the point's id; empty for the newest.
        network: that it shares with other copies; empty for one of its own.
    """
    replica = agent.replica(protection.id)
    points = replica.points()
    if not points:
        raise PointNotFound(
            f"The replica of {protection.machine} has no point yet", meaning="Nothing was done"
        )
    point = replica.point(point_name) if point_name else points[-1]
    folder = agent.state / _FOLDER / protection.id
    try:
        folder.mkdir(mode=0o711, parents=True)
    except FileExistsError:
        raise TargetExists(
            f"A rehearsal of {protection.machine} is under way",
            meaning="Nothing was done",
            hint="Wait for its end; an agent that starts anew takes down what a killed one has left",
        ) from None
    report = new_report("rehearsal", protection.machine, protection.id)
    report.point, report.point_taken_at = point.id, point.taken_at
    rehearsal = _Rehearsal(
        name=machines.name_of_copy(protection.machine),
        platform=protection.platform,
        protection=protection.id,
        point=point.id,
        network=network,
    )
    try:
        yield Copy(agent, rehearsal, point, folder, report, protection.failover.mac_map)
    finally:
        with report.step("take it down"):
            _take_down(agent, rehearsal, folder)


def _network(rehearsal: _Rehearsal) -> str:
    return rehearsal.network or rehearsal.name


def _make_network(connection: libvirt.virConnect, name: str) -> None:
    """Make a network without any way out, unless another copy has made it."""
    if name not in connection.listNetworks():
        connection.networkCreateXML(f"<network><name>{name}</name></network>")


def _definition(copy: Copy, disks: dict[str, NewDisk]) -> ET.Element:
    """Give the definition of the copy, all of whose network cards are in a network of their own.

    There they have the MAC addresses of a failover, which a machine elsewhere may have at the same time.
    """
    rehearsal, point = copy.rehearsal, copy.point
    state = RestoredState(rehearsal.platform, point.machine, copy.folder / "nvram")
    copy.report.warnings += [problem for one in point.state if (problem := state.add(one)) is not None]
    text = restored_definition(
        point.machine,
        rehearsal.name,
        disks,
        kvm_works=lambda: kvm_problem() is None,
        state=state.placed,
        placement=Placement(keep_macs=True, macs=copy.macs),
    )
    state.keep()
    root = ET.fromstring(text)  # noqa: S314 - made just now
    for card in root.iterfind("devices/interface"):
        card.set("type", "network")
        for part in ("source", "target", "virtualport", "vlan", "backend", "filterref"):
            for element in card.findall(part):
                card.remove(element)
        ET.SubElement(card, "source", network=_network(rehearsal))
    return root


def _check(domain: libvirt.virDomain, check: str, seconds: float) -> None:
    try:
        ended = run_shell(domain, check, [], seconds=seconds)
    except (libvirt.libvirtError, TimeoutError) as error:
        raise HotspareError(f"it could not be run: {error}") from error
    if ended.status:
        raise HotspareError(f"it ended with status {ended.status}: {ended.output.strip()[-500:]}")


def _take_down(agent: "Agent", rehearsal: _Rehearsal, folder: Path) -> None:
    connection = open_connection(rehearsal.platform)
    with suppress(libvirt.libvirtError):  # it was not started, or is gone
        connection.lookupByName(rehearsal.name).destroy()
    with suppress(libvirt.libvirtError):
        connection.networkLookupByName(_network(rehearsal)).destroy()
    with suppress(HotspareError):
        agent.replica(rehearsal.protection).unpin(rehearsal.point)
    shutil.rmtree(folder, ignore_errors=True)


def sweep(agent: "Agent") -> None:
    """Take down what agents that were killed have left."""
    for folder in (agent.state / _FOLDER).glob("*"):
        record = folder / _RECORD
        if record.exists():
            _take_down(agent, msgspec.json.decode(record.read_bytes(), type=_Rehearsal), folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
