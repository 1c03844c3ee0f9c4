"""Cold images as a platform."""

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hotspare.cancellation import Cancellation
from hotspare.errors import MachineNotFound, PermissionRefused, SourceLost, UsageError
from hotspare.platforms.images.platform import ImagesPlatform
from hotspare.platforms.platform import Consistency, Machine, MachineDisk, SnapshotRequest, TargetRequest
from tests.contracts.platform_suite import MIB, PlatformCase, PlatformSuite
from tests.platforms.disk_content import whole_disk

FORMATS = {"raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vhd": "vpc", "vhdx": "vhdx", "vdi": "vdi"}


def some_content(size: int = 8 * MIB) -> bytes:
    noise = random.Random(7)
    return (noise.randbytes(3 * MIB) + bytes(2 * MIB) + noise.randbytes(MIB)).ljust(size, b"\0")


def make_image(path: Path, content: bytes) -> None:
    raw = path.with_suffix(".source")
    raw.write_bytes(content)
    # force_size, or a VHD would be rounded up to what its geometry can express.
    options = ["-o", "force_size=on"] if path.suffix == ".vhd" else []
    command = ["qemu-img", "convert", "-f", "raw", "-O", FORMATS[path.suffix[1:]], *options]
    subprocess.run([*command, str(raw), str(path)], check=True)
    raw.unlink()


def request() -> SnapshotRequest:
    return SnapshotRequest(point_id="point", repository_id="0123456789", since={})


@pytest.mark.parametrize("suffix", ["raw", "qcow2", "vmdk"])
class TestImagesPlatform(PlatformSuite):
    @pytest.fixture
    def case(self, tmp_path: Path, suffix: str) -> PlatformCase:
        content = some_content()
        make_image(tmp_path / f"web.{suffix}", content)
        platform = ImagesPlatform(tmp_path)
        return PlatformCase(platform, "web", {"disk0": content}, tmp_path, "restored", keeps_marks=False)


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_reads_every_format(tmp_path: Path, suffix: str) -> None:
    make_image(tmp_path / f"web.{suffix}", some_content())
    platform = ImagesPlatform(tmp_path)

    machine = platform.inspect("web")
    with platform.open_snapshot(machine, request(), Cancellation()) as snapshot:
        assert snapshot.consistency is Consistency.OFFLINE
        assert snapshot.disks[0].token is None
        assert whole_disk(snapshot, "disk0") == some_content()
    assert machine.disks[0].format == FORMATS[suffix]


def test_tells_images_of_the_same_stem_apart(tmp_path: Path) -> None:
    for name in ("web.raw", "web.qcow2", "mail.raw", "notes.txt"):
        make_image(tmp_path / name, bytes(MIB)) if name != "notes.txt" else (tmp_path / name).touch()

    assert [machine.name for machine in ImagesPlatform(tmp_path).machines()] == [
        "mail",
        "web.qcow2",
        "web.raw",
    ]


def test_one_image_keeps_its_identity_when_it_moves(tmp_path: Path) -> None:
    (tmp_path / "monday.raw").write_bytes(bytes(MIB))
    (tmp_path / "tuesday.raw").write_bytes(bytes(MIB))

    monday = ImagesPlatform.for_image(tmp_path / "monday.raw", "web").inspect("web")
    tuesday = ImagesPlatform.for_image(tmp_path / "tuesday.raw", "web").inspect("web")

    assert monday.id == tuesday.id
    assert [one.name for one in ImagesPlatform.for_image(tmp_path / "monday.raw", "web").machines()] == [
        "web"
    ]


def test_an_image_without_suffix_is_known_by_its_content(tmp_path: Path) -> None:
    make_image(tmp_path / "web.qcow2", some_content())
    (tmp_path / "web.qcow2").rename(tmp_path / "web.img")

    assert ImagesPlatform(tmp_path).inspect("web").disks[0].format == "qcow2"


def test_no_image_at_all(tmp_path: Path) -> None:
    with pytest.raises(SourceLost):
        ImagesPlatform.for_image(tmp_path / "none.raw", "web")
    with pytest.raises(SourceLost):
        ImagesPlatform(tmp_path / "none").machines()
    with pytest.raises(MachineNotFound):
        ImagesPlatform(tmp_path).inspect("none")


def test_a_damaged_image_is_listed_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "web.qcow2").write_bytes(b"this is no qcow2 image" * 100)
    platform = ImagesPlatform(tmp_path)

    machine = platform.inspect("web")

    assert machine.disks == ()
    assert "disk0" in machine.left_out[0]
    with pytest.raises(UsageError), platform.open_snapshot(machine, request(), Cancellation()):
        pytest.fail("opened")


def test_an_image_that_refers_to_another_file_is_left_out(tmp_path: Path) -> None:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw"]
    subprocess.run([*command, str(tmp_path / "web.qcow2")], check=True)

    assert "refers to other files" in ImagesPlatform(tmp_path).inspect("web").left_out[0]


def test_a_change_while_reading_is_noticed(tmp_path: Path) -> None:
    image = tmp_path / "web.raw"
    image.write_bytes(some_content())
    platform = ImagesPlatform(tmp_path)

    with platform.open_snapshot(platform.inspect("web"), request(), Cancellation()) as snapshot:
        snapshot.check()
        with image.open("r+b") as file:
            file.write(b"changed")
        os.utime(image, ns=(1, 1))
        with pytest.raises(SourceLost, match="changed"):
            snapshot.check()


@pytest.fixture
def image_in_use(tmp_path: Path, suffix: str) -> Iterator[Path]:
    """An image that a real QEMU has open for writing."""
    image = tmp_path / f"web.{suffix}"
    make_image(image, some_content())
    command = ["qemu-system-x86_64", "-S", "-display", "none", "-nodefaults", "-monitor", "stdio"]
    drive = f"file={image},format={FORMATS[suffix]},if=virtio"
    machine = subprocess.Popen(
        [*command, "-drive", drive], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with machine:
        try:
            assert machine.stdin is not None
            assert machine.stdout is not None
            machine.stdin.write("info status\n")  # answered only when all devices are there
            machine.stdin.flush()
            assert any("VM status" in line for line in machine.stdout)
            yield image
        finally:
            machine.kill()


@pytest.mark.parametrize("suffix", ["raw", "qcow2"])
def test_an_image_in_use_is_refused(image_in_use: Path) -> None:
    platform = ImagesPlatform(image_in_use.parent)

    with (
        pytest.raises(PermissionRefused, match="in use"),
        platform.open_snapshot(platform.inspect("web"), request(), Cancellation()),
    ):
        pytest.fail("opened")


def test_reads_a_block_device(tmp_path: Path) -> None:
    content = some_content()
    (tmp_path / "backing").write_bytes(content)
    loop = subprocess.check_output(
        ["losetup", "--find", "--show", str(tmp_path / "backing")], text=True
    ).strip()
    try:
        platform = ImagesPlatform.for_image(Path(loop), "web")
        with platform.open_snapshot(platform.inspect("web"), request(), Cancellation()) as snapshot:
            assert whole_disk(snapshot, "disk0") == content
            snapshot.check()
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)


def test_several_disks_become_several_images(tmp_path: Path) -> None:
    source = ImagesPlatform(tmp_path)
    (tmp_path / "web.raw").write_bytes(bytes(MIB))
    one = source.inspect("web")
    disks = tuple(MachineDisk(name=name, size=MIB, format="raw", source="") for name in ("vda", "vdb"))
    machine = Machine(id="x", name="x", platform="", state=one.state, disks=disks)

    target = source.create_target(machine, TargetRequest(name="copy", folder=None))
    for disk in machine.disks:
        with closing(target.writer(disk.name)) as writer:
            writer.write(0, disk.name.encode())
    target.finalize()

    assert (tmp_path / "copy-vda.raw").read_bytes()[:3] == b"vda"
    assert (tmp_path / "copy-vdb.raw").read_bytes()[:3] == b"vdb"


def test_an_image_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be started"):
        ImagesPlatform(tmp_path).start("web")
