"""What the lab promises about its guests; all later tests with real machines stand on it."""

import hashlib
from collections.abc import Iterator

import libvirt
import pytest

from lab import CommandError, DiskSpec, LabError, LabGuest, connection, domain_name

pytestmark = pytest.mark.lab

MIB = 1024 * 1024


def test_commands_run_inside(module_guest: LabGuest) -> None:
    assert module_guest.exec("uname -s; grep -c ' /data ext4 ' /proc/mounts") == "Linux\n1"


def test_a_failing_command_raises_with_what_it_said(module_guest: LabGuest) -> None:
    with pytest.raises(CommandError, match="no such luck") as caught:
        module_guest.exec("echo before; echo no such luck >&2; exit 7")
    assert (caught.value.status, caught.value.stdout) == (7, "before\n")


def test_a_command_that_takes_too_long_raises(module_guest: LabGuest) -> None:
    with pytest.raises(LabError, match="did not end"):
        module_guest.exec("sleep 30", timeout=0.5)


def test_files_go_in_and_come_out_unchanged(module_guest: LabGuest) -> None:
    content = bytes(range(256)) * 400  # more than one piece of the transfer
    module_guest.write_file("/data/file", content)
    assert module_guest.read_file("/data/file") == content
    assert module_guest.sha256("/data/file") == hashlib.sha256(content).hexdigest()


def test_a_file_of_whole_pieces_is_read_to_its_end(module_guest: LabGuest) -> None:
    digest = module_guest.write_random("/data/whole", 4 * MIB)
    assert hashlib.sha256(module_guest.read_file("/data/whole")).hexdigest() == digest


def test_freeze_holds_writes_back_and_calls_the_hook(module_guest: LabGuest) -> None:
    module_guest.exec("rm -f /run/fsfreeze.log")
    assert module_guest.freeze() == 1
    try:
        with pytest.raises(libvirt.libvirtError, match=r"frozen|not allowed|disabled"):
            module_guest.exec("true")
    finally:
        assert module_guest.thaw() == 1
    assert module_guest.exec("cat /run/fsfreeze.log") == "freeze\nthaw"


@pytest.fixture
def switched(module_guest: LabGuest) -> Iterator[LabGuest]:
    """The guest of this module, for a test that may leave it off."""
    yield module_guest
    if not module_guest.running:
        module_guest.start()
    module_guest.wait_ready()


def test_data_survive_an_orderly_shutdown(switched: LabGuest) -> None:
    digest = switched.write_random("/data/file", MIB)
    switched.shutdown(by="agent")
    assert not switched.running
    switched.start().wait_ready()
    assert switched.sha256("/data/file") == digest
    switched.shutdown(by="power-button")
    assert not switched.running


@pytest.mark.soak
def test_reboot_comes_back_in_the_same_qemu(switched: LabGuest) -> None:
    switched.exec("touch /run/gone-after-reboot /data/there-after-reboot")
    before = switched.domain.ID()
    switched.reboot()
    assert switched.domain.ID() == before
    assert switched.exec("ls /run/gone* /data/there* 2>/dev/null || true") == "/data/there-after-reboot"


@pytest.mark.soak
def test_what_was_acknowledged_survives_a_kill(switched: LabGuest) -> None:
    switched.start_workload("/data/journal")
    switched.exec("while [ $(tail -n 1 /data/journal || echo 0) -lt 20 ]; do usleep 20000; done")
    switched.kill()
    assert not switched.running
    acked = switched.acked()
    switched.start().wait_ready()
    assert int(switched.exec("tail -n 1 /data/journal")) >= acked >= 19


@pytest.mark.soak  # the demonstration does so, twice
def test_a_guest_boots_from_its_own_disk_and_has_more_disks(lab_host: None) -> None:
    disks = [DiskSpec(size=128 * MIB), DiskSpec(size=16 * MIB, format="raw")]
    with LabGuest.create("bootable", kind="disk", disks=disks) as guest:
        assert "<kernel>" not in guest.xml
        guest.start().wait_ready()
        assert (
            guest.exec("awk '/^.dev.vd/ {print $1, $2}' /proc/mounts") == "/dev/vda1 /data\n/dev/vdb /data2"
        )
        assert guest.exec("ls /data/boot/vmlinuz") == "/data/boot/vmlinuz"
        assert [path.suffix for path in guest.disks.values()] == [".qcow2", ".raw"]


def test_removing_a_running_guest_leaves_nothing(lab_host: None) -> None:
    with LabGuest.create("gone") as guest:
        guest.start()
        folder = guest.disks["vda"].parent
        assert folder.is_dir()
    assert not folder.exists()
    assert guest.name not in [domain.name() for domain in connection().listAllDomains()]
    guest.remove()  # a second time does nothing


def test_a_name_is_taken_once(lab_host: None) -> None:
    with LabGuest.create("twin") as first:
        with pytest.raises(LabError, match="already"):
            LabGuest.create("twin")
        assert first.disks["vda"].exists()


def test_only_machines_of_the_lab_are_attached(lab_host: None) -> None:
    with pytest.raises(LabError, match="not of the lab"):
        LabGuest.attach("customer-database")
    with pytest.raises(LabError, match="no domain"):
        LabGuest.attach(domain_name("never-made"))
