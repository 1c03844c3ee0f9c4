"""Accidents to checkpoints, bitmaps and jobs of a running machine: each next point is right, byte by byte."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from hotspare.errors import PlatformUnavailable, SourceLost
from hotspare.platforms.libvirt.increment import plan_running
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.repository.repository import Repository
from tests.platforms.libvirt.bare_machine import MIB, BareMachine
from tests.platforms.libvirt.lost_connection import mortal_platform
from tests.platforms.libvirt.protected import Protected, new_repository

pytestmark = pytest.mark.lab

LOST = "not recorded to the end"
GONE = "is gone"
BITMAP_DISK = "<disks><disk name='vda' checkpoint='bitmap'/></disks>"


@pytest.fixture(scope="module")
def shared_machine(lab_host: None) -> Iterator[BareMachine]:
    """A running machine with two disks, for tests that leave it so."""
    with BareMachine("shared", ("qcow2", "qcow2")) as made:
        yield made.start()


@pytest.fixture(scope="module")
def shared_repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return new_repository(tmp_path_factory.mktemp("accidents") / "repository")


@pytest.fixture
def shared(
    platform: LibvirtPlatform, shared_machine: BareMachine, shared_repository: Repository
) -> Protected:
    """The machine of all these tests, with a new point of this test to go on from."""
    protected = Protected(platform, shared_machine.name, shared_repository)
    protected.back_up()
    return protected


def test_a_checkpoint_removed_by_another(shared: Protected, shared_machine: BareMachine) -> None:
    shared_machine.domain.checkpointLookupByName(shared.mark).delete(0)

    reasons = shared.back_up()
    assert GONE in str(reasons["vda"])
    assert GONE in str(reasons["vdb"])
    assert shared.back_up() == {"vda": None, "vdb": None}


def test_a_checkpoint_removed_by_another_without_its_bitmap(
    shared: Protected, shared_machine: BareMachine
) -> None:
    checkpoint = shared_machine.domain.checkpointLookupByName(shared.mark)
    checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
    shared_machine.write(3 * MIB, MIB, 3)

    assert shared.back_up() == {"vda": None, "vdb": None}, "it is defined again"
    assert shared_machine.checkpoints() == [shared.mark]


def test_silent_loss_one_lost_bitmap_fails_its_disk_only(
    shared: Protected, shared_machine: BareMachine
) -> None:
    """Asked for as an increment of the machine, and not disk by disk, it would fail all disks."""
    remove_bitmap(shared_machine, "vdb", shared.mark)
    shared_machine.write(4 * MIB, MIB, 4)
    shared_machine.write(4 * MIB, MIB, 5, disk="vdb")

    reasons = shared.back_up()
    assert reasons["vda"] is None
    assert LOST in str(reasons["vdb"])


def test_a_lost_checkpoint_of_which_one_bitmap_is_lost_too(
    shared: Protected, shared_machine: BareMachine
) -> None:
    remove_bitmap(shared_machine, "vda", shared.mark)
    checkpoint = shared_machine.domain.checkpointLookupByName(shared.mark)
    checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
    shared_machine.write(5 * MIB, MIB, 5, disk="vdb")

    reasons = shared.back_up()
    assert reasons["vda"] is not None
    assert reasons["vdb"] is None, "what is left of it is validated disk by disk"


def test_a_bitmap_lost_between_planning_and_beginning(
    shared: Protected, shared_machine: BareMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan_and_lose(*arguments: object, **options: object) -> object:
        plans = plan_running(*arguments, **options)  # type: ignore[arg-type] # handed on as they come
        remove_bitmap(shared_machine, "vda", shared.mark)
        return plans

    monkeypatch.setattr("hotspare.platforms.libvirt.begin.plan_running", plan_and_lose)
    shared_machine.write(6 * MIB, MIB, 6)
    reasons = shared.back_up()
    monkeypatch.undo()

    assert LOST in str(reasons["vda"])
    assert reasons["vdb"] is None
    assert shared.back_up() == {"vda": None, "vdb": None}


def test_checkpoints_of_another_tool_before_and_after_ours(
    shared: Protected, shared_machine: BareMachine
) -> None:
    foreign = "<domaincheckpoint><name>{}</name>" + BITMAP_DISK + "</domaincheckpoint>"
    shared_machine.domain.checkpointCreateXML(foreign.format("before"), 0)
    shared.back_up()
    shared_machine.domain.checkpointCreateXML(foreign.format("after"), 0)
    shared_machine.write(7 * MIB, MIB, 7)
    assert shared.back_up() == {"vda": None, "vdb": None}
    shared_machine.domain.checkpointLookupByName("before").delete(0)
    shared_machine.write(8 * MIB, MIB, 8)

    assert shared.back_up() == {"vda": None, "vdb": None}
    assert shared_machine.checkpoints() == ["after", shared.mark]
    shared_machine.domain.checkpointLookupByName("after").delete(0)


def test_two_repositories_in_turn(
    shared: Protected, shared_machine: BareMachine, platform: LibvirtPlatform, tmp_path: Path
) -> None:
    other = Protected(platform, shared_machine.name, new_repository(tmp_path / "other"))
    other.back_up()
    for number in range(2):
        shared_machine.write((9 + number) * MIB, MIB, 9 + number)
        assert shared.back_up() == {"vda": None, "vdb": None}
        shared_machine.write((11 + number) * MIB, MIB, 11 + number, disk="vdb")
        assert other.back_up() == {"vda": None, "vdb": None}
    assert shared_machine.checkpoints() == sorted([shared.mark, other.mark])
    shared_machine.domain.checkpointLookupByName(other.mark).delete(0)


def test_paused_and_resumed_while_it_is_read(shared: Protected, shared_machine: BareMachine) -> None:
    def pause() -> None:
        shared_machine.write(2 * MIB, MIB, 22)
        shared_machine.domain.suspend()

    assert shared.back_up(during=pause) == {"vda": None, "vdb": None}
    assert shared.back_up(during=shared_machine.domain.resume) == {"vda": None, "vdb": None}
    assert shared.content("vda")[2 * MIB : 3 * MIB] == b"\x16" * MIB


def test_reset_while_it_is_read(shared: Protected, shared_machine: BareMachine) -> None:
    def reset() -> None:
        shared_machine.domain.reset(0)
        shared_machine.write(3 * MIB, MIB, 33)

    assert shared.back_up(during=reset) == {"vda": None, "vdb": None}
    assert shared.back_up() == {"vda": None, "vdb": None}
    assert shared.content("vda")[3 * MIB : 4 * MIB] == b"\x21" * MIB


def test_a_job_ended_by_another_while_it_is_read(shared: Protected, shared_machine: BareMachine) -> None:
    shared_machine.write(5 * MIB, MIB, 55)
    before = shared.point

    def end() -> None:
        shared_machine.domain.abortJob()
        # QEMU 7.2 may hang when its server is stopped just while somebody connects to it.
        wait_until(lambda: not has_job(shared_machine))

    with pytest.raises(SourceLost, match="has ended"):
        shared.back_up(during=end)
    assert before is not None
    assert shared.repository.points()[-1].id == before.id, "no point of what was not read"

    assert shared.back_up() == {"vda": None, "vdb": None}
    assert shared.content("vda")[5 * MIB : 6 * MIB] == b"\x37" * MIB


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def has_job(machine: BareMachine) -> bool:
    try:
        machine.domain.backupGetXMLDesc(0)
    except libvirt.libvirtError:
        return False
    return True


def remove_bitmap(machine: BareMachine, disk: str, name: str) -> None:
    """Remove one disk's bitmap behind libvirt's back, as QEMU's own commands can."""
    node = next(
        line.split()[0].rstrip(":")
        for line in libvirt_qemu.qemuMonitorCommand(machine.domain, "info block -n", 1).splitlines()
        if "-format" in line and str(machine.disks[disk]) in line
    )
    command = (
        f'{{"execute": "block-dirty-bitmap-remove", "arguments": {{"node": "{node}", "name": "{name}"}}}}'
    )
    assert "error" not in libvirt_qemu.qemuMonitorCommand(machine.domain, command, 0)


def test_libvirt_is_lost_as_the_job_begins(
    shared: Protected,
    shared_machine: BareMachine,
    shared_repository: Repository,
    scratch_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The job is at work, though nobody was told: QEMU needs its scratch files."""
    with mortal_platform(scratch_folder) as mortal, monkeypatch.context() as patch:
        begin = libvirt.virDomain.backupBegin

        def begin_and_lose(domain: libvirt.virDomain, *arguments: Any) -> Any:
            begin(domain, *arguments)
            mortal.cut()
            return begin(domain, *arguments)

        patch.setattr(libvirt.virDomain, "backupBegin", begin_and_lose)
        lost = Protected(mortal, shared_machine.name, shared_repository)
        with pytest.raises(PlatformUnavailable):
            lost.back_up()

    assert "vda" in shared_machine.domain.backupGetXMLDesc(0), "the job has ended, so this tests nothing"
    assert len(list(scratch_folder.glob("*/vda.scratch"))) == 1
    shared_machine.write(8 * MIB, MIB, 8)
    assert shared.back_up() == {"vda": None, "vdb": None}
    assert not any(scratch_folder.glob("*-*"))


def test_what_fails_after_the_job_began_ends_it(
    shared: Protected, shared_machine: BareMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError("made to fail")

    with monkeypatch.context() as patch:
        patch.setattr("hotspare.platforms.libvirt.begin.read_state", fail)
        with pytest.raises(OSError, match="made to fail"):
            shared.back_up()

    with pytest.raises(libvirt.libvirtError, match="no domain backup job"):
        shared_machine.domain.backupGetXMLDesc(0)
    assert shared_machine.checkpoints() == [shared.mark]
    assert shared.back_up() == {"vda": None, "vdb": None}
