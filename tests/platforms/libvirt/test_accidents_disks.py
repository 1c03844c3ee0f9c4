"""Accidents to disks and images: each next point is right, byte by byte, and says why it is a full."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from hotspare.errors import HotspareError
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from tests.platforms.libvirt.bare_machine import MIB, BareMachine
from tests.platforms.libvirt.protected import Protected, bitmaps_of, new_repository

pytestmark = pytest.mark.lab

ANOTHER = "another one"
GONE = "is gone"


@pytest.fixture
def machine(lab_host: None) -> Iterator[BareMachine]:
    with BareMachine("disks") as made:
        made.write_while_off(MIB, 2 * MIB, 1)
        yield made


@pytest.fixture
def protected(platform: LibvirtPlatform, machine: BareMachine, tmp_path: Path) -> Protected:
    return Protected(platform, machine.name, new_repository(tmp_path / "repository"))


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def wait_for_job(machine: BareMachine, disk: str = "vda") -> None:
    """Wait until a block job has caught up with the guest."""
    for _ in range(600):
        job = machine.domain.blockJobInfo(disk, 0)
        if job and job["end"] and job["cur"] == job["end"]:
            return
        subprocess.run(["sleep", "0.05"], check=True)
    pytest.fail("the block job does not end")


def full_because(protected: Protected, reason: str, disk: str = "vda") -> bool:
    """Back up; tell whether that disk was a full for the reason."""
    return reason in str(protected.back_up()[disk])


def test_resized_while_off(protected: Protected, machine: BareMachine) -> None:
    protected.back_up()
    qemu_img("resize", "-f", "qcow2", machine.disks["vda"], str(24 * MIB))

    assert full_because(protected, "size")
    machine.start()
    machine.write(20 * MIB, MIB, 4)
    assert protected.back_up()["vda"] is None


def test_silent_loss_of_a_tail_cut_off_and_grown_again(protected: Protected, machine: BareMachine) -> None:
    """QEMU drops the marks beyond the smaller size, and the disk has its old size again."""
    machine.start()
    machine.write(12 * MIB, 2 * MIB, 5)
    protected.back_up()
    for size in (8 * MIB, 16 * MIB):
        machine.domain.blockResize("vda", size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

    assert full_because(protected, "the record of what changed was wrong")
    assert not any(protected.content("vda")[8 * MIB :])
    assert protected.back_up()["vda"] is None


def test_a_disk_replaced_by_another_of_the_same_name_and_size(
    protected: Protected, machine: BareMachine
) -> None:
    protected.back_up()
    image = machine.disks["vda"]
    image.unlink()
    qemu_img("create", "-f", "qcow2", image, str(16 * MIB))
    machine.write_while_off(3 * MIB, MIB, 7)

    reason = str(protected.back_up()["vda"])
    assert ANOTHER in reason or GONE in reason, "the file system may give the same inode again"
    assert protected.back_up()["vda"] is None


def test_a_disk_overwritten_in_place_by_another(protected: Protected, machine: BareMachine) -> None:
    protected.back_up()
    other = machine.folder / "other"
    qemu_img("create", "-f", "qcow2", other, str(16 * MIB))
    image = machine.disks["vda"]
    with image.open("r+b") as target:
        target.truncate()
        target.write(other.read_bytes())

    assert full_because(protected, GONE), "path and inode are the same"


def test_silent_loss_of_an_image_put_back_to_between_two_points(
    protected: Protected, machine: BareMachine
) -> None:
    """The copy brings an older bitmap with it, which knows nothing of what came later."""
    image, copy = machine.disks["vda"], machine.folder / "copy"
    protected.back_up()
    machine.write_while_off(4 * MIB, MIB, 2)
    shutil.copy(image, copy)
    machine.write_while_off(6 * MIB, MIB, 3)
    protected.back_up()
    with image.open("r+b") as target:
        target.truncate()
        target.write(copy.read_bytes())

    assert full_because(protected, GONE)
    assert not any(protected.content("vda")[6 * MIB : 7 * MIB])


def test_an_image_put_back_to_after_the_last_point(protected: Protected, machine: BareMachine) -> None:
    image, copy = machine.disks["vda"], machine.folder / "copy"
    protected.back_up()
    machine.write_while_off(4 * MIB, MIB, 2)
    shutil.copy(image, copy)
    machine.write_while_off(6 * MIB, MIB, 3)
    with image.open("r+b") as target:
        target.truncate()
        target.write(copy.read_bytes())

    assert protected.back_up()["vda"] is None, "the bitmap went with the content"


def test_a_disk_unplugged_and_plugged_in_again(protected: Protected, machine: BareMachine) -> None:
    machine.start()
    machine.plug_in("vdb")
    protected.back_up()
    element = machine.disk_xml("vdb")
    both = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
    # A guest without a system lets go of no device, so it is done while the machine is off.
    machine.stop()
    machine.domain.detachDeviceFlags(element, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    machine.start()
    assert protected.back_up().keys() == {"vda"}
    machine.write_while_off(2 * MIB, MIB, 9, disk="vdb")
    machine.domain.attachDeviceFlags(element, both)

    reasons = protected.back_up()
    assert reasons["vda"] is None
    assert "no record to go on from" in str(reasons["vdb"])
    assert protected.back_up()["vdb"] is None


def test_converted_to_raw_and_back(protected: Protected, machine: BareMachine) -> None:
    protected.back_up()
    image, raw = machine.disks["vda"], machine.folder / "vda.raw"
    qemu_img("convert", "-f", "qcow2", "-O", "raw", image, raw)
    machine.define_as(("type='qcow2'", "type='raw'"), (str(image), str(raw)))
    assert full_because(protected, "raw disk")
    image.unlink()
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, image)
    machine.define_as(("type='raw'", "type='qcow2'"), (str(raw), str(image)))

    assert full_because(protected, "to go on from")
    assert protected.back_up()["vda"] is None


def test_an_external_snapshot_and_its_commit(protected: Protected, machine: BareMachine) -> None:
    machine.start()
    protected.back_up()
    overlay = machine.folder / "overlay"
    snapshot = f"""<domainsnapshot><name>outside</name><disks><disk name='vda' snapshot='external'>
      <source file='{overlay}'/></disk></disks></domainsnapshot>"""
    machine.domain.snapshotCreateXML(snapshot, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)
    machine.write(5 * MIB, MIB, 5)
    assert full_because(protected, ANOTHER)
    assert full_because(protected, "an image below"), "the old checkpoint was removed from it"
    machine.write(6 * MIB, MIB, 6)
    assert protected.back_up()["vda"] is None, "an increment of an overlay"
    machine.domain.blockCommit("vda", None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
    wait_for_job(machine)
    machine.domain.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    machine.write(7 * MIB, MIB, 7)

    assert full_because(protected, ANOTHER)
    machine.domain.snapshotLookupByName("outside").delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)
    machine.write(8 * MIB, MIB, 8)
    assert protected.back_up()["vda"] is None


def test_an_external_snapshot_thrown_away(protected: Protected, machine: BareMachine) -> None:
    """The way back to an external snapshot: go on with the image below, as if nothing had been."""
    image, overlay = machine.disks["vda"], machine.folder / "overlay"
    protected.back_up()
    qemu_img("create", "-f", "qcow2", "-b", image, "-F", "qcow2", overlay)
    machine.define_as((str(image), str(overlay)))
    machine.start()
    machine.write(5 * MIB, MIB, 5)
    assert full_because(protected, ANOTHER)
    machine.stop()
    machine.define_as((str(overlay), str(image)))

    assert full_because(protected, ANOTHER)
    assert not any(protected.content("vda")[5 * MIB : 6 * MIB])


def test_a_return_to_an_internal_snapshot(protected: Protected, machine: BareMachine) -> None:
    image = machine.disks["vda"]
    qemu_img("snapshot", "-c", "inside", image)
    machine.write_while_off(MIB, 2 * MIB, 8)
    protected.back_up()
    with pytest.raises(subprocess.CalledProcessError) as refused:
        qemu_img("snapshot", "-a", "inside", image)
    assert b"dirty bitmaps" in refused.value.stderr, "QEMU itself stands before the loss"
    for name in bitmaps_of(image):
        qemu_img("bitmap", "--remove", image, name)
    qemu_img("snapshot", "-a", "inside", image)

    assert full_because(protected, GONE)
    assert protected.content("vda")[MIB : 3 * MIB] == b"\1" * 2 * MIB


def test_a_disk_moved_to_another_file_while_it_runs(protected: Protected, machine: BareMachine) -> None:
    machine.start()
    protected.back_up()
    moved = f"<disk type='file'><driver type='qcow2'/><source file='{machine.folder}/moved'/></disk>"
    machine.domain.blockCopy("vda", moved, {}, libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)
    wait_for_job(machine)
    machine.write(5 * MIB, MIB, 5)
    with pytest.raises(HotspareError, match="cannot begin") as refused:
        protected.back_up()
    assert "virsh blockjob" in refused.value.hint
    machine.domain.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    machine.write(7 * MIB, MIB, 7)

    assert full_because(protected, ANOTHER)
    machine.write(8 * MIB, MIB, 8)
    assert protected.back_up()["vda"] is None


def test_a_linked_clone_and_the_image_below_it(protected: Protected, machine: BareMachine) -> None:
    image, base = machine.disks["vda"], machine.folder / "base"
    image.rename(base)
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "qcow2", image)
    machine.write_while_off(5 * MIB, MIB, 5)
    protected.back_up()
    machine.write_while_off(6 * MIB, MIB, 6)
    assert protected.back_up()["vda"] is None
    machine.start()
    machine.write(7 * MIB, MIB, 7)
    assert protected.back_up()["vda"] is None
    machine.stop()
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", f"write -P 9 {9 * MIB} {MIB}", base], check=True, capture_output=True
    )

    assert full_because(protected, "an image below"), "no bitmap of the clone notes what its base becomes"
    assert protected.content("vda")[9 * MIB : 10 * MIB] == b"\x09" * MIB


def test_an_image_of_version_2(protected: Protected, machine: BareMachine) -> None:
    image = machine.disks["vda"]
    qemu_img("amend", "-f", "qcow2", "-o", "compat=0.10", image)
    protected.back_up()
    machine.write_while_off(5 * MIB, MIB, 5)
    assert full_because(protected, "version 2")
    machine.start()
    machine.write(6 * MIB, MIB, 6)
    assert full_because(protected, "version 2")


def test_an_image_that_cannot_be_written(protected: Protected, machine: BareMachine, tmp_path: Path) -> None:
    image, folder = machine.disks["vda"], machine.folder / "mounted"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "images", folder], check=True)
    try:
        moved = Path(shutil.copy(image, folder / "vda.qcow2"))
        machine.define_as((str(image), str(moved)))
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        protected.back_up()
        assert protected.point is not None
        assert any("cannot be tracked" in warning for warning in protected.point.warnings)
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)

        assert full_because(protected, "to go on from"), "and that is all that it costs"
        protected.assert_same_as(moved, tmp_path)
        assert protected.back_up()["vda"] is None
    finally:
        subprocess.run(["umount", folder], check=True)


def test_discarded_and_zeroed_ranges(protected: Protected, machine: BareMachine) -> None:
    machine.start()
    machine.write(4 * MIB, 8 * MIB, 5)
    protected.back_up()
    machine.discard(5 * MIB, 2 * MIB)
    machine.write_zeroes(8 * MIB, MIB + 4096)

    assert protected.back_up()["vda"] is None
    assert not any(protected.content("vda")[8 * MIB : 9 * MIB + 4096])
    assert protected.point is not None
    assert protected.point.disks[0].bytes_read <= 256 * 1024, "zeroes are known without reading"
