"""A real guest writes numbered, flushed records all the time; no accident loses one from a restore point."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hotspare.platforms.libvirt.platform import LibvirtPlatform
from lab import LabGuest
from tests.platforms.libvirt.protected import Protected, new_repository

pytestmark = pytest.mark.lab


def restored_records(protected: Protected, folder: Path) -> list[int]:
    """Give the records in the newest point; its file system is clean once the journal was replayed."""
    disk = folder / "restored.raw"
    disk.write_bytes(protected.content("vda"))
    replayed = subprocess.run(["e2fsck", "-fy", "-E", "journal_only", disk], check=False, capture_output=True)
    assert replayed.returncode in {0, 1}, "1 says that there was something to replay"
    subprocess.run(["e2fsck", "-fn", disk], check=True, capture_output=True)
    journal = subprocess.run(["debugfs", "-R", "cat /journal", disk], check=True, capture_output=True)
    return [int(line) for line in journal.stdout.split()]


def reboot(guest: LabGuest) -> None:
    guest.reboot()


def shut_down_and_start(guest: LabGuest) -> None:
    guest.shutdown()
    guest.start().wait_ready()


def kill_and_start(guest: LabGuest) -> None:
    guest.kill()
    guest.start().wait_ready()


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "accidents",
    [
        pytest.param([(shut_down_and_start, True), (kill_and_start, False)], id="shutdown and crash"),
        # A reset of a machine without a guest: test_accidents_checkpoints.py.
        pytest.param([(None, True), (reboot, True)], id="reboot", marks=pytest.mark.soak),
    ],
)
def test_a_guest_that_writes_through_reboot_shutdown_and_crash(
    platform: LibvirtPlatform,
    module_guest: LabGuest,
    tmp_path: Path,
    accidents: list[tuple[Callable[[LabGuest], None] | None, bool]],
) -> None:
    guest = module_guest
    protected = Protected(platform, guest.name, new_repository(tmp_path / "repository"))
    protected.back_up()
    for accident, increment in accidents:
        guest.start_workload()
        seen = guest.acked()
        wait_for_records(guest, seen + 5)
        if accident is not None:
            accident(guest)
            guest.start_workload()
            wait_for_records(guest, seen + 10)
        acked = guest.acked()
        reason = protected.back_up()["vda"]
        records = restored_records(protected, tmp_path)

        assert (reason is None) == increment, reason
        assert records == list(range(1, len(records) + 1))
        assert len(records) >= acked
        guest.exec("killall workload")


def wait_for_records(guest: LabGuest, number: int) -> None:
    deadline = time.monotonic() + 60
    while guest.acked() < number:
        assert time.monotonic() < deadline, f"no record {number}"
        time.sleep(0.05)
