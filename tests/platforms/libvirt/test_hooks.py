"""Hooks in a real guest: run around the freeze, bounded, judged by their policy, and always ended."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import libvirt
import pytest

from hotspare.cancellation import Cancellation
from hotspare.errors import ConsistencyNotReached, Interrupted, UsageError
from hotspare.platforms.hooks.hook import parse_hook
from hotspare.platforms.libvirt import quiesce
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.platform import Consistency, MachineMarks, Snapshot, SnapshotRequest
from lab import LabGuest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

PATIENCE = 120.0
LOG = "/run/hooks.log"


@pytest.fixture
def host_hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This host's folder of hooks, empty."""
    folder = tmp_path / "hooks.d"
    folder.mkdir()
    monkeypatch.setenv("HOTSPARE_HOOKS_FOLDER", str(folder))
    return folder


@pytest.fixture
def quiet_guest(module_guest: LabGuest) -> Iterator[LabGuest]:
    """A guest without hooks and without traces of those before."""
    module_guest.exec(f"rm -rf /etc/hotspare {LOG} /run/hotspare; mkdir -p /etc/hotspare/hooks.d")
    yield module_guest
    assert module_guest.exec("ls /run/hotspare 2>/dev/null || true") == ""


def put_in_guest(guest: LabGuest, name: str, *lines: str) -> None:
    """Add a hook that logs its argument, with more lines of shell before that."""
    script = "\n".join(("#!/bin/sh", *lines, f"echo {name} $1 >> {LOG}", "")).encode()
    guest.write_file(f"/etc/hotspare/hooks.d/{name}", script)
    guest.exec(f"chmod +x /etc/hotspare/hooks.d/{name}")


def log_of(guest: LabGuest) -> list[str]:
    return guest.exec(f"cat {LOG} 2>/dev/null || true").splitlines()


def request(*hooks: str, level: Consistency | None = None, required: bool = False) -> SnapshotRequest:
    return SnapshotRequest(
        point_id="20261123-021500-hooks",
        repository_id="0123456789",
        since={},
        consistency=level,
        require_consistency=required,
        hooks=[parse_hook(hook) for hook in hooks] if hooks else None,
    )


def snapshot_of(
    platform: LibvirtPlatform, guest: LabGuest, wanted: SnapshotRequest
) -> tuple[Consistency, Sequence[str]]:
    """Make a snapshot and let it go; give the level that was reached, and the warnings."""
    with platform.open_snapshot(platform.inspect(guest.name), wanted, Cancellation()) as snapshot:
        made: Snapshot = snapshot
        return made.consistency, made.warnings


def test_hooks_run_around_the_freeze_the_last_one_ends_first(
    platform: LibvirtPlatform, quiet_guest: LabGuest, host_hooks: Path
) -> None:
    put_in_guest(quiet_guest, "inside", "date > $HOTSPARE_STATE/mine")
    (host_hooks / "outside").write_text(
        f"#!/bin/busybox sh\ncat > /dev/null\necho outside $1 $HOTSPARE_TIMEOUT >> {LOG}\n"
    )
    freezes = quiet_guest.exec("cat /run/fsfreeze.log 2>/dev/null | wc -l")

    level, warnings = snapshot_of(platform, quiet_guest, request("guest:inside", "host:outside,timeout=45s"))

    assert level is Consistency.APPLICATION
    assert warnings == []
    assert log_of(quiet_guest) == ["inside freeze", "outside freeze 45", "outside thaw 45", "inside thaw"]
    assert int(quiet_guest.exec("cat /run/fsfreeze.log | wc -l")) == int(freezes) + 2


def test_hooks_of_the_machines_definition(platform: LibvirtPlatform, quiet_guest: LabGuest) -> None:
    put_in_guest(quiet_guest, "erp")
    platform.mark(quiet_guest.name, MachineMarks(hooks=("guest:erp",)))
    try:
        defined, _ = snapshot_of(platform, quiet_guest, request())
        files, _ = snapshot_of(platform, quiet_guest, request(level=Consistency.FILESYSTEM))
        platform.mark(quiet_guest.name, MachineMarks(hooks=("oracle",)))
        with pytest.raises(UsageError, match=f"{quiet_guest.name}.*oracle"):
            snapshot_of(platform, quiet_guest, request())
    finally:
        platform.mark(quiet_guest.name, MachineMarks())

    assert defined is Consistency.APPLICATION
    assert files is Consistency.FILESYSTEM
    assert log_of(quiet_guest) == ["erp freeze", "erp thaw"]


def test_a_hook_that_fails_costs_the_level_and_is_ended(
    platform: LibvirtPlatform, quiet_guest: LabGuest
) -> None:
    put_in_guest(
        quiet_guest, "bad", '[ $1 = thaw ] || { echo "the disk of the database is full" >&2; exit 3; }'
    )
    put_in_guest(quiet_guest, "good")

    level, warnings = snapshot_of(platform, quiet_guest, request("guest:bad", "guest:good"))

    assert level is Consistency.FILESYSTEM
    assert warnings == ["hook guest:bad failed: the disk of the database is full"]
    assert log_of(quiet_guest) == ["good freeze", "good thaw", "bad thaw"]


def test_a_hook_that_must_not_fail_ends_the_run(platform: LibvirtPlatform, quiet_guest: LabGuest) -> None:
    put_in_guest(quiet_guest, "good")
    put_in_guest(quiet_guest, "bad", "[ $1 = thaw ] || exit 3")

    with pytest.raises(ConsistencyNotReached, match="guest:bad failed: exit status 3"):
        snapshot_of(platform, quiet_guest, request("guest:good", "guest:bad,on-failure=fail"))

    assert log_of(quiet_guest) == ["good freeze", "bad thaw", "good thaw"]
    assert quiet_guest.domain.listAllCheckpoints() == []


def test_a_hook_that_is_ignored_does_not_count(platform: LibvirtPlatform, quiet_guest: LabGuest) -> None:
    put_in_guest(quiet_guest, "good")
    put_in_guest(quiet_guest, "bad", "exit 3")

    both = snapshot_of(platform, quiet_guest, request("guest:good", "guest:bad,on-failure=ignore"))
    alone, _ = snapshot_of(platform, quiet_guest, request("guest:bad,on-failure=ignore"))

    assert both == (Consistency.APPLICATION, [])
    assert alone is Consistency.FILESYSTEM


def test_a_hook_that_hangs_is_stopped(platform: LibvirtPlatform, quiet_guest: LabGuest) -> None:
    put_in_guest(quiet_guest, "slow", "[ $1 = thaw ] || sleep 1000")

    level, warnings = snapshot_of(platform, quiet_guest, request("guest:slow,timeout=2s"))

    assert level is Consistency.FILESYSTEM
    assert warnings == ["hook guest:slow failed: it did not end within 2 s and was stopped"]
    assert log_of(quiet_guest) == ["slow thaw"]


def test_a_hook_that_runs_when_the_user_stops_is_stopped(
    platform: LibvirtPlatform, quiet_guest: LabGuest
) -> None:
    put_in_guest(quiet_guest, "slow", "[ $1 = thaw ] || { echo slow begins > /dev/console; sleep 1234; }")
    cancellation = Cancellation()

    def cancel_when_it_runs() -> None:
        deadline = time.monotonic() + PATIENCE
        while "slow begins" not in quiet_guest.console and time.monotonic() < deadline:
            time.sleep(0.1)
        cancellation.cancel()

    canceller = threading.Thread(target=cancel_when_it_runs)
    canceller.start()
    wanted = request("guest:slow,timeout=90s")
    with (
        pytest.raises(Interrupted),
        platform.open_snapshot(platform.inspect(quiet_guest.name), wanted, cancellation),
    ):
        pytest.fail("the hook ended")
    canceller.join()

    assert log_of(quiet_guest) == ["slow thaw"]
    assert quiet_guest.exec("ps | grep '[s]leep 1234' || true") == ""


def test_a_hook_that_is_not_there(platform: LibvirtPlatform, quiet_guest: LabGuest, host_hooks: Path) -> None:
    (host_hooks / "large").write_bytes(bytes(100_000))

    hooks = ("guest:none", "host:none", "host:large", "mariadb", "postgresql")
    level, warnings = snapshot_of(platform, quiet_guest, request(*hooks))

    assert level is Consistency.FILESYSTEM
    assert [warning.partition(" failed: ")[0] for warning in warnings] == [f"hook {hook}" for hook in hooks]
    assert "No such file" in warnings[1]
    assert "larger than 32 KiB" in warnings[2]
    assert "no client program" in warnings[3]
    assert "no PostgreSQL server" in warnings[4]


def test_what_an_application_uses_must_be_backed_up(platform: LibvirtPlatform, quiet_guest: LabGuest) -> None:
    put_in_guest(quiet_guest, "erp", "echo uses /data/lost+found; echo uses /run; echo warning: it is old")

    level, warnings = snapshot_of(platform, quiet_guest, request("guest:erp"))

    assert level is Consistency.APPLICATION
    assert warnings == [
        "hook guest:erp: it is old",
        "hook guest:erp: /run is on no disk of this machine, so it is not in the restore point",
    ]


def test_levels_that_are_required(platform: LibvirtPlatform, quiet_guest: LabGuest) -> None:
    put_in_guest(quiet_guest, "bad", "exit 3")
    put_in_guest(quiet_guest, "late", "[ $1 = freeze ] || { echo the lock was lost; exit 1; }")

    def refused(*hooks: str, level: Consistency = Consistency.APPLICATION) -> str:
        with pytest.raises(ConsistencyNotReached) as refusal:
            snapshot_of(platform, quiet_guest, request(*hooks, level=level, required=True))
        return refusal.value.what

    assert "has no hook" in refused()
    assert "exit status 3" in refused("guest:bad")
    assert "after the thaw: the lock was lost" in refused("guest:late")
    quiet_guest.domain.suspend()
    try:
        assert "it is paused" in refused(level=Consistency.FILESYSTEM)
    finally:
        quiet_guest.domain.resume()
    assert quiet_guest.domain.listAllCheckpoints() == []
    files = snapshot_of(platform, quiet_guest, request(level=Consistency.FILESYSTEM, required=True))
    crash = snapshot_of(platform, quiet_guest, request(level=Consistency.CRASH, required=True))
    assert files == (Consistency.FILESYSTEM, [])
    assert crash == (Consistency.CRASH, [])


def test_hooks_that_ended_before_the_thaw_do_not_count(
    platform: LibvirtPlatform, quiet_guest: LabGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_guest(quiet_guest, "erp", "echo hook says $1 > /dev/console")
    # All the time that is left is what the hook may take.
    monkeypatch.setattr(quiesce, "_BEGIN_SECONDS", -2 * quiesce.FREEZE_SECONDS)
    monkeypatch.setattr(quiesce, "FROZEN_SECONDS", 60)  # or the watchdog would thaw the guest meanwhile
    thaw = quiesce._thaw

    def thaw_late(domain: libvirt.virDomain) -> int | None:
        deadline = time.monotonic() + PATIENCE
        while "hook says thaw" not in quiet_guest.console:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        return thaw(domain)

    monkeypatch.setattr(quiesce, "_thaw", thaw_late)

    level, warnings = snapshot_of(platform, quiet_guest, request("guest:erp,timeout=10s"))

    assert level is Consistency.FILESYSTEM
    assert "too early" in warnings[0]
    assert log_of(quiet_guest) == ["erp freeze", "erp thaw"]


KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from hotspare.cancellation import Cancellation
from hotspare.platforms.hooks.hook import parse_hook
from hotspare.platforms.libvirt import begin, quiesce
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.libvirt.watchdog import Watchdog
from hotspare.platforms.platform import SnapshotRequest
scratch, machine, watchdog_too = sys.argv[1:]
started = []
real_start, real_freeze = Watchdog.start, quiesce._freeze
quiesce._BEGIN_SECONDS = -2 * quiesce.FREEZE_SECONDS + 5
def start(*arguments):
    started.append(real_start(*arguments))
    return started[0]
def die(*arguments):
    if watchdog_too == "yes":
        started[0].process.kill()
        started[0].process.wait()
    else:
        real_freeze(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
Watchdog.start, quiesce._freeze = start, die
platform = LibvirtPlatform("qemu:///system", scratch_folder=Path(scratch))
request = SnapshotRequest(
    point_id="dead", repository_id="0123456789", since={}, hooks=[parse_hook("guest:erp,timeout=5s")]
)
with platform.open_snapshot(platform.inspect(machine), request, Cancellation()):
    pass
"""


def kill_a_run(scratch_folder: Path, guest: LabGuest, *, watchdog_too: bool) -> None:
    words = [str(scratch_folder), guest.name, "yes" if watchdog_too else "no"]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr


def wait_for_log(guest: LabGuest, expected: list[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            found = log_of(guest)
        except libvirt.libvirtError:
            found = ["frozen"]
        if found == expected:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def test_hooks_of_a_killed_run_are_ended_after_the_thaw(scratch_folder: Path, quiet_guest: LabGuest) -> None:
    put_in_guest(quiet_guest, "erp")

    kill_a_run(scratch_folder, quiet_guest, watchdog_too=False)

    wait_for_log(quiet_guest, ["erp freeze", "erp thaw"])
    quiet_guest.exec("while [ -e /run/hotspare/dead ]; do sleep 0.1; done")


def test_hooks_end_by_themselves_when_nobody_is_left(
    platform: LibvirtPlatform, scratch_folder: Path, quiet_guest: LabGuest
) -> None:
    put_in_guest(quiet_guest, "erp")

    kill_a_run(scratch_folder, quiet_guest, watchdog_too=True)

    wait_for_log(quiet_guest, ["erp freeze", "erp thaw"])
    assert snapshot_of(platform, quiet_guest, request("guest:erp"))[0] is Consistency.APPLICATION
    assert log_of(quiet_guest) == ["erp freeze", "erp thaw"] * 2


def test_the_next_run_ends_the_hooks_of_a_dead_one(
    platform: LibvirtPlatform, scratch_folder: Path, quiet_guest: LabGuest
) -> None:
    put_in_guest(quiet_guest, "erp")
    quiet_guest.exec("mkdir -p /run/hotspare")
    kill_a_run(scratch_folder, quiet_guest, watchdog_too=True)
    # Whoever would end it inside is stopped, as if its time were long.
    quiet_guest.exec(
        "for one in $(pidof sh); do grep -q [w]atch /proc/$one/cmdline && kill -9 $one; done; true"
    )

    snapshot_of(platform, quiet_guest, request(level=Consistency.CRASH))

    assert log_of(quiet_guest) == ["erp freeze", "erp thaw"]
    assert list(scratch_folder.glob("dead-*")) == []


RESTRICT = r"""
cp /sbin/start-agent /run/start-agent
sed 's/--statedir/--blacklist=guest-exec --statedir/' /run/start-agent > /sbin/start-agent
freezes=$(cat /run/fsfreeze.log 2>/dev/null | wc -l)
(
    sleep 2
    killall qemu-ga
    until [ $(cat /run/fsfreeze.log 2>/dev/null | wc -l) -ge $((freezes + 2)) ]; do sleep 0.2; done
    cp /run/start-agent /sbin/start-agent
    sleep 5
    killall qemu-ga
) </dev/null >/dev/null 2>&1 &
"""


def test_an_agent_that_may_not_execute(
    platform: LibvirtPlatform, scratch_folder: Path, quiet_guest: LabGuest
) -> None:
    quiet_guest.exec(RESTRICT)  # until it has frozen and thawed once
    deadline = time.monotonic() + PATIENCE
    refusal = ""
    while "guest-exec" not in refusal:
        assert time.monotonic() < deadline
        try:
            quiet_guest.exec("true")
        except libvirt.libvirtError as error:
            refusal = str(error)

    level, warnings = snapshot_of(platform, quiet_guest, request("postgresql"))

    assert level is Consistency.FILESYSTEM
    assert len(warnings) == 1
    assert "guest-exec" in warnings[0]
    assert [path for path in scratch_folder.iterdir() if path.is_dir()] == []
    while True:
        try:
            quiet_guest.exec("true")
        except libvirt.libvirtError:
            assert time.monotonic() < deadline
        else:
            return
