"""Increments on a real QEMU: they hold all that changed, or say why they are fulls."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import libvirt
import pytest

from hotspare.block.extent import ExtentKind
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, SourceLost
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.platform import (
    Consistency,
    PowerState,
    Snapshot,
    SnapshotRequest,
    SweepRequest,
    Token,
)
from tests.platforms.disk_content import applied, covered, whole_disk
from tests.platforms.libvirt.bare_machine import MIB, BareMachine

pytestmark = pytest.mark.lab

REPOSITORY = "0123456789abcdef"


@dataclass
class Series:
    """Restore points of one machine, one after another, as an engine makes them."""

    platform: LibvirtPlatform
    machine: BareMachine
    tokens: Mapping[str, Token] = field(default_factory=dict)
    content: dict[str, bytes] = field(default_factory=dict)
    count: int = 0

    @contextmanager
    def snapshot(self, repository: str = REPOSITORY) -> Iterator[Snapshot]:
        self.count += 1
        request = SnapshotRequest(
            point_id=f"p{self.count}",
            repository_id=repository,
            since=self.tokens,
            consistency=Consistency.CRASH,
        )
        machine = self.platform.inspect(self.machine.name)
        with self.platform.open_snapshot(machine, request, Cancellation()) as snapshot:
            yield snapshot

    def back_up(self) -> dict[str, str | None]:
        """Make a restore point; check that what changed makes the disk what it is now; give the reasons."""
        with self.snapshot() as snapshot:
            for disk in snapshot.disks:
                before = b"\xee" * disk.size if disk.full_because else self.content[disk.name]
                self.content[disk.name] = applied(snapshot, disk.name, before)
                assert self.content[disk.name] == whole_disk(snapshot, disk.name)
            snapshot.check()
            snapshot.commit()
        self.tokens = {disk.name: disk.token for disk in snapshot.disks if disk.token}
        return {disk.name: disk.full_because for disk in snapshot.disks}


@pytest.fixture
def machine(lab_host: None) -> Iterator[BareMachine]:
    with BareMachine("bare", ("qcow2", "raw")) as made:
        yield made.start()


@pytest.fixture
def series(platform: LibvirtPlatform, machine: BareMachine) -> Series:
    return Series(platform, machine)


def test_full_then_increments(series: Series, machine: BareMachine) -> None:
    machine.write(MIB, MIB, 1)
    first = series.back_up()
    machine.write(3 * MIB, MIB, 2)
    machine.write(5 * MIB, MIB, 3, disk="vdb")
    second = series.back_up()

    assert first["vda"] is not None
    assert "no restore point" in first["vda"]
    assert second["vda"] is None
    assert second["vdb"] is not None
    assert "raw" in second["vdb"]
    assert series.content["vda"][3 * MIB : 4 * MIB] == b"\2" * MIB
    assert series.content["vdb"][5 * MIB : 6 * MIB] == b"\3" * MIB
    assert machine.checkpoints() == ["hotspare-01234567-p2"]


def test_an_increment_reads_only_what_changed(series: Series, machine: BareMachine) -> None:
    machine.write(0, 8 * MIB, 1)
    series.back_up()
    machine.write(10 * MIB, 4096, 2)

    with series.snapshot() as snapshot:
        extents = list(snapshot.changed("vda"))

    assert sum(extent.length for extent in extents) <= 128 * 1024
    assert covered(extents, ExtentKind.DATA, 10 * MIB, 4096)


def test_what_became_zero_is_told(series: Series, machine: BareMachine) -> None:
    machine.write(2 * MIB, 4 * MIB, 1)
    series.back_up()
    machine.write_zeroes(3 * MIB, MIB)

    with series.snapshot() as snapshot:
        extents = list(snapshot.changed("vda"))
    series.back_up()

    assert covered(extents, ExtentKind.ZERO, 3 * MIB, MIB)
    assert series.content["vda"][3 * MIB : 4 * MIB] == bytes(MIB)


def test_the_view_is_frozen(series: Series, machine: BareMachine) -> None:
    machine.write(MIB, MIB, 1)
    with series.snapshot() as snapshot:
        machine.write(MIB, MIB, 9)
        assert whole_disk(snapshot, "vda")[MIB : 2 * MIB] == b"\1" * MIB


def test_a_failed_run_loses_no_change(series: Series, machine: BareMachine) -> None:
    series.back_up()
    machine.write(MIB, MIB, 1)
    with pytest.raises(ZeroDivisionError), series.snapshot():
        raise ZeroDivisionError
    assert machine.checkpoints() == ["hotspare-01234567-p1"]
    machine.write(4 * MIB, MIB, 2)

    assert series.back_up()["vda"] is None
    assert series.content["vda"][MIB : 2 * MIB] == b"\1" * MIB
    assert series.content["vda"][4 * MIB : 5 * MIB] == b"\2" * MIB


def test_a_killed_run_is_cleared_away(series: Series, machine: BareMachine, scratch_folder: Path) -> None:
    series.back_up()
    machine.write(MIB, MIB, 1)
    script = f"""
import os, signal
from pathlib import Path
from hotspare.cancellation import Cancellation
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.platform import Consistency, SnapshotRequest
platform = LibvirtPlatform("qemu:///system", scratch_folder=Path({str(scratch_folder)!r}))
crash = Consistency.CRASH
request = SnapshotRequest(point_id="dead", repository_id={REPOSITORY!r}, since={{}}, consistency=crash)
with platform.open_snapshot(platform.inspect({machine.name!r}), request, Cancellation()):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert "hotspare-01234567-dead" in machine.checkpoints()
    assert any(scratch_folder.glob("dead-*"))

    assert series.back_up()["vda"] is None
    assert series.content["vda"][MIB : 2 * MIB] == b"\1" * MIB
    assert machine.checkpoints() == ["hotspare-01234567-p2"]
    assert not any(scratch_folder.glob("*-*"))


def test_a_job_that_libvirt_does_not_end_is_known_again(
    series: Series, machine: BareMachine, scratch_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series.back_up()
    with monkeypatch.context() as patched:
        # As when its one thread for such events is held up by another machine.
        patched.setattr(libvirt.virConnect, "listAllDomains", lambda _seeing: [machine.domain])
        patched.setattr(libvirt.virDomain, "abortJob", lambda _domain: 0)
        patched.setattr("hotspare.platforms.libvirt.snapshot._END_SECONDS", 0.2)
        with series.snapshot():
            pass
        assert len(list(scratch_folder.glob("p2-*"))) == 1
        with pytest.raises(HotspareError, match="libvirt does not end it"), series.snapshot():
            pytest.fail("began")
        (found,) = series.platform.sweep(SweepRequest(dry_run=False))
        assert found.problem == "libvirt did not end it"
        assert len(list(scratch_folder.glob("p2-*"))) == 1
    machine.write(MIB, MIB, 1)

    assert series.back_up()["vda"] is None
    assert not any(scratch_folder.glob("*-*"))
    assert len(machine.checkpoints()) == 1


def test_a_running_backup_of_ours_is_left_alone(series: Series, platform: LibvirtPlatform) -> None:
    with series.snapshot() as first:
        with pytest.raises(HotspareError, match="running already"), series.snapshot():
            pytest.fail("began")
        first.check()


def test_a_foreign_job_is_left_alone(series: Series, machine: BareMachine, scratch_folder: Path) -> None:
    scratch_folder.chmod(0o777)
    job = f"""<domainbackup mode='pull'><server transport='unix' socket='{scratch_folder}/foreign.sock'/>
      <disks><disk name='vda' backup='yes' type='file'><driver type='qcow2'/>
      <scratch file='{scratch_folder}/foreign'/></disk></disks></domainbackup>"""
    machine.domain.backupBegin(job, None, 0)

    with pytest.raises(HotspareError, match=r"another program.*foreign\.sock"), series.snapshot():
        pytest.fail("began")

    assert "foreign.sock" in machine.domain.backupGetXMLDesc(0)
    machine.domain.abortJob()


def test_checkpoints_of_others_stay(series: Series, machine: BareMachine) -> None:
    disks = "<disks><disk name='vda' checkpoint='bitmap'/></disks>"
    foreign = f"<domaincheckpoint><name>{{}}</name>{disks}</domaincheckpoint>"
    for name in ("theirs", "hotspare-ffffffff-p1"):
        machine.domain.checkpointCreateXML(foreign.format(name), 0)
    series.back_up()
    series.back_up()

    assert machine.checkpoints() == ["hotspare-01234567-p2", "hotspare-ffffffff-p1", "theirs"]


def test_after_qemu_was_killed_a_full_says_why(series: Series, machine: BareMachine) -> None:
    series.back_up()
    machine.kill()
    machine.start()
    machine.write(MIB, MIB, 1)

    reason = series.back_up()["vda"]
    machine.write(2 * MIB, MIB, 2)

    assert reason is not None
    assert "not recorded to the end" in reason
    assert series.back_up()["vda"] is None
    assert machine.checkpoints() == ["hotspare-01234567-p3"]


def test_a_checkpoint_that_libvirt_lost_is_found_again(series: Series, machine: BareMachine) -> None:
    series.back_up()
    machine.domain.destroy()
    machine.domain.checkpointLookupByName("hotspare-01234567-p1").delete(2)
    machine.start()
    machine.write(3 * MIB, MIB, 4)

    assert series.back_up()["vda"] is None
    machine.domain.destroy()
    info = subprocess.check_output(["qemu-img", "info", str(machine.disks["vda"])], text=True)
    assert "hotspare-01234567-p1" not in info
    assert "hotspare-01234567-p2" in info


def test_a_new_disk_is_a_full_and_the_others_go_on(series: Series, machine: BareMachine) -> None:
    series.back_up()
    machine.plug_in("vdc")
    machine.write(MIB, MIB, 7, disk="vdc")

    reasons = series.back_up()

    assert reasons["vda"] is None
    assert reasons["vdc"] is not None
    assert series.back_up()["vdc"] is None


def test_a_resized_disk_is_a_full(series: Series, machine: BareMachine) -> None:
    series.back_up()
    machine.domain.blockResize("vda", 24 * MIB, 1)

    reason = series.back_up()["vda"]

    assert reason is not None
    assert "size" in reason
    assert len(series.content["vda"]) == 24 * MIB
    assert series.back_up()["vda"] is None


def test_a_token_of_another_disk_is_of_no_use(series: Series, machine: BareMachine) -> None:
    series.back_up()
    old = series.tokens["vda"]
    series.tokens = {"vda": Token(value=old.value, disk_identity="qcow2:/elsewhere:1", size=old.size)}

    reason = series.back_up()["vda"]

    assert reason is not None
    assert "another one" in reason


def test_off_and_on_again(series: Series, machine: BareMachine) -> None:
    machine.write(MIB, MIB, 1)
    series.back_up()
    machine.write(2 * MIB, MIB, 2)
    machine.domain.destroy()
    with series.snapshot() as snapshot:
        assert snapshot.consistency is Consistency.OFFLINE
    assert series.back_up()["vda"] is None
    machine.start()
    machine.write(3 * MIB, MIB, 3)

    assert series.back_up()["vda"] is None
    assert series.content["vda"][2 * MIB : 3 * MIB] == b"\2" * MIB
    assert series.content["vda"][3 * MIB : 4 * MIB] == b"\3" * MIB


def test_a_first_point_of_a_machine_that_is_off_is_followed_by_an_increment(
    series: Series, machine: BareMachine
) -> None:
    machine.domain.destroy()
    assert series.back_up()["vda"] is not None
    assert series.tokens["vda"].value == "hotspare-01234567-p1"
    machine.start()
    machine.write(3 * MIB, MIB, 3)

    assert series.back_up()["vda"] is None
    assert series.content["vda"][3 * MIB : 4 * MIB] == b"\3" * MIB
    assert machine.checkpoints() == ["hotspare-01234567-p2"]


def test_a_machine_started_during_an_offline_backup(series: Series, machine: BareMachine) -> None:
    machine.domain.destroy()
    with series.snapshot() as snapshot:
        snapshot.check()
        machine.start()
        with pytest.raises(SourceLost, match="was started"):
            snapshot.check()


def test_a_machine_that_stops_during_the_backup(series: Series, machine: BareMachine) -> None:
    series.back_up()

    def read_while_it_stops() -> None:
        with series.snapshot() as snapshot:
            machine.kill()
            with pytest.raises(SourceLost, match="stopped"):
                snapshot.check()
            whole_disk(snapshot, "vda")

    with pytest.raises(SourceLost, match="stopped"):
        read_while_it_stops()
    machine.start()

    assert series.back_up()["vda"] is not None
    assert machine.checkpoints() == ["hotspare-01234567-p3"]


def test_a_paused_machine(platform: LibvirtPlatform, machine: BareMachine) -> None:
    machine.write(MIB, MIB, 1)
    machine.domain.suspend()
    described = platform.inspect(machine.name)
    assert described.state is PowerState.PAUSED
    request = SnapshotRequest(point_id="p1", repository_id=REPOSITORY, since={})
    with platform.open_snapshot(described, request, Cancellation()) as snapshot:
        assert snapshot.consistency is Consistency.CRASH
        assert whole_disk(snapshot, "vda")[MIB : 2 * MIB] == b"\1" * MIB
        snapshot.commit()
    tokens = {disk.name: disk.token for disk in snapshot.disks if disk.token}
    machine.domain.resume()
    machine.write(2 * MIB, MIB, 2)
    machine.domain.suspend()
    request = SnapshotRequest(point_id="p2", repository_id=REPOSITORY, since=tokens)
    with platform.open_snapshot(platform.inspect(machine.name), request, Cancellation()) as snapshot:
        assert {disk.name: disk.full_because is None for disk in snapshot.disks} == {
            "vda": True,
            "vdb": False,
        }
        assert covered(list(snapshot.changed("vda")), ExtentKind.DATA, 2 * MIB, MIB)
    assert platform.inspect(machine.name).state is PowerState.PAUSED, "a backup does not let it run"


@pytest.mark.parametrize(("image_format", "second_is_full"), [("raw", True), ("qcow2", False)])
def test_a_block_device(
    series: Series, machine: BareMachine, image_format: str, second_is_full: bool
) -> None:
    backing = machine.folder / "device.img"
    backing.touch()
    os.truncate(backing, 20 * MIB)
    command = ["losetup", "--find", "--show", str(backing)]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        subprocess.run(["qemu-img", "create", "-q", "-f", image_format, device, "16M"], check=True)
        machine.domain.attachDeviceFlags(
            f"<disk type='block' device='disk'><driver name='qemu' type='{image_format}'/>"
            f"<source dev='{device}'/><target dev='vdc' bus='virtio'/></disk>",
            libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG,
        )
        machine.write(MIB, MIB, 7, disk="vdc")
        assert series.back_up()["vdc"] is not None
        machine.write(3 * MIB, MIB, 8, disk="vdc")
        assert (series.back_up()["vdc"] is not None) == second_is_full
        machine.domain.destroy()
        series.back_up()
    finally:
        if machine.domain.isActive():
            machine.domain.destroy()
        subprocess.run(["losetup", "--detach", device], check=True)
    assert series.content["vdc"][MIB : 2 * MIB] == b"\7" * MIB
    assert series.content["vdc"][3 * MIB : 4 * MIB] == b"\x08" * MIB
