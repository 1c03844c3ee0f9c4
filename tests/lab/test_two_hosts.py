"""What the lab promises about hosts inside of this one."""

import subprocess
from collections.abc import Iterator

import pytest

from lab import DiskSpec, LabGuest
from lab.two_hosts import Host, Hosts

pytestmark = pytest.mark.lab

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def hosts(lab_host: None) -> Iterator[Hosts]:
    with Hosts("two-hosts") as running:
        yield running


def reaches(one: Host, other: Host) -> bool:
    """Tell whether anything comes back from a port that nobody listens on."""
    attempt = ["timeout", "1", "bash", "-c", f"</dev/tcp/{other.address}/9"]
    done = subprocess.run(one.command(*attempt), capture_output=True, text=True, check=False)
    return "refused" in done.stderr


def test_any_two_hosts_can_be_cut_off_from_each_other(hosts: Hosts) -> None:
    hosts.cut(hosts.source, hosts.standby)
    try:
        assert not reaches(hosts.source, hosts.standby)
        assert reaches(hosts.source, hosts.witness)
        assert reaches(hosts.witness, hosts.standby)
    finally:
        hosts.mend(hosts.source, hosts.standby)
    assert reaches(hosts.source, hosts.standby)
    assert reaches(hosts.standby, hosts.source)


def test_a_host_has_its_own_machines_and_loses_them_when_it_is_killed(hosts: Hosts) -> None:
    with LabGuest.create("hosted", disks=[DiskSpec(size=64 * MIB)], host=hosts.source) as guest:
        guest.start().wait_ready()
        assert guest.name in hosts.source.run("virsh", "list", "--name")
        assert guest.name not in hosts.standby.run("virsh", "list", "--all", "--name")
        hosts.kill(hosts.source)
        hosts.power_on(hosts.source)
        assert not guest.running
        assert reaches(hosts.standby, hosts.source)


def test_what_a_host_keeps_can_be_seen_from_outside(hosts: Hosts) -> None:
    hosts.standby.run("sh", "-c", "echo kept >/var/lib/hotspare/file")
    assert hosts.standby.outside("/var/lib/hotspare/file").read_text() == "kept\n"
    assert "file" not in hosts.source.run("ls", "/var/lib/hotspare")
