"""Accidents while a machine is mirrored; docs/replication.md has the table of them.

All tests share one machine, and leave it protected.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import libvirt
import libvirt_qemu
import msgspec
import pytest

from hotspare.platforms.libvirt.quiesce import FROZEN_SECONDS
from hotspare.platforms.libvirt.scratch import default_scratch_folder
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication import protections
from hotspare.replication.link.wire import NOTHING
from hotspare.replication.model import NamedProtection
from hotspare.replication.standby.service import POINTS
from hotspare.replication.standby.storage_daemon import PID_FILE
from lab import LabGuest
from lab.programs import run
from lab.two_hosts import Hosts
from tests.replication.agents import HostAgent
from tests.replication.source.mirrored import MIB, Mirrored, log_of, mirrored

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

STALL_LIMIT = 5.0
LATE = 4.0
"""Seconds by which a busy host may be late in what it looks for."""
HOOK = b"""#!/bin/sh
echo $1 >>/run/hook.log
echo $1 >/data/hook && sync /data/hook
"""


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


def degradations_of(machine: Mirrored) -> int:
    """Count how often the source has told of it."""
    return sum(": degraded" in line for line in log_of(machine.source))


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
    degradations = degradations_of(machine)
    machine.hosts.cut(machine.hosts.source, machine.hosts.standby)
    time.sleep(1.5)
    machine.hosts.mend(machine.hosts.source, machine.hosts.standby)
    _gap, written = machine.longest_gap(3)
    assert written > 0
    assert machine.source.status(machine.machine)["phase"] == "protected"
    assert degradations_of(machine) == degradations
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


@pytest.fixture
def consistent(machine: Mirrored) -> Iterator[Mirrored]:
    """Each point is a consistent one, with a hook of the machine's own."""
    machine.guest.exec("mkdir -p /etc/hotspare/hooks.d; rm -f /run/hook.log")
    machine.guest.write_file("/etc/hotspare/hooks.d/told", HOOK)
    machine.guest.exec("chmod +x /etc/hotspare/hooks.d/told")
    (before,) = [one.protection for one in machine.source.call(protections.STATUS, NOTHING)]
    often = msgspec.structs.replace(before, interval=1.0, application_interval=1.0)
    words = (*machine.source.program, "machine", "hook", machine.machine)
    machine.source.host.run(*words, "add", "guest:told")
    machine.source.call(protections.CHANGE, protections.Change(protection=often))
    yield machine
    machine.standby.go_on()
    machine.source.go_on()
    machine.source.call(protections.CHANGE, protections.Change(protection=before))
    machine.source.host.run(*words, "remove", "guest:told")


def test_hooks_run_before_and_after_a_consistent_point(consistent: Mirrored, tmp_path: Path) -> None:
    point = wait_consistent(consistent, after=datetime.now(UTC))
    assert point.warnings == ()
    told = consistent.guest.exec("cat /run/hook.log").split()
    assert told[:2] == ["freeze", "thaw"]
    # What the hook wrote last before the point is in it, and what it wrote after is not.
    (image,) = [disk.image for disk in point.disks if disk.name == "vda"]
    raw = tmp_path / "vda.raw"
    run("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", consistent.replica_folder() / image, raw)
    assert run("debugfs", "-R", "cat /hook", raw).strip() == "freeze"


@pytest.mark.parametrize("accident", ["killed", pytest.param("hung", marks=pytest.mark.soak)])
def test_an_agent_is_lost_while_the_guest_is_frozen(consistent: Mirrored, accident: str) -> None:
    """The standby's stands still then, so nobody but the watchdog thaws the guest."""
    freeze(consistent)
    if accident == "killed":
        consistent.source.kill()
    else:
        consistent.source.hold()
    lost = time.monotonic()
    wait_for(lambda: not is_frozen(consistent.guest), "the guest is thawed")
    print(f"thawed {time.monotonic() - lost:.1f} s after the agent was {accident}")
    assert time.monotonic() - lost < FROZEN_SECONDS + LATE
    wait_for(lambda: consistent.guest.exec("tail -n 1 /run/hook.log") == "thaw", "the hook has ended")
    _gap, written = consistent.longest_gap(1)
    assert written > 0
    consistent.standby.go_on()
    if accident == "killed":
        consistent.source.start()
    else:
        consistent.source.go_on()
    consistent.wait_protected()
    wait_consistent(consistent, after=datetime.now(UTC))
    left = consistent.source.host.outside(default_scratch_folder()).glob("*/frozen")
    assert not [path for path in left if path.parent.name.startswith("2")]
    consistent.check_replica_alive()


def freeze(machine: Mirrored) -> None:
    """Return while the guest is frozen for a point that its standby does not make."""
    for _ in range(10):
        machine.standby.hold()
        end = time.monotonic() + 3  # less than the stall limit
        while time.monotonic() < end:
            with suppress(libvirt.libvirtError):
                if is_frozen(machine.guest):
                    return
            time.sleep(0.02)
        machine.standby.go_on()  # it stood still beside a point
        machine.wait_protected()
    pytest.fail("the guest was never frozen")


def is_frozen(guest: LabGuest) -> bool:
    """Ask its agent, which raises ``libvirtError`` where that does not answer."""
    return "frozen" in libvirt_qemu.qemuAgentCommand(
        guest.domain, '{"execute": "guest-fsfreeze-status"}', 5, 0
    )


def wait_for(reached: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with suppress(libvirt.libvirtError):
            if reached():
                return
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def wait_consistent(machine: Mirrored, after: datetime | None = None) -> ReplicaPoint:
    """Give the newest point for which applications were held, once there is one later than that."""
    found: list[ReplicaPoint] = []

    def there() -> bool:
        points = machine.standby.call(POINTS, NamedProtection(protection=machine.machine)).points
        good = [one for one in points if one.consistency == "application"]
        found[:] = [one for one in good if after is None or one.taken_at > after]
        return bool(found)

    machine.standby.wait(there, "there is a consistent point", 90)
    return found[-1]
