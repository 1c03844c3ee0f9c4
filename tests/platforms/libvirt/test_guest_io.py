"""What the platform tells about a guest's own I/O, and that a backup makes use of it."""

import time
from collections.abc import Callable
from contextlib import closing

import libvirt
import pytest

from hotspare.backup.pacing import LatencyControl
from hotspare.cancellation import Cancellation
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.platform import IoTotals, Snapshot, SnapshotRequest
from lab import LabGuest
from tests.platforms.libvirt.bare_machine import BareMachine

pytestmark = pytest.mark.lab

MIB = 1024 * 1024
REQUEST = SnapshotRequest(point_id="io", repository_id="0123456789", since={})


def grown(snapshot: Snapshot, before: dict[str, IoTotals], kind: str, operations: int) -> dict[str, IoTotals]:
    """Wait until the guest has done so many more operations of a kind, and give all counters then."""
    deadline = time.monotonic() + 60
    while True:
        now = snapshot.guest_io()
        assert now is not None
        if now[kind].operations >= before[kind].operations + operations:
            return dict(now)
        assert time.monotonic() < deadline, (before, now)
        time.sleep(0.05)


def test_the_guests_own_io_is_counted_by_disk_and_kind(
    platform: LibvirtPlatform, module_guest: LabGuest
) -> None:
    machine = platform.inspect(module_guest.name)
    with platform.open_snapshot(machine, REQUEST, Cancellation()) as snapshot:
        before = snapshot.guest_io()
        assert before is not None
        assert before.keys() == {"vda read", "vda write", "vda flush"}
        module_guest.exec("for i in 1 2 3 4 5; do echo $i > /data/io; sync /data/io; done")
        after = grown(snapshot, dict(before), "vda flush", 5)
        assert after["vda write"].operations > before["vda write"].operations
        assert after["vda flush"].nanoseconds > before["vda flush"].nanoseconds


def test_our_own_reading_is_not_counted(platform: LibvirtPlatform, lab_host: None) -> None:
    with BareMachine("io", size=32 * MIB).start() as machine:
        machine.write(0, 16 * MIB, 7)
        described = platform.inspect(machine.name)
        with (
            platform.open_snapshot(described, REQUEST, Cancellation()) as snapshot,
            closing(snapshot.reader("vda")) as reader,
        ):
            before = snapshot.guest_io()
            reader.read_into(0, memoryview(bytearray(16 * MIB)))
            assert snapshot.guest_io() == before
            machine.kill()
            assert snapshot.guest_io() is None


def test_nothing_is_counted_of_a_machine_that_is_off(platform: LibvirtPlatform, lab_host: None) -> None:
    with BareMachine("io-off") as machine:
        described = platform.inspect(machine.name)
        with platform.open_snapshot(described, REQUEST, Cancellation()) as snapshot:
            assert snapshot.guest_io() is None


def test_a_guest_that_suffers_is_noticed_and_spared(platform: LibvirtPlatform, guest: LabGuest) -> None:
    """QEMU is told to serve the guest slowly as soon as it is known how fast it usually is."""
    guest.exec("setsid flush-latency /data/flushed /run/flushes </dev/null >/dev/null 2>&1 &")
    machine = platform.inspect(guest.name)
    with (
        platform.open_snapshot(machine, REQUEST, Cancellation()) as snapshot,
        closing(snapshot.reader("vda")) as reader,
    ):
        control = LatencyControl(2.0, time.monotonic())

        def read_until(reached: Callable[[], bool]) -> None:
            deadline, at = time.monotonic() + 60, 0
            while not reached():
                assert time.monotonic() < deadline, control
                totals = snapshot.guest_io()
                assert totals is not None
                control.observe(time.monotonic(), totals)
                for _ in range(32):
                    if control.delay(time.monotonic(), MIB) == 0:
                        reader.read_into(at, memoryview(bytearray(MIB)))
                        at = (at + MIB) % (reader.size - MIB)

        read_until(lambda: control.held_back.mean > 0)
        before = control.rate
        guest.domain.setBlockIoTune("vda", {"total_iops_sec": 5}, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        read_until(lambda: control.rate < before / 2)
        assert control.held_back.worst > 2.0
        guest.domain.setBlockIoTune("vda", {"total_iops_sec": 0}, libvirt.VIR_DOMAIN_AFFECT_LIVE)
