"""The program on real virtual machines, and the accidents that happen to it there."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from lab import DiskSpec, LabGuest, domain_name
from tests.cli.lab_program import program_for_libvirt
from tests.cli.program import Program, interrupt

pytestmark = pytest.mark.lab

MIB = 1024 * 1024


@pytest.fixture
def program(tmp_path: Path, lab_host: None) -> Iterator[Program]:
    with program_for_libvirt(tmp_path) as program:
        yield program


def assert_untouched(program: Program, guest: LabGuest) -> None:
    """The guest runs, is thawed, and nothing of the backup is left on it."""
    guest.exec("echo alive > /data/alive && sync /data/alive")
    assert not backup_runs(guest)
    scratch = Path(program.environment["HOTSPARE_SCRATCH_FOLDER"])
    assert [path.name for path in scratch.iterdir() if path.is_dir()] == []


def backup_runs(guest: LabGuest) -> bool:
    try:
        guest.domain.backupGetXMLDesc()
    except libvirt.libvirtError:
        return False
    return True


def checkpoints(guest: LabGuest) -> list[str]:
    return [checkpoint.getName() for checkpoint in guest.domain.listAllCheckpoints()]


def assert_restores_as(program: Program, guest: LabGuest, tmp_path: Path) -> None:
    """All increments so far, and one more of the guest shut down, make up its disk byte for byte."""
    guest.shutdown()
    program.expect("backup", guest.name)
    out = tmp_path / "restored.qcow2"
    program.expect("restore", guest.name, "--disk", f"vda={out}")
    subprocess.run(["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", guest.disks["vda"], out], check=True)


def test_full_increment_and_a_started_restore(program: Program, guest: LabGuest) -> None:
    first = guest.write_random("/data/first", 8 * MIB)
    (full,) = program.expect("backup", guest.name, "-o", "json").document()["results"]
    second = guest.write_random("/data/second", 2 * MIB)
    (increment,) = program.expect("backup", guest.name, "-o", "json").document()["results"]

    assert full["point"]["disks"][0]["mode"] == "full"
    assert increment["point"]["disks"][0]["mode"] == "increment"
    assert increment["point"]["consistency"] == "filesystem"
    assert increment["point"]["bytes_read"] < full["point"]["bytes_read"]
    assert len(checkpoints(guest)) == 1
    assert_untouched(program, guest)

    name = domain_name("cli-restored")
    guest.destroy()
    try:
        program.expect("restore", guest.name, "--to", name, "--start")
        restored = LabGuest.attach(name)
        restored.wait_ready()
        assert restored.sha256("/data/first") == first
        assert restored.sha256("/data/second") == second
        assert program.run("restore", guest.name, "--to", name).status == 26
    finally:
        LabGuest(name).remove()


@pytest.mark.soak  # all orders: tests/platforms/libvirt/test_accidents_machine.py
def test_a_powered_off_machine_and_back_to_increments(
    program: Program, guest: LabGuest, tmp_path: Path
) -> None:
    program.expect("backup", guest.name)
    guest.fill("/data/one", 2 * MIB)
    guest.shutdown()
    (off,) = program.expect("backup", guest.name, "-o", "json").document()["results"]
    guest.start().wait_ready()
    guest.fill("/data/two", 2 * MIB)
    (on,) = program.expect("backup", guest.name, "-o", "json").document()["results"]

    assert off["point"]["consistency"] == "offline"
    assert on["point"]["disks"][0]["mode"] == "increment"
    assert_restores_as(program, guest, tmp_path)


@pytest.mark.parametrize("event", ["progress", pytest.param("disk-started", marks=pytest.mark.soak)])
def test_ctrl_c_leaves_the_guest_as_it_was(program: Program, module_guest: LabGuest, event: str) -> None:
    guest = module_guest
    guest.fill("/data/much", 10 * MIB)
    process = program.start("backup", guest.name, "--read-limit", "2MiB/s", "--progress", "jsonl")
    assert process.stderr is not None
    while f'"{event}"' not in process.stderr.readline():
        assert process.poll() is None
    done = interrupt(process)

    assert done.status in {0, 130}, done.err
    assert_untouched(program, guest)
    assert len(checkpoints(guest)) == (1 if done.status == 0 else 0)
    program.expect("backup", guest.name)
    program.expect("verify")
    for checkpoint in guest.domain.listAllCheckpoints():  # for the next test, whose repository is another
        checkpoint.delete()


@pytest.mark.soak
def test_a_killed_backup_is_cleared_away_by_the_next(
    program: Program, guest: LabGuest, tmp_path: Path
) -> None:
    program.expect("backup", guest.name)
    guest.fill("/data/changed", 10 * MIB)
    process = program.start("backup", guest.name, "--read-limit", "4MiB/s")
    time.sleep(1)  # test_killed_at_every_step.py chooses the moments
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    guest.wait_thawed()
    guest.fill("/data/after", 2 * MIB)

    (result,) = program.expect("backup", guest.name, "-o", "json").document()["results"]
    assert result["point"]["disks"][0]["mode"] == "increment", result["point"]["disks"][0]["full_because"]
    assert_untouched(program, guest)
    assert len(checkpoints(guest)) == 1
    assert_restores_as(program, guest, tmp_path)


@pytest.mark.soak  # tests/platforms/libvirt/test_increments.py has it without the command line
def test_a_machine_that_stops_in_the_middle(program: Program, lab_host: None, tmp_path: Path) -> None:
    with LabGuest.create("stops", disks=[DiskSpec(size=64 * MIB)]) as guest:
        guest.start().wait_ready()
        program.expect("backup", guest.name)
        guest.fill("/data/much", 12 * MIB)
        process = program.start("backup", guest.name, "--progress", "jsonl", "--read-limit", "2MiB/s")
        assert process.stderr is not None
        while '"disk-started"' not in process.stderr.readline():
            assert process.poll() is None
        guest.destroy()
        _, err = process.communicate(timeout=60)

        assert process.returncode == 25, err
        assert "stopped during the backup" in err
        assert len(program.expect("point", "list", "-o", "json").document()["points"]) == 1
        guest.start().wait_ready()
        program.expect("backup", guest.name)
        assert_restores_as(program, guest, tmp_path)


def test_unknown_machines_and_missing_platforms(program: Program) -> None:
    assert program.run("backup", "no-such-machine").status == 21
    refused = program.run("backup", "x", "--platform", "qemu:///system?socket=/nonexistent")
    assert refused.status == 20
    assert "libvirt" in refused.err


def test_a_disk_that_may_not_be_read_is_named(program: Program, lab_host: None) -> None:
    with LabGuest.create("locked", disks=[DiskSpec(size=16 * MIB)]) as guest:  # it is off
        (disk,) = guest.disks.values()
        disk.chmod(0)
        without_root_rights = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"]
        os.chown(disk, 12345, 12345)
        refused = program.run_process("backup", guest.name, under=without_root_rights)

    assert refused.status == 23, refused.err
    assert str(disk) in refused.err
