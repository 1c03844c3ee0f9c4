"""Accidents of a machine that is shipped from host to host: points stay whole, and it goes on by itself."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import libvirt
import pytest

from hotspare.platforms.replica.record import ReplicaPoint
from lab import DiskSpec, LabGuest
from lab.errors import LabError
from lab.two_hosts import Hosts
from tests.replication.interval.two_agents import STATE, Shipped, TwoAgents, records_in, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

MIB = 1024 * 1024


@dataclass
class Story:
    hosts: Hosts
    shipped: Shipped
    scratch: Path

    def expect_whole(self, point: ReplicaPoint) -> None:
        """All that was acknowledged before the point's cycle began is in it, and its file system is clean."""
        records = records_in(self.shipped.folder, point, self.scratch)
        assert records == list(range(1, len(records) + 1))
        assert len(records) >= self.shipped.acknowledged.before(point.taken_at) > 0

    def expect_to_go_on(self) -> None:
        """Two more points come, increments both, and are whole."""
        before = self.shipped.points()[-1].id
        for _ in range(2):
            self.shipped.wait_for_point(self.shipped.points()[-1].id)
        newer = [point for point in self.shipped.points() if point.id > before]
        assert {disk.full_because for point in newer for disk in point.disks} == {None}
        self.expect_whole(newer[-1])

    def wait_for_cycle(self) -> None:
        wait_until(lambda: self.shipped.cycle_under_way() is not None, "a cycle", 60)


@pytest.fixture(scope="module")
def story(lab_host: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with Hosts("interval-accidents", ("source", "standby")) as hosts:
        guest = LabGuest.create("shipped", disks=[DiskSpec(size=64 * MIB)], host=hosts.source)
        with guest, TwoAgents(hosts) as agents:
            guest.start().wait_ready()
            guest.start_workload()
            shipped = agents.protect(guest)
            time.sleep(2)
            shipped.wait_for_point(shipped.wait_for_point().id)
            yield Story(hosts, shipped, tmp_path_factory.mktemp("points"))
            shipped.acknowledged.stop()


def test_a_link_that_is_cut_in_a_cycle(story: Story) -> None:
    hosts, shipped = story.hosts, story.shipped
    story.wait_for_cycle()
    hosts.cut(hosts.source, hosts.standby)
    try:
        last = shipped.points()[-1]
        time.sleep(6)
        story.expect_whole(shipped.points()[-1])
    finally:
        hosts.mend(hosts.source, hosts.standby)
    shipped.wait_for_point(last.id)
    story.expect_to_go_on()


def test_a_source_agent_that_is_killed_in_a_cycle(story: Story) -> None:
    story.wait_for_cycle()
    story.shipped.agents.source.kill()
    story.expect_whole(story.shipped.points()[-1])
    story.shipped.agents.source.start()
    story.expect_to_go_on()


@pytest.mark.soak
def test_a_storage_daemon_that_is_killed_in_a_cycle(story: Story) -> None:
    story.wait_for_cycle()
    pid = int((story.shipped.folder / "storage-daemon.pid").read_text())
    story.hosts.standby.kill_process(pid)
    story.expect_whole(story.shipped.points()[-1])
    story.expect_to_go_on()


@pytest.mark.soak
def test_a_guest_that_reboots(story: Story) -> None:
    guest = story.shipped.guest
    before = guest.console.count("lab: up after")
    guest.domain.reboot(libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT)
    wait_until(lambda: guest.console.count("lab: up after") > before, "rebooted", 90)
    story.expect_to_go_on()


def test_a_backup_on_the_source_is_refused_and_one_of_the_replica_works(story: Story) -> None:
    hotspare = str(Path(sys.executable).with_name("hotspare"))
    environment = ["env", "HOTSPARE_PASSPHRASE=x", "HOTSPARE_REPOSITORY=/var/lib/hotspare/backup"]
    name, standby = story.shipped.guest.name, story.hosts.standby
    story.hosts.source.run(*environment, hotspare, "repo", "create")
    with pytest.raises(LabError, match="is replicated to standby"):
        story.hosts.source.run(*environment, hotspare, "backup", name)
    standby.run(*environment, hotspare, "repo", "create")
    backup = [*environment, hotspare, "backup", name, "--platform", f"replica://{STATE}/replicas"]
    standby.run(*backup)
    story.shipped.wait_for_point(story.shipped.points()[-1].id)
    said = standby.run(*backup, "-o", "json")
    assert '"mode": "increment"' in said
