"""Shipping from libvirt's snapshots: what QEMU cannot tell is found out otherwise, and said."""

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hotspare.cancellation import Cancellation
from hotspare.errors import NoSpace
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.platform import Consistency
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.interval.shipping import Shipping, ShippingPlan
from hotspare.thinning import parse_thinning
from tests.platforms.libvirt.bare_machine import MIB, BareMachine
from tests.replication.interval.replicas import HereStandby

pytestmark = pytest.mark.lab


@dataclass
class Line:
    """A machine of this host, shipped into a replica of this host, cycle by cycle."""

    shipping: Shipping
    standby: HereStandby
    machine: BareMachine

    def ship(self) -> ReplicaPoint:
        """Run one cycle; the platform, and what it is known by, stay open."""
        self.shipping.cycle(Cancellation())
        return self.standby.points()[-1]

    def expect_alike(self, point: ReplicaPoint) -> None:
        """Each disk is in the point as it is; the machine stands still."""
        for disk in point.disks:
            self.machine.flush(disk.name)
            path = self.machine.disks[disk.name]
            image = self.standby.folder / disk.image
            words = ["qemu-img", "compare", "-U", "-f", path.suffix[1:], "-F", "qcow2", str(path), str(image)]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def line_to(folder: Path, scratch: Path, formats: tuple[str, ...]) -> Iterator[Line]:
    """Make a machine that runs, and a replica of it in a folder."""

    def connect() -> LibvirtPlatform:
        return LibvirtPlatform("qemu:///system", scratch_folder=scratch)

    with BareMachine("shipped", formats) as machine, closing(connect()) as platform:
        machine.start()
        machine_id = platform.inspect(machine.name).id
        with HereStandby(folder, machine.name, machine_id) as standby:
            plan = ShippingPlan("0123456789abcdef", machine_id, 5.0, parse_thinning("last 3"))
            shipping = Shipping(plan, connect, lambda: standby)
            yield Line(shipping, standby, machine)
            shipping.close()


@pytest.fixture
def line(scratch_folder: Path, tmp_path: Path) -> Iterator[Line]:
    with line_to(tmp_path / "replica", scratch_folder, ("qcow2", "raw")) as made:
        yield made


def test_raw_disks_new_disks_and_resized_disks(line: Line) -> None:
    machine = line.machine
    machine.write(MIB, MIB, 1)
    machine.write(2 * MIB, MIB, 2, disk="vdb")
    line.expect_alike(line.ship())
    machine.write(5 * MIB, 4096, 3)
    machine.write(6 * MIB, 4096, 4, disk="vdb")
    second = line.ship()
    line.expect_alike(second)
    reasons = {disk.name: disk.full_because for disk in second.disks}
    assert reasons["vda"] is None
    # QEMU cannot track raw disks: they are compared, and what differs is sent.
    assert reasons["vdb"] is not None
    assert "raw" in reasons["vdb"]
    assert {disk.name: disk.bytes_sent for disk in second.disks} == {"vda": 65536, "vdb": 65536}
    assert any("vdb" in reason for reason in line.shipping.status.full_because)

    machine.plug_in("vdc")
    machine.domain.blockResize("vda", 24 * MIB, 1)  # VIR_DOMAIN_BLOCK_RESIZE_BYTES
    machine.write(20 * MIB, MIB, 5)
    machine.write(0, MIB, 6, disk="vdc")
    third = line.ship()
    line.expect_alike(third)
    sizes = {disk.name: disk.size for disk in third.disks}
    assert sizes == {"vda": 24 * MIB, "vdb": 16 * MIB, "vdc": 16 * MIB}
    reasons = {disk.name: disk.full_because for disk in third.disks}
    assert all(reasons.values()), reasons
    machine.write(0, 4096, 7)
    fourth = line.ship()
    line.expect_alike(fourth)
    assert {disk.name for disk in fourth.disks if disk.full_because} == {"vdb"}
    line.ship()
    assert len(line.standby.points()) == 3


def test_qemu_that_was_killed_is_made_up_for(line: Line) -> None:
    line.machine.write(MIB, 4 * MIB, 1)
    line.ship()
    line.machine.write(2 * MIB, 4096, 2)
    line.machine.kill()
    off = line.ship()
    line.expect_alike(off)
    assert off.consistency == Consistency.OFFLINE.value
    line.machine.start()
    line.machine.write(8 * MIB, 4096, 3)
    point = line.ship()
    line.expect_alike(point)
    assert max(disk.bytes_sent for one in (off, point) for disk in one.disks) <= 2 * 65536
    assert off.disks[0].full_because is not None
    assert off.disks[0].full_because.startswith(
        ("what changed was not recorded", "the record of what changed is")
    )


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 24 MiB."""
    image, folder = tmp_path / "small.img", tmp_path / "small"
    with image.open("wb") as file:
        file.truncate(24 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", image], check=True)
    folder.mkdir()
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_standby_that_is_full_keeps_its_points_and_goes_on(small: Path, scratch_folder: Path) -> None:
    with line_to(small / "replica", scratch_folder, ("qcow2",)) as line:
        line.machine.write(0, 4 * MIB, 1)
        first = line.ship()
        (small / "in the way").write_bytes(b"x" * (12 * MIB))
        line.machine.write(0, 14 * MIB, 2)
        with pytest.raises(NoSpace):
            line.ship()
        line.shipping.close()
        assert [point.id for point in line.standby.points()] == [first.id]
        image = str(line.standby.folder / first.disks[0].image)
        look = ["qemu-io", "-U", "-r", "-f", "qcow2", "-c", f"read -P 1 0 {4 * MIB}", image]
        looked = subprocess.run(look, check=True, capture_output=True, text=True)
        assert "verification failed" not in looked.stdout

        (small / "in the way").unlink()
        line.machine.write_zeroes(0, 14 * MIB)
        line.machine.write(MIB, MIB, 3)
        second = line.ship()
        line.expect_alike(second)
        assert second.disks[0].full_because is None
