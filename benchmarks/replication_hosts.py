"""Two hosts of the lab with an agent each, and a machine that is mirrored from the one to the other."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from hotspare.replication import pairing, protections
from hotspare.replication.link.client import LocalClient
from hotspare.replication.link.wire import NOTHING
from hotspare.replication.model import Mode, NamedProtection, Phase, Protection, Status
from hotspare.replication.source.mirror import Mirror
from hotspare.replication.source.monitor import Monitor
from hotspare.units import MIB
from lab import DiskSpec, LabGuest
from lab.two_hosts import Host, Hosts

_STATE = Path("/var/lib/hotspare/replication")
_PORT = 10999
_PATIENCE = 180.0
_DISK = "vda"
_SIZE = 256 * MIB


@dataclass(slots=True)
class Protected:
    """The machine."""

    hosts: Hosts
    guest: LabGuest
    protection: Protection
    paused: list[float] = field(default_factory=list)
    """Seconds that the guest stood still, each time that mirroring began."""

    @contextmanager
    def mirrored(self, *, durable: bool) -> Iterator[None]:
        """Have it mirrored while the block runs."""
        wanted: Protection = msgspec.structs.replace(self.protection, durable=durable, stopped=False)
        with _asking(self.hosts.source) as agent:
            agent.call(protections.CHANGE, protections.Change(protection=wanted))
            status = self._wait(agent)
            self.paused.append(status.paused_seconds)
            time.sleep(2)  # the first point is made
            yield
            agent.call(protections.STOP, NamedProtection(protection=wanted.id))

    def _wait(self, agent: LocalClient) -> Status:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            (status,) = agent.call(protections.STATUS, NOTHING)
            if status.phase is Phase.PROTECTED:
                return status
            time.sleep(0.1)
        raise TimeoutError(f"not protected: {status.phase}, {status.reason}")


def _asking(host: Host) -> LocalClient:
    return LocalClient(host.outside(_STATE))


@contextmanager
def protected_machine(label: str) -> Iterator[Protected]:
    """Make hosts, agents and machine; it is not mirrored yet."""
    with Hosts(label, names=("source", "standby")) as hosts:
        for host in (hosts.source, hosts.standby):
            program = Path(sys.executable).with_name("hotspare")
            host.popen([program, "replica", "agent", "--state", _STATE], log=host.folder / "agent.log")
            _wait_for(host.outside(_STATE / "agent.sock"))
        with _asking(hosts.source) as source, _asking(hosts.standby) as standby:
            token = standby.call(pairing.OFFER, pairing.Offer(address=hosts.standby.address)).token
            peer = source.call(pairing.ACCEPT, pairing.Accept(token=token, address=hosts.source.address))
            with LabGuest.create(label, disks=[DiskSpec(size=_SIZE)], host=hosts.source) as guest:
                guest.start().wait_ready()
                made = source.call(
                    protections.CREATE,
                    protections.Create(protection=_wanted(guest.name, peer.id)),
                    timeout=60,
                )
                source.call(protections.STOP, NamedProtection(protection=made.id), timeout=60)
                yield Protected(hosts, guest, made)


def _wait_for(socket: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not socket.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def _wanted(machine: str, standby: str) -> Protection:
    return Protection(
        id="", machine_id="", machine=machine, mode=Mode.SYNC, source="", standby=standby, interval=60
    )


@contextmanager
def plain_mirror(machine: Protected, *options: str) -> Iterator[None]:
    """Have it mirrored without TLS while the block runs, by the same QEMU commands but none of our agents.

    Args:
        machine: which.
        options: more of the image's, as ``qemu-storage-daemon --blockdev`` takes them.
    """
    standby = machine.hosts.standby
    image = standby.folder / "plain.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), str(_SIZE)], check=True)
    # What the guest wrote before is not of interest here, only what its writes cost.
    daemon = standby.popen(
        [
            *("qemu-storage-daemon", "--blockdev"),
            ",".join((f"driver=file,node-name=file,filename={image},discard=unmap", *options)),
            *("--blockdev", "driver=qcow2,node-name=disk,file=file,discard=unmap"),
            *("--nbd-server", f"addr.type=inet,addr.host=0.0.0.0,addr.port={_PORT}"),
            *("--export", "type=nbd,id=disk,node-name=disk,name=disk,writable=on"),
        ],
        log=standby.folder / "plain.log",
    )
    try:
        time.sleep(1)
        monitor = Monitor(machine.guest.domain)
        nodes = monitor.disk_nodes([_DISK])
        server = {"type": "inet", "host": standby.address, "port": str(_PORT)}
        name = "hotspare-plain000-vda"
        monitor.ask("blockdev-add", driver="nbd", node_name=name, server=server, export="disk")
        monitor.ask(
            "blockdev-mirror",
            job_id=name,
            device=nodes[_DISK],
            target=name,
            sync="none",
            copy_mode="write-blocking",
            auto_dismiss=False,
        )
        time.sleep(1)
        yield
        Mirror(monitor, "plain000", nodes).end()
    finally:
        for child in Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split():
            subprocess.run(["kill", "-9", child], check=False)
        daemon.wait()
        image.unlink()
