"""Accidents to machines, definitions and checkpoints: each next restore point is right, byte by byte."""

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare import events
from hotspare.backup.machine import backup_machine
from hotspare.backup.options import BackupOptions
from hotspare.cancellation import Cancellation
from hotspare.errors import ConsistencyNotReached, SourceLost
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.platform import Consistency, SnapshotRequest
from hotspare.repository.keys.keychest import new_key_file
from hotspare.repository.point import PointDisk
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from hotspare.units import TIB
from lab import domain_name
from tests.platforms.libvirt.bare_machine import MIB, BareMachine
from tests.platforms.libvirt.protected import Protected, Reasons, bitmaps_of, new_repository

pytestmark = pytest.mark.lab

LOST = "not recorded to the end"
GONE = "is gone"


@pytest.fixture
def machine(lab_host: None) -> Iterator[BareMachine]:
    """A machine of this test alone, off."""
    with BareMachine("accident") as made:
        made.write_while_off(MIB, MIB, 1)
        yield made


@pytest.fixture
def protected(platform: LibvirtPlatform, machine: BareMachine, tmp_path: Path) -> Protected:
    return Protected(platform, machine.name, new_repository(tmp_path / "repository"))


def test_bitmaps_removed_while_off(protected: Protected, machine: BareMachine) -> None:
    protected.back_up()
    machine.start()
    protected.back_up()
    machine.stop()
    subprocess.run(["qemu-img", "bitmap", "--remove", machine.disks["vda"], protected.mark], check=True)
    machine.write_while_off(2 * MIB, MIB, 2)

    assert GONE in str(protected.back_up()["vda"])
    machine.start()
    assert protected.back_up()["vda"] is None
    assert machine.checkpoints() == [protected.mark]


def test_off_and_on_in_all_orders(protected: Protected, machine: BareMachine, tmp_path: Path) -> None:
    """A point made while off is gone on from while running, and the other way round."""
    protected.back_up()
    for number in range(2, 8, 2):
        machine.write_while_off(number * MIB, MIB, number)
        assert protected.back_up()["vda"] is None
        assert bitmaps_of(machine.disks["vda"]) == [protected.mark]
        machine.start()
        machine.write((number + 1) * MIB, MIB, number + 1)
        assert protected.back_up()["vda"] is None
        assert machine.checkpoints() == [protected.mark]
        machine.stop()
    protected.assert_same_as(machine.disks["vda"], tmp_path)


def test_an_offline_backup_that_fails_takes_its_bitmap_back(
    protected: Protected, machine: BareMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is wrong with the machine, so no reason will be found.
    monkeypatch.setattr("hotspare.platforms.libvirt.platform._REASON_SECONDS", 0.0)
    protected.back_up()
    mark = protected.mark
    machine.write_while_off(2 * MIB, MIB, 2)

    def fail() -> None:
        raise SourceLost("made to fail")

    with pytest.raises(SourceLost):
        protected.back_up(during=fail)
    assert bitmaps_of(machine.disks["vda"]) == [mark]
    assert protected.back_up()["vda"] is None
    assert protected.content("vda")[2 * MIB : 3 * MIB] == b"\2" * MIB


def test_started_while_an_offline_backup_reads(protected: Protected, machine: BareMachine) -> None:
    protected.back_up()
    machine.write_while_off(2 * MIB, MIB, 2)

    def start() -> None:
        machine.start()
        machine.write(3 * MIB, MIB, 3)

    with pytest.raises(SourceLost, match="was started"):
        protected.back_up(during=start)
    assert protected.back_up()["vda"] is None
    assert machine.checkpoints() == [protected.mark]
    machine.stop()
    assert bitmaps_of(machine.disks["vda"]) == [protected.mark], "the other run's bitmap was swept"


def test_undefined_and_defined_again(protected: Protected, machine: BareMachine) -> None:
    machine.start()
    protected.back_up()
    machine.stop()
    machine.domain = machine.host.defineXML(machine.forget())
    assert machine.checkpoints() == []
    machine.start()
    machine.write(2 * MIB, MIB, 2)

    assert protected.back_up()["vda"] is None, "the bitmap was in the image all the while"
    assert machine.checkpoints() == [protected.mark]


def test_defined_again_with_another_identity(protected: Protected, machine: BareMachine) -> None:
    machine.start()
    protected.back_up()
    machine.stop()
    old = machine.domain.UUIDString()
    machine.domain = machine.host.defineXML(machine.forget().replace(old, str(uuid.uuid4())))
    machine.start()
    machine.write(2 * MIB, MIB, 2)

    assert "no restore point" in str(protected.back_up()["vda"]), "it is another machine to us"
    machine.write(3 * MIB, MIB, 3)
    assert protected.back_up()["vda"] is None
    machine.stop()
    assert bitmaps_of(machine.disks["vda"]) == [protected.mark], "the record for the old identity is swept"


def test_renamed(protected: Protected, machine: BareMachine) -> None:
    machine.start()
    protected.back_up()
    machine.stop()
    machine.name = protected.name = domain_name("renamed")
    machine.domain.rename(machine.name)
    machine.write_while_off(2 * MIB, MIB, 2)
    machine.start()

    assert protected.back_up()["vda"] is None


def test_cloned(protected: Protected, machine: BareMachine, platform: LibvirtPlatform) -> None:
    machine.start()
    protected.back_up()
    machine.stop()
    with BareMachine("clone") as clone:
        shutil.copy(machine.disks["vda"], clone.disks["vda"])
        clone.write_while_off(5 * MIB, MIB, 55)
        clone.start()
        machine.start()
        machine.write(2 * MIB, MIB, 2)
        of_clone = Protected(platform, clone.name, protected.repository)

        assert "no restore point" in str(of_clone.back_up()["vda"])
        clone.write(6 * MIB, MIB, 66)
        assert protected.back_up()["vda"] is None
        assert of_clone.back_up()["vda"] is None
        clone.stop()
        assert bitmaps_of(clone.disks["vda"]) == [of_clone.mark]


def test_saved_and_restored(protected: Protected, machine: BareMachine, platform: LibvirtPlatform) -> None:
    machine.start()
    protected.back_up()
    machine.write(2 * MIB, MIB, 2)
    machine.domain.managedSave(0)
    assert protected.back_up()["vda"] is None
    assert protected.point is not None
    assert protected.point.consistency == "crash", "what it remembers is not on its disks"
    assert any("memory is saved" in warning for warning in protected.point.warnings)
    level = Consistency.FILESYSTEM
    required = SnapshotRequest(
        point_id="p", repository_id="r", since={}, consistency=level, require_consistency=True
    )
    with (
        pytest.raises(ConsistencyNotReached, match="memory is saved"),
        platform.open_snapshot(platform.inspect(machine.name), required, Cancellation()),
    ):
        pytest.fail("it is as after a power cut")
    assert bitmaps_of(machine.disks["vda"]) == [protected.mark]
    machine.start()
    machine.write(3 * MIB, MIB, 3)

    assert protected.back_up()["vda"] is None


def test_qemu_killed_after_an_increment_and_while_it_is_read(
    protected: Protected, machine: BareMachine
) -> None:
    machine.start()
    protected.back_up()
    machine.write(2 * MIB, MIB, 2)
    with pytest.raises(SourceLost, match="stopped"):
        protected.back_up(during=machine.kill)
    assert protected.back_up()["vda"] is not None, "off now, and its bitmaps were never saved"
    machine.start()
    machine.write(3 * MIB, MIB, 3)
    machine.kill()
    machine.start()

    reason: Reasons = protected.back_up()
    assert LOST in str(reason["vda"])
    assert protected.back_up()["vda"] is None


def test_an_image_written_behind_qemu_is_found_by_comparison(
    protected: Protected, machine: BareMachine, platform: LibvirtPlatform
) -> None:
    """The bitmap lies for real: the bytes of a cluster are overwritten in the image file."""
    image = machine.disks["vda"]
    protected.back_up()
    content = image.read_bytes()
    at = content.index(b"\1" * 65536)
    with image.open("r+b") as file:
        file.seek(at + 300_000)
        file.write(b"not by QEMU")

    # The witness is the disk itself: it shows the point to be whole only if the lie was found.
    assert "the record of what changed was wrong" in str(protected.back_up(percent=100)["vda"])
    assert protected.point is not None
    assert protected.point.disks[0].tracking_wrong == 1
    assert protected.point.disks[0].tracking_compared >= 16
    assert any("read in full at once" in warning for warning in protected.point.warnings)
    assert protected.back_up(percent=100)["vda"] is None


@pytest.mark.parametrize(
    ("size", "sector"), [(16 * MIB + 7 * 512, 512), (16 * MIB + 3 * 4096, 4096)], ids=["odd", "4k"]
)
def test_disks_of_odd_size_and_with_large_sectors(
    platform: LibvirtPlatform, tmp_path: Path, lab_host: None, size: int, sector: int
) -> None:
    with BareMachine("odd", ("qcow2", "raw"), size, sector=sector) as machine:
        protected = Protected(platform, machine.name, new_repository(tmp_path / "repository"))
        machine.start()
        protected.back_up()
        machine.write(size - sector, sector, 7)
        machine.write(size - sector, sector, 8, disk="vdb")
        assert protected.back_up()["vda"] is None
        machine.stop()
        machine.write_while_off(size - 2 * sector, sector, 9)
        machine.write_while_off(size - 2 * sector, sector, 9, disk="vdb")

        assert protected.back_up()["vda"] is None
        assert protected.content("vda")[-2 * sector :] == b"\x09" * sector + b"\7" * sector
        protected.assert_same_as(machine.disks["vda"], tmp_path)


def test_a_disk_larger_than_2_tib(platform: LibvirtPlatform, tmp_path: Path, lab_host: None) -> None:
    """Too large to be read whole, so only what was written is compared."""
    size, far = 3 * TIB, 5 * TIB // 2
    repository = Repository.create(LocalBackend(tmp_path / "repository"), new_key_file())

    def back_up(machine: BareMachine) -> PointDisk:
        options = BackupOptions(consistency=Consistency.CRASH)
        point = backup_machine(repository, platform, machine.name, options, events.ignore, Cancellation())
        return point.disks[0]

    with BareMachine("large", size=size) as machine:
        machine.start()
        machine.write(far, MIB, 1)
        back_up(machine)
        machine.write(far + MIB, MIB, 2)
        disk = back_up(machine)

    assert disk.full_because is None
    assert disk.bytes_read <= 3 * MIB
    buffer = bytearray(3 * MIB)
    repository.disk(disk).read_into(far, memoryview(buffer))
    assert buffer == b"\1" * MIB + b"\2" * MIB + bytes(MIB)
