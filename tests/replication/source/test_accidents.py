"""Accidents while a machine is mirrored; docs/replication.md has the table of them.

All tests share one machine, and leave it protected.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.replication.standby.storage_daemon import PID_FILE
from lab.two_hosts import Hosts
from tests.replication.agents import HostAgent
from tests.replication.source.mirrored import MIB, Mirrored, log_of, mirrored

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

STALL_LIMIT = 5.0
LATE = 4.0
"""Seconds by which a busy host may be late in what it looks for."""


@pytest.fixture(scope="module")
def machine(lab_host: None) -> Iterator[Mirrored]:
    with mirrored("mirrored", "--every", "5s") as both:
        yield both


@pytest.fixture(autouse=True)
def _protected_before_and_after(machine: Mirrored) -> Iterator[None]:
    machine.protect_unless_it_is("--every", "5s")
    yield
    machine.hosts.mend_all()
    machine.boot()
    machine.wait_protected()
    assert machine.guest.exec("dmesg | grep -ci 'i/o error' || true") == "0"


def kill_storage_daemon(machine: Mirrored, number: signal.Signals = signal.SIGKILL) -> None:
    pid = int((machine.replica_folder() / PID_FILE).read_text())
    machine.standby.host.kill_process(pid, number)


def test_the_guest_goes_on_when_the_link_is_down_and_only_changes_are_sent_after(machine: Mirrored) -> None:
    before = int(machine.source.status(machine.machine)["bytes_sent"])
    machine.hosts.cut(machine.hosts.source, machine.hosts.standby)
    gap, written = machine.longest_gap(STALL_LIMIT + LATE + 1)
    status = machine.source.status(machine.machine)
    assert written > 0
    assert gap < STALL_LIMIT + LATE
    assert (status["phase"], status["lag_seconds"] > 0, status["lag_bytes"] > 0) == ("degraded", True, True)
    assert "silent" in status["reason"]
    machine.hosts.mend(machine.hosts.source, machine.hosts.standby)
    machine.wait_protected()
    sent = int(machine.source.status(machine.machine)["bytes_sent"]) - before
    assert 0 < sent < 16 * MIB  # of 80 MiB
    machine.check_replica_alive()


def test_a_short_break_of_the_link_is_waited_for(machine: Mirrored) -> None:
    degradations = log_of(machine.source).count("degraded")
    machine.hosts.cut(machine.hosts.source, machine.hosts.standby)
    time.sleep(1.5)
    machine.hosts.mend(machine.hosts.source, machine.hosts.standby)
    _gap, written = machine.longest_gap(3)
    assert written > 0
    assert machine.source.status(machine.machine)["phase"] == "protected"
    assert log_of(machine.source).count("degraded") == degradations
    machine.check_replica_alive()


@pytest.mark.soak
def test_a_storage_daemon_that_is_killed_is_started_again(machine: Mirrored) -> None:
    kill_storage_daemon(machine)
    _gap, written = machine.longest_gap(4)
    assert written > 0
    machine.wait_protected()
    machine.check_replica_alive()


def test_a_storage_daemon_that_hangs_does_not_hang_the_guest(machine: Mirrored) -> None:
    kill_storage_daemon(machine, signal.SIGSTOP)
    gap, written = machine.longest_gap(STALL_LIMIT + LATE + 1)
    kill_storage_daemon(machine, signal.SIGCONT)
    assert written > 0
    assert gap < STALL_LIMIT + LATE
    machine.wait_protected()
    machine.check_replica_alive()


@pytest.mark.parametrize("side", ["source", pytest.param("standby", marks=pytest.mark.soak)])
def test_an_agent_that_is_killed_leaves_the_mirror_at_work(machine: Mirrored, side: str) -> None:
    agent: HostAgent = getattr(machine, side)
    agent.kill()
    _gap, written = machine.longest_gap(1.5)
    assert written > 0
    agent.start()
    machine.wait_protected()
    time.sleep(1)
    machine.check_replica_alive()


@pytest.fixture
def small_standby(machine: Mirrored) -> Iterator[Path]:
    """The replica lies on a file system of 60 MiB, which only the standby sees."""
    host = machine.standby.host
    host.run("mount", "-t", "tmpfs", "-o", "size=60m", "small", "/mnt")
    machine.source.ask("replica", "remove", machine.machine, "--yes")
    machine.protect("--every", "5s", "--folder", "/mnt")
    yield Path("/mnt")
    machine.source.ask("replica", "remove", machine.machine, "--yes")
    host.run("umount", "/mnt")
    machine.protect("--every", "5s")


@pytest.mark.soak
def test_a_full_standby_lets_the_guest_go_on(machine: Mirrored, small_standby: Path) -> None:
    host = machine.standby.host
    host.run("sh", "-c", f"head -c 100m /dev/zero >{small_standby}/filler || true")
    _gap, written = machine.longest_gap(4)
    assert written > 0
    machine.source.wait_phase(machine.machine, "degraded")
    host.run("rm", str(small_standby / "filler"))
    machine.wait_protected()


@pytest.mark.soak
def test_a_standby_that_fills_up_at_once_lets_the_guest_go_on(machine: Mirrored, small_standby: Path) -> None:
    host = machine.standby.host
    host.run("sh", "-c", f"head -c 50m /dev/zero >{small_standby}/filler || true")
    write = "dd if=/dev/zero of=/data/large bs=1M count=20 conv=fsync 2>/dev/null && rm /data/large"
    machine.guest.exec(write, timeout=200)
    _gap, written = machine.longest_gap(3)
    assert written > 0
    assert machine.source.status(machine.machine)["phase"] != "protected"
    host.run("rm", str(small_standby / "filler"))
    machine.wait_protected()


@pytest.mark.soak
def test_both_hosts_can_be_lost_at_once(machine: Mirrored) -> None:
    hosts: Hosts = machine.hosts
    time.sleep(1)
    hosts.kill(hosts.source)
    hosts.kill(hosts.standby)
    acked = machine.guest.acked()
    for host, agent in ((hosts.standby, machine.standby), (hosts.source, machine.source)):
        hosts.power_on(host)
        agent.start()
    machine.boot()
    machine.wait_protected()
    assert machine.check_replica_alive() >= acked
