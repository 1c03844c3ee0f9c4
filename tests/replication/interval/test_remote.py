"""Shipping to the agent of another host: over TLS, into real images. Both agents are in this process."""

import os
import random
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, PermissionRefused
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.agent import Agent
from hotspare.replication.interval import service
from hotspare.replication.interval.cycle import CycleRequest, ship_cycle
from hotspare.replication.interval.remote import RemoteStandby
from hotspare.replication.model import Mode, Peer, Protection, Tenure
from hotspare.units import KIB, MIB
from tests.backup.scripted_platform import ScriptedPlatform
from tests.replication.interval.points import content_of


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass
class Pair:
    source: Agent
    standby: Agent
    protection: Protection

    def connect(self, epoch: int = 1) -> RemoteStandby:
        identity = self.source.identity
        tenure = Tenure(epoch=epoch, holder=identity.id)
        return RemoteStandby(identity, identity.peer("standby"), self.protection, tenure)

    @property
    def folder(self) -> Path:
        return self.standby.replica(self.protection.id).folder


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Give a folder for sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="agents-") as folder:
        yield Path(folder)


@pytest.fixture
def pair(short_folder: Path) -> Iterator[Pair]:
    agents = [
        Agent(short_folder / name, {}, [service.register], name=name, address="127.0.0.1", port=free_port())
        for name in ("source", "standby")
    ]
    for one, other in (agents, agents[::-1]):
        peer = Peer(id=other.identity.id, name=other.identity.name, address="127.0.0.1", port=other.port)
        one.identity.trust(peer, other.identity.authority)
    for agent in agents:
        agent.start()
    source, standby = agents
    protection = Protection(
        id="0123456789abcdef",
        machine_id="uuid of web01",
        machine="web01",
        mode=Mode.INTERVAL,
        source=source.identity.id,
        standby=standby.identity.id,
    )
    yield Pair(source, standby, protection)
    for replica in standby.replicas():
        replica.stop_daemon()
    for agent in agents:
        agent.close()


@pytest.fixture
def platform() -> ScriptedPlatform:
    made = ScriptedPlatform(9 * MIB, MIB)
    made.disks["vda"].guest_writes(64 * KIB, random.Random(1).randbytes(5 * MIB))
    return made


def ship(
    platform: ScriptedPlatform, standby: RemoteStandby, listener: events.Listener = events.ignore
) -> ReplicaPoint:
    points = standby.points()
    machine = platform.inspect("web01")
    request = CycleRequest(protection="p" * 32, machine=machine, newest=points[-1] if points else None)
    return ship_cycle(platform, standby, request, listener, Cancellation())


def test_ships_compares_and_thins(pair: Pair, platform: ScriptedPlatform) -> None:
    with closing(pair.connect()) as standby:
        first = ship(platform, standby)
        platform.disks["vda"].guest_writes(2 * MIB, b"new" * 100)
        second = ship(platform, standby)
        assert [disk.bytes_sent for disk in second.disks] == [4096, 0]
        assert content_of(pair.folder, second, "vda") == platform.disks["vda"].data

        platform.disks["vda"].guest_writes(8 * MIB, b"unnoticed")
        platform.disks["vda"].dirty_since.clear()
        third = ship(platform, standby)
        assert third.disks[0].full_because == "bitmap lost"
        assert third.disks[0].bytes_sent == 64 * KIB
        assert content_of(pair.folder, third, "vda") == platform.disks["vda"].data

        assert set(standby.remove_points([first.id, second.id])) == {first.id, second.id}
        assert [point.id for point in standby.points()] == [third.id]
        assert content_of(pair.folder, standby.points()[0], "vda") == platform.disks["vda"].data


def test_a_storage_daemon_that_dies_breaks_one_cycle(pair: Pair, platform: ScriptedPlatform) -> None:
    with closing(pair.connect()) as standby:
        first = ship(platform, standby)
        before = bytes(platform.disks["vda"].data)
        platform.disks["vda"].guest_writes(MIB, random.Random(2).randbytes(MIB))
        daemon = pair.standby.replica(pair.protection.id).daemon()
        platform.before["read"] = lambda: os.kill(daemon.pid, signal.SIGKILL) if daemon.is_running else None
        with pytest.raises(HotspareError):
            ship(platform, standby)
        platform.before.clear()
    daemon.kill()
    with closing(pair.connect()) as standby:
        assert [point.id for point in standby.points()] == [first.id]
        assert content_of(pair.folder, first, "vda") == before
        second = ship(platform, standby)
        assert content_of(pair.folder, second, "vda") == platform.disks["vda"].data
        assert [disk.full_because for disk in second.disks] == [None, None]


def test_who_does_not_hold_the_machine_any_more_cannot_ship(pair: Pair, platform: ScriptedPlatform) -> None:
    with closing(pair.connect()) as standby:
        ship(platform, standby)
        replica = pair.standby.replica(pair.protection.id)
        replica.pass_on(Tenure(epoch=2, holder=pair.standby.identity.id))
        platform.disks["vda"].guest_writes(MIB, b"too late")
        with pytest.raises(HotspareError):
            ship(platform, standby)
        with pytest.raises(PermissionRefused):
            pair.connect()
        assert len(replica.points()) == 1
