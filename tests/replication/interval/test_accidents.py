"""Accidents of a machine that is shipped from host to host: points stay whole, and it goes on by itself."""

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hotspare.platforms.replica.record import ReplicaPoint
from lab import DiskSpec, LabGuest
from lab.errors import LabError
from lab.two_hosts import Hosts
from tests.replication.interval.two_agents import (
    STATE,
    Acknowledged,
    TwoAgents,
    records_in,
    wait_until,
)

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

MIB = 1024 * 1024


@dataclass
class Shipped:
    hosts: Hosts
    agents: TwoAgents
    guest: LabGuest
    acknowledged: Acknowledged
    scratch: Path

    def expect_whole(self, point: ReplicaPoint) -> None:
        """All that was acknowledged before the point's cycle began is in it, and its file system is clean."""
        records = records_in(self.agents.folder, point, self.scratch)
        assert records == list(range(1, len(records) + 1))
        assert len(records) >= self.acknowledged.before(point.taken_at) > 0

    def expect_to_go_on(self, *, full_because: str | None = None) -> None:
        """Two more points come, the last of them whole and, if no reason is given, all of them increments."""
        before = self.agents.points()[-1].id
        for _ in range(2):
            self.acknowledged.watch(1)
            self.agents.wait_for_point(self.agents.points()[-1].id)
        newer = [point for point in self.agents.points() if point.id > before]
        reasons = {disk.full_because for point in newer for disk in point.disks} - {None}
        assert all(full_because and full_because in str(reason) for reason in reasons), reasons
        self.expect_whole(newer[-1])

    def wait_for_cycle(self) -> None:
        wait_until(lambda: self.agents.cycle_under_way() is not None, "a cycle", 60)


@pytest.fixture(scope="module")
def shipped(lab_host: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipped]:
    with Hosts("interval-accidents", ("source", "standby")) as hosts:
        guest = LabGuest.create("shipped", disks=[DiskSpec(size=64 * MIB)], host=hosts.source)
        with guest, TwoAgents(hosts) as agents:
            guest.start().wait_ready()
            agents.protect(guest)
            guest.start_workload()
            agents.wait_for_point()
            yield Shipped(hosts, agents, guest, Acknowledged(guest), tmp_path_factory.mktemp("points"))


def test_a_link_that_is_cut_in_a_cycle(shipped: Shipped) -> None:
    hosts, agents = shipped.hosts, shipped.agents
    shipped.acknowledged.watch(2)
    shipped.wait_for_cycle()
    hosts.cut(hosts.source, hosts.standby)
    try:
        last = agents.points()[-1]
        shipped.acknowledged.watch(6)
        shipped.expect_whole(agents.points()[-1])
    finally:
        hosts.mend(hosts.source, hosts.standby)
    agents.wait_for_point(last.id, 120)
    # Should the answer about a point have been lost for long, its record of changes was given up.
    shipped.expect_to_go_on()


def test_a_source_agent_that_is_killed_in_a_cycle(shipped: Shipped) -> None:
    shipped.acknowledged.watch(1)
    shipped.wait_for_cycle()
    shipped.agents.source.kill()
    shipped.expect_whole(shipped.agents.points()[-1])
    shipped.agents.source.start()
    shipped.expect_to_go_on()


def test_a_storage_daemon_that_is_killed_in_a_cycle(shipped: Shipped) -> None:
    agents = shipped.agents
    shipped.acknowledged.watch(1)
    shipped.wait_for_cycle()
    pid = int((agents.folder / "storage-daemon.pid").read_text())
    shipped.hosts.standby.kill_process(pid, signal.SIGKILL)
    shipped.expect_whole(agents.points()[-1])
    shipped.expect_to_go_on()


def test_a_guest_that_reboots(shipped: Shipped) -> None:
    shipped.acknowledged.watch(1)
    shipped.guest.reboot()
    shipped.guest.start_workload()
    shipped.expect_to_go_on()


def test_a_backup_on_the_source_is_refused_and_one_of_the_replica_works(shipped: Shipped) -> None:
    hotspare = str(Path(sys.executable).with_name("hotspare"))
    environment = ["env", "HOTSPARE_PASSPHRASE=x", "HOTSPARE_REPOSITORY=/var/lib/hotspare/backup"]
    name = shipped.guest.name
    for host in (shipped.hosts.source, shipped.hosts.standby):
        host.run(*environment, hotspare, "repo", "create")
    with pytest.raises(LabError, match="is replicated to standby"):
        shipped.hosts.source.run(*environment, hotspare, "backup", name)
    replicas = f"replica://{STATE}/replicas"
    backup = [*environment, hotspare, "backup", name, "--platform", replicas]
    shipped.hosts.standby.run(*backup)
    time.sleep(1)
    shipped.agents.wait_for_point(shipped.agents.points()[-1].id)
    said = shipped.hosts.standby.run(*backup, "-o", "json")
    assert '"mode": "increment"' in said
