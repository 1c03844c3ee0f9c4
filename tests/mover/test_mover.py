"""Machines of another host, over OpenSSH's real server: backed up, restored, interrupted, abandoned."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import libvirt
import pytest

from lab import LabGuest, domain_name
from tests.cli.program import PASSPHRASE, Program, interrupt
from tests.storage.servers import Seaweed, Sshd

pytestmark = pytest.mark.lab

MIB = 1024 * 1024
PATIENCE = 60


COUNTING = """
import os, subprocess, sys, threading
with open("{folder}/seen", "a") as seen:
    print(*sys.argv, file=seen)
ssh = subprocess.Popen({ssh} + sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
crossed = [0]
def move(source, sink):
    while data := os.read(source, 1 << 20):
        crossed[0] += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(sink, view):]
def move_in():
    try:
        move(0, ssh.stdin.fileno())
        ssh.stdin.close()
    except OSError:
        pass
threading.Thread(target=move_in, daemon=True).start()
move(ssh.stdout.fileno(), 1)
status = ssh.wait()
with open("{folder}/crossed", "w") as counted:
    print(crossed[0], file=counted)
os._exit(status)
"""
"""Runs ssh and counts what goes through it."""


@dataclass
class Remote:
    """A program here, and a host over there, which have nothing in common but an SSH connection."""

    program: Program
    folder: Path
    """State, configuration and scratch of the host."""

    def crossed(self) -> int:
        """Give how many bytes the last command sent and received."""
        return int((self.folder / "crossed").read_text())


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.fixture
def remote(tmp_path: Path, lab_host: None, any_sshd: Sshd) -> Iterator[Remote]:
    with tempfile.TemporaryDirectory(prefix="hotspare-test-", dir="/var/tmp") as there:
        folder = Path(there)
        folder.chmod(0o711)
        (folder / "scratch").mkdir(mode=0o711)
        (folder / "hotspare.toml").touch()
        host = folder / "hotspare"
        host.write_text(
            f"#!/bin/sh\nexport HOTSPARE_STATE_FOLDER={folder}/state HOTSPARE_CONFIG={folder}/hotspare.toml"
            f" HOTSPARE_SCRATCH_FOLDER={folder}/scratch\n"
            f'tr "\\0" "\\n" < /proc/$$/environ >> {folder}/seen; echo "$@" >> {folder}/seen\n'
            f'exec {any_sshd.program} "$@"\n'
        )
        host.chmod(0o755)
        environment = any_sshd.served_environment()
        counting = folder / "ssh"
        ssh = environment["HOTSPARE_SSH_COMMAND"].split()
        counting.write_text(f"#!{sys.executable}\n{COUNTING.format(folder=folder, ssh=ssh)}")
        counting.chmod(0o755)
        program = Program(tmp_path)
        program.environment |= {
            "HOTSPARE_PLATFORM": f"qemu+ssh://root@127.0.0.1:{any_sshd.port}/system",
            "HOTSPARE_SSH_COMMAND": str(counting),
            "HOTSPARE_REMOTE_PROGRAM": str(host),
        }
        program.expect("repo", "create")
        yield Remote(program, folder)


def is_backed_up(guest: LabGuest) -> bool:
    try:
        guest.domain.backupGetXMLDesc()
    except libvirt.libvirtError:
        return False
    return True


def leftovers(remote: Remote, guest: LabGuest) -> list[str]:
    found = [path.name for path in (remote.folder / "scratch").iterdir() if path.is_dir()]
    found += [checkpoint.getName() for checkpoint in guest.domain.listAllCheckpoints()]
    return found + ["a job"] * is_backed_up(guest)


@pytest.fixture
def unmarked(module_guest: LabGuest) -> LabGuest:
    """The guest of this module, without marks of other tests' repositories."""
    for checkpoint in module_guest.domain.listAllCheckpoints():
        checkpoint.delete()
    return module_guest


def test_backup_and_restore_with_the_repository_on_this_host(remote: Remote, guest: LabGuest) -> None:
    program = remote.program
    first = guest.write_random("/data/first", 12 * MIB)
    (full,) = program.expect("backup", guest.name, "-o", "json").document()["results"]
    crossed_full = remote.crossed()
    (nothing,) = program.expect("backup", guest.name, "-o", "json").document()["results"]
    crossed_nothing = remote.crossed()
    second = guest.write_random("/data/second", 2 * MIB)
    status, screen = program.on_terminal("backup", guest.name)

    assert full["point"]["disks"][0]["mode"] == "full"
    assert nothing["point"]["disks"][0]["mode"] == "increment"
    assert nothing["point"]["consistency"] == "filesystem"
    # What has no zeroes and does not compress crosses once; of an unchanged guest, next to nothing does.
    assert 12 * MIB < crossed_full < full["point"]["bytes_stored"] * 1.1 + MIB
    assert crossed_nothing < MIB
    assert status == 0
    assert f"{guest.name}: restore point" in screen
    assert '"type"' not in screen, "events are shown as bars"
    assert guest.name in program.expect("machine", "list").out
    assert len(program.expect("point", "list", "-o", "json").document()["points"]) == 3
    seen = (remote.folder / "seen").read_text()
    assert "hotspare mover" in seen
    assert PASSPHRASE not in seen, "no secret is an argument or a variable"
    program.expect("verify")

    name = domain_name("mover-restored")
    guest.destroy()
    try:
        restored_as = program.expect("restore", guest.name, "--to", name, "--start", "-o", "json").document()
        restored = LabGuest.attach(name)
        restored.wait_ready()
        assert restored_as["machine"]["name"] == name
        assert restored.sha256("/data/first") == first
        assert restored.sha256("/data/second") == second
        assert program.run("restore", guest.name, "--to", name).status == 26
    finally:
        LabGuest(name).remove()


def test_errors_are_those_of_the_host(remote: Remote) -> None:
    program = remote.program
    unknown = program.run("backup", "no-such-machine", "-o", "json")
    assert unknown.status == 21
    assert unknown.error()["code"] == "no-machine"
    assert unknown.document()["results"][0]["outcome"] == "failed"

    wrong = program.run("backup", "x", HOTSPARE_PASSPHRASE="not this one")
    assert wrong.status == 12
    assert "does not open this repository" in wrong.err

    unset = program.run("backup", "x", HOTSPARE_PASSPHRASE=None)
    assert unset.status == 2
    assert "On the control host: " in unset.err

    nowhere = program.run("machine", "list", HOTSPARE_PLATFORM="qemu+ssh://127.0.0.1:1/system")
    assert nowhere.status != 0
    assert "127.0.0.1" in nowhere.err


def test_ctrl_c_reaches_the_mover(remote: Remote, unmarked: LabGuest) -> None:
    guest = unmarked
    guest.fill("/data/much", 8 * MIB)
    process = begin_slowly(remote, guest)
    done = interrupt(process)

    assert done.status == 130, done.err
    assert '"interrupted"' in done.err or "Interrupted" in done.err
    assert leftovers(remote, guest) == []
    guest.exec("echo alive > /data/alive && sync /data/alive")
    assert remote.program.expect("point", "list", "-o", "json").document()["points"] == []
    remote.program.expect("backup", guest.name)


def test_a_mover_whose_user_is_gone_cleans_up_and_ends(remote: Remote, unmarked: LabGuest) -> None:
    guest = unmarked
    guest.fill("/data/much", 8 * MIB)
    process = begin_slowly(remote, guest)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    assert eventually(lambda: leftovers(remote, guest) == [])
    guest.exec("echo alive > /data/alive && sync /data/alive")
    remote.program.expect("backup", guest.name)
    remote.program.expect("verify")


def begin_slowly(remote: Remote, guest: LabGuest) -> "subprocess.Popen[str]":
    """Begin a backup that takes many seconds, and give it once it is under way."""
    process = remote.program.start("backup", guest.name, "--progress", "jsonl", "--read-limit", "512KiB/s")
    assert process.stderr is not None
    while '"progress"' not in (line := process.stderr.readline()):
        assert line, process.communicate()
    assert json.loads(line)["machine"] == guest.name
    return process


def test_a_repository_that_the_host_reaches_by_itself(
    remote: Remote, unmarked: LabGuest, seaweed: Seaweed
) -> None:
    guest, program = unmarked, remote.program
    program.environment |= {**seaweed.environment, "HOTSPARE_REPOSITORY": seaweed.url("plain/by-the-mover")}
    program.expect("repo", "create")
    guest.fill("/data/much", 12 * MIB)
    (full,) = program.expect("backup", guest.name, "-o", "json").document()["results"]

    assert full["point"]["bytes_stored"] > 12 * MIB
    assert remote.crossed() < MIB / 4, "the data went straight to the store"
    program.expect("verify")
