"""Sweeping a host after backups that were killed in each of their stages.

Other tests of this host leave killed runs on purpose, so the sweep here sees the machines of its test only.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.libvirt.scratch import RunFolder, ScratchOwner, qemu_account
from hotspare.platforms.platform import Consistency, Remnant, SnapshotRequest, SweepRequest, Token
from lab import LabGuest, connection
from tests.platforms.libvirt.bare_machine import BareMachine
from tests.platforms.libvirt.protected import bitmaps_of

pytestmark = pytest.mark.lab

REPOSITORY = "5weeb000"
PREFIX = f"hotspare-{REPOSITORY}-"

KILLED_RUN = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from hotspare.cancellation import Cancellation
from hotspare.platforms.libvirt import begin, platform as libvirt_platform
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.libvirt.watchdog import Watchdog
from hotspare.platforms.platform import Consistency, SnapshotRequest

stage, scratch, machine = sys.argv[1:]

def die(*_arguments, **_options):
    os.kill(os.getpid(), signal.SIGKILL)

if stage == "before the job":
    libvirt_platform.begin_snapshot = die
if stage == "frozen":
    started = []
    real_start, real = Watchdog.start, begin.quiesced
    Watchdog.start = lambda *arguments: started.append(real_start(*arguments)) or started[0]
    @contextmanager
    def killed_while_frozen(*arguments):
        with real(*arguments):
            started[0].process.kill()  # it as well
            started[0].process.wait()
            die()
            yield
    begin.quiesced = killed_while_frozen
platform = LibvirtPlatform("qemu:///system", scratch_folder=Path(scratch))
level = Consistency.FILESYSTEM if stage == "frozen" else Consistency.CRASH
request = SnapshotRequest(point_id="dead", repository_id="REPOSITORY", since={}, consistency=level)
with platform.open_snapshot(platform.inspect(machine), request, Cancellation()):
    die()
""".replace("REPOSITORY", REPOSITORY)


def killed_run(stage: str, scratch_folder: Path, machine: str) -> None:
    command = [sys.executable, "-c", KILLED_RUN, stage, str(scratch_folder), machine]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr


@pytest.fixture
def machine(lab_host: None) -> Iterator[BareMachine]:
    with BareMachine("sweep", ("qcow2", "raw")) as made:
        yield made.start()


def see_only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def listing(seeing: libvirt.virConnect, flags: int = 0) -> list[libvirt.virDomain]:
        found = []
        for name in names:
            try:
                found.append(seeing.lookupByName(name))
            except libvirt.libvirtError:
                continue
        return found

    monkeypatch.setattr(libvirt.virConnect, "listAllDomains", listing)


def kinds(found: list[Remnant]) -> list[str]:
    assert all(one.problem is None for one in found), found
    return [one.kind for one in found]


def jobs(machine: BareMachine) -> bool:
    try:
        return bool(machine.domain.backupGetXMLDesc(0))
    except libvirt.libvirtError:
        return False


@pytest.mark.parametrize(
    ("stage", "expected"),
    [("before the job", ["run-folder"]), ("in the job", ["backup-job", "run-folder", "checkpoint"])],
)
def test_a_run_killed_before_or_in_its_job(
    platform: LibvirtPlatform,
    machine: BareMachine,
    scratch_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    expected: list[str],
) -> None:
    killed_run(stage, scratch_folder, machine.name)
    see_only(monkeypatch, machine.name)

    would = platform.sweep(SweepRequest(dry_run=True, repository_id=REPOSITORY))
    assert len(list(scratch_folder.glob("dead-*"))) == 1
    assert jobs(machine) == ("backup-job" in expected)
    found = platform.sweep(SweepRequest(repository_id=REPOSITORY))

    assert kinds(would) == kinds(found) == expected
    assert {one.machine for one in found} == {machine.name}
    assert not list(scratch_folder.glob("dead-*"))
    assert not jobs(machine)
    assert machine.checkpoints() == []
    assert platform.sweep(SweepRequest(repository_id=REPOSITORY)) == []


def test_without_a_repository_checkpoints_stay(
    platform: LibvirtPlatform, machine: BareMachine, scratch_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_run("in the job", scratch_folder, machine.name)
    see_only(monkeypatch, machine.name)
    assert kinds(platform.sweep(SweepRequest())) == ["backup-job", "run-folder"]
    assert machine.checkpoints() == [f"{PREFIX}dead"]


def test_a_run_killed_after_its_point_was_published(
    platform: LibvirtPlatform, machine: BareMachine, scratch_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = Consistency.CRASH
    first = SnapshotRequest(point_id="p1", repository_id=REPOSITORY, since={}, consistency=crash)
    with platform.open_snapshot(platform.inspect(machine.name), first, Cancellation()) as snapshot:
        snapshot.commit()
    machine.domain.checkpointCreateXML(
        "<domaincheckpoint><name>theirs</name><disks><disk name='vda' checkpoint='bitmap'/>"
        "<disk name='vdb' checkpoint='no'/></disks></domaincheckpoint>",
        0,
    )
    killed_run("in the job", scratch_folder, machine.name)
    see_only(monkeypatch, machine.name)
    needed = {machine.domain.UUIDString(): {f"{PREFIX}dead"}}

    found = platform.sweep(SweepRequest(repository_id=REPOSITORY, needed_tokens=lambda: needed))

    assert [one.detail for one in found if one.kind == "checkpoint"] == [f"{PREFIX}p1"]
    assert machine.checkpoints() == [f"{PREFIX}dead", "theirs"]


def test_a_run_at_work_and_a_foreign_job_are_left_alone(
    platform: LibvirtPlatform, machine: BareMachine, scratch_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see_only(monkeypatch, machine.name)
    crash = Consistency.CRASH
    request = SnapshotRequest(point_id="alive", repository_id=REPOSITORY, since={}, consistency=crash)
    with platform.open_snapshot(platform.inspect(machine.name), request, Cancellation()) as snapshot:
        assert platform.sweep(SweepRequest(repository_id=REPOSITORY)) == []
        snapshot.check()
        assert machine.checkpoints() == [f"{PREFIX}alive"]
        snapshot.commit()

    scratch_folder.chmod(0o777)
    job = f"""<domainbackup mode='pull'><server transport='unix' socket='{scratch_folder}/foreign.sock'/>
      <disks><disk name='vda' backup='yes' type='file'><driver type='qcow2'/>
      <scratch file='{scratch_folder}/foreign'/></disk></disks></domainbackup>"""
    machine.domain.backupBegin(job, None, 0)
    assert platform.sweep(SweepRequest(repository_id=REPOSITORY)) == []
    assert jobs(machine)
    machine.domain.abortJob()


def test_a_backup_of_a_machine_that_is_off_is_at_work_too(
    platform: LibvirtPlatform, machine: BareMachine, scratch_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.domain.destroy()
    see_only(monkeypatch, machine.name)
    request = SnapshotRequest(point_id="alive", repository_id=REPOSITORY, since={})
    second = SnapshotRequest(
        point_id="two",
        repository_id=REPOSITORY,
        since={"vda": Token(value=f"{PREFIX}none", disk_identity="", size=0)},
    )
    with platform.open_snapshot(platform.inspect(machine.name), request, Cancellation()) as snapshot:
        assert platform.sweep(SweepRequest(repository_id=REPOSITORY)) == []
        with (
            pytest.raises(HotspareError, match=f"{machine.name} is running already"),
            platform.open_snapshot(platform.inspect(machine.name), second, Cancellation()),
        ):
            pytest.fail("two at once")
        snapshot.check()
        snapshot.commit()
        assert len(list(scratch_folder.glob("alive-*"))) == 1

    assert not any(scratch_folder.glob("*-*"))
    assert bitmaps_of(machine.disks["vda"]) == [f"{PREFIX}alive"]


def test_a_folder_of_a_machine_that_is_gone_or_of_another_libvirt(
    platform: LibvirtPlatform, scratch_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see_only(monkeypatch)
    gone = "00000000-0000-4000-8000-000000000000"
    for uri in ("qemu:///system", "qemu:///session"):
        owner = ScratchOwner(uri=uri, domain=gone, repository_id=REPOSITORY, point_id="dead", pid=1)
        run = RunFolder.create(scratch_folder, owner, qemu_account(connection()))
        run.mark_frozen()
        run.remove()  # lets go of the lock, as the end of the process does; the mark keeps the folder

    found = platform.sweep(SweepRequest(repository_id=REPOSITORY))

    assert [(one.kind, one.machine) for one in found] == [("run-folder", gone)]
    assert len(list(scratch_folder.glob("dead-*"))) == 1


def test_a_guest_that_is_still_frozen(
    platform: LibvirtPlatform, guest: LabGuest, scratch_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_run("frozen", scratch_folder, guest.name)
    see_only(monkeypatch, guest.name)

    found = platform.sweep(SweepRequest())

    assert kinds(found) == ["frozen-guest", "run-folder"]
    guest.wait_thawed()


def test_a_frozen_machine_that_is_off_needs_no_thawing(
    platform: LibvirtPlatform, machine: BareMachine, scratch_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see_only(monkeypatch, machine.name)
    uuid = machine.domain.UUIDString()
    owner = ScratchOwner(uri="qemu:///system", domain=uuid, repository_id=REPOSITORY, point_id="dead", pid=1)
    run = RunFolder.create(scratch_folder, owner, qemu_account(connection()))
    run.mark_frozen()
    run.remove()
    machine.domain.destroy()
    assert kinds(platform.sweep(SweepRequest())) == ["run-folder"]


def test_a_guest_that_cannot_be_thawed_keeps_its_note(
    platform: LibvirtPlatform, machine: BareMachine, scratch_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see_only(monkeypatch, machine.name)
    uuid = machine.domain.UUIDString()
    owner = ScratchOwner(uri="qemu:///system", domain=uuid, repository_id=REPOSITORY, point_id="dead", pid=1)
    run = RunFolder.create(scratch_folder, owner, qemu_account(connection()))
    run.mark_frozen()
    run.remove()

    (found,) = platform.sweep(SweepRequest())  # this machine has no agent at all

    assert (found.kind, found.machine) == ("frozen-guest", machine.name)
    assert found.problem
    assert len(list(scratch_folder.glob("dead-*"))) == 1


def test_a_backup_keeps_the_note_of_a_guest_that_cannot_be_thawed(
    platform: LibvirtPlatform, machine: BareMachine, scratch_folder: Path
) -> None:
    killed_run("in the job", scratch_folder, machine.name)
    (left,) = scratch_folder.glob("dead-*")
    (left / "frozen").touch()
    crash = Consistency.CRASH
    request = SnapshotRequest(point_id="next", repository_id=REPOSITORY, since={}, consistency=crash)

    with platform.open_snapshot(platform.inspect(machine.name), request, Cancellation()) as snapshot:
        snapshot.check()

    assert sorted(path.name for path in left.iterdir()) == ["frozen", "owner.json"]
    machine.domain.destroy()
    with platform.open_snapshot(platform.inspect(machine.name), request, Cancellation()):
        assert not left.exists()


def test_bitmaps_without_a_checkpoint_go_too(
    platform: LibvirtPlatform, machine: BareMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    see_only(monkeypatch, machine.name)
    machine.domain.destroy()
    disk = str(machine.disks["vda"])
    subprocess.run(["qemu-img", "bitmap", "--add", "-f", "qcow2", disk, f"{PREFIX}stray"], check=True)
    subprocess.run(["qemu-img", "bitmap", "--add", "-f", "qcow2", disk, "theirs"], check=True)

    (found,) = platform.sweep(SweepRequest(repository_id=REPOSITORY))

    assert found.kind == "checkpoint"
    assert found.detail.startswith(f"{PREFIX}stray")
    listed = subprocess.run(["qemu-img", "info", disk], check=True, capture_output=True, text=True).stdout
    assert "stray" not in listed
    assert "theirs" in listed
