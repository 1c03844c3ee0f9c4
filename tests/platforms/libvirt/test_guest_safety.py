"""A real guest never suffers from a backup: it is thawed, and its writes do not fail."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import libvirt
import pytest

from hotspare.block.extent import ExtentKind
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, NoSpace
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.platform import Consistency, SnapshotRequest, Token
from lab import LabGuest, agent
from tests.platforms.disk_content import applied, whole_disk

pytestmark = pytest.mark.lab

MIB = 1024 * 1024


def request(point: str, since: Mapping[str, Token] | None = None) -> SnapshotRequest:
    return SnapshotRequest(point_id=point, repository_id="0123456789", since=since or {})


def is_thawed(guest: LabGuest) -> bool:
    """A frozen guest's agent refuses to execute anything."""
    try:
        guest.exec("echo alive > /data/alive && sync /data/alive")
    except libvirt.libvirtError:
        return False
    return True


@pytest.mark.soak  # tests/cli/test_libvirt.py does so by the command line
def test_full_and_increment_of_a_real_guest(
    platform: LibvirtPlatform, guest: LabGuest, tmp_path: Path
) -> None:
    guest.fill("/data/kept", 4 * MIB)
    guest.fill("/data/punched", 8 * MIB)
    machine = platform.inspect(guest.name)
    with platform.open_snapshot(machine, request("one"), Cancellation()) as first:
        assert first.consistency is Consistency.FILESYSTEM
        assert 0 < first.frozen_seconds < 5
        assert is_thawed(guest)
        content = applied(first, "vda", b"\xee" * first.disks[0].size)
        first.commit()
    guest.fill("/data/new", 4 * MIB)
    guest.exec("rm /data/punched && sync && fstrim /data 2>/dev/null || true")
    guest.shutdown()
    token = first.disks[0].token
    assert token is not None

    with platform.open_snapshot(machine, request("two", since={"vda": token}), Cancellation()) as second:
        assert second.disks[0].full_because is None
        kinds = {extent.kind for extent in second.changed("vda")}
        content = applied(second, "vda", content)
    copy = tmp_path / "copy.raw"
    copy.write_bytes(content)

    assert ExtentKind.DATA in kinds
    image = str(guest.disks["vda"])
    subprocess.run(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", image, str(copy)], check=True)


def test_a_guest_is_thawed_when_the_backup_cannot_begin(
    platform: LibvirtPlatform, module_guest: LabGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # QEMU cannot make its scratch file where a folder is.
    monkeypatch.setattr(
        "hotspare.platforms.libvirt.scratch.RunFolder.scratch_file", lambda run, disk: run.path / "no" / disk
    )

    with (
        pytest.raises(HotspareError, match="cannot begin"),
        platform.open_snapshot(platform.inspect(module_guest.name), request("bad"), Cancellation()),
    ):
        pytest.fail("began")

    assert is_thawed(module_guest)
    assert module_guest.domain.listAllCheckpoints() == []


def hang_agent(guest: LabGuest, seconds: int) -> None:
    """Stop the agent for a while, and return when it really does not answer."""
    # It is stopped only after it has told that the command ended: a slow host would otherwise wait here,
    # for as long as it is stopped, for that answer.
    hang = f"sleep 2; kill -STOP $(pidof qemu-ga); sleep {seconds}; kill -CONT $(pidof qemu-ga)"
    guest.exec(f"({hang}) >/dev/null 2>&1 &")
    deadline = time.monotonic() + 30
    while agent.ping(guest.domain):
        assert time.monotonic() < deadline, "the agent answers although it was stopped"
        time.sleep(0.05)


def test_an_agent_that_hangs_costs_consistency_not_the_guest(
    platform: LibvirtPlatform, module_guest: LabGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hotspare.platforms.libvirt.quiesce.FREEZE_SECONDS", 1)
    machine = platform.inspect(module_guest.name)
    hang_agent(module_guest, seconds=12)
    with platform.open_snapshot(machine, request("hang"), Cancellation()) as snapshot:
        consistency, warnings = snapshot.consistency, snapshot.warnings

    assert consistency is Consistency.CRASH
    assert warnings
    module_guest.wait_ready(60)
    assert is_thawed(module_guest)


def test_a_guest_frozen_by_a_killed_run_is_thawed(scratch_folder: Path, module_guest: LabGuest) -> None:
    script = f"""
import os, signal
from contextlib import contextmanager
from pathlib import Path
from hotspare.cancellation import Cancellation
from hotspare.platforms.libvirt import begin
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.platform import SnapshotRequest
real = begin.quiesced
@contextmanager
def killed_while_frozen(*arguments):
    with real(*arguments):
        os.kill(os.getpid(), signal.SIGKILL)
        yield
begin.quiesced = killed_while_frozen
platform = LibvirtPlatform("qemu:///system", scratch_folder=Path({str(scratch_folder)!r}))
request = SnapshotRequest(point_id="dead", repository_id="0123456789", since={{}})
with platform.open_snapshot(platform.inspect({module_guest.name!r}), request, Cancellation()):
    pass
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)

    assert done.returncode == -9, done.stderr
    assert list(scratch_folder.glob("dead-*/frozen"))
    deadline = time.monotonic() + 60
    while not is_thawed(module_guest):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture
def small_scratch(scratch_folder: Path) -> Iterator[Path]:
    """A scratch folder with room for 48 MiB."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m,mode=0711", "scratch", scratch_folder], check=True
    )
    yield scratch_folder
    subprocess.run(["umount", str(scratch_folder)], check=True)


def test_scratch_running_full_ends_the_backup_not_the_guest(
    small_scratch: Path, module_guest: LabGuest
) -> None:
    guest = module_guest
    guest.fill("/data/old", 40 * MIB)
    platform = LibvirtPlatform("qemu:///system", scratch_folder=small_scratch, scratch_reserve=24 * MIB)
    machine = platform.inspect(guest.name)

    def overwrite_all() -> None:
        with platform.open_snapshot(machine, request("small"), Cancellation()) as snapshot:
            for _ in range(2):
                guest.exec("dd if=/dev/urandom of=/data/old bs=1M count=40 conv=notrunc,fsync")
            with pytest.raises(NoSpace):
                snapshot.check()
            whole_disk(snapshot, "vda")

    with pytest.raises(NoSpace, match="scratch"):
        overwrite_all()
    platform.close()

    assert is_thawed(guest)
    assert "error" not in guest.exec("dmesg | grep -i 'i/o error' || true").lower()
    assert guest.domain.listAllCheckpoints() == []
    assert not list(small_scratch.glob("small-*"))


def test_too_little_scratch_space_begins_nothing(small_scratch: Path, module_guest: LabGuest) -> None:
    platform = LibvirtPlatform("qemu:///system", scratch_folder=small_scratch, scratch_reserve=64 * MIB)
    with (
        pytest.raises(NoSpace, match="must stay free"),
        platform.open_snapshot(platform.inspect(module_guest.name), request("none"), Cancellation()),
    ):
        pytest.fail("began")
    platform.close()

    assert not list(small_scratch.glob("none-*"))
