"""A program here and a host over there, with OpenSSH's real server between them."""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import libvirt
import pytest

from lab import LabGuest
from tests.cli.program import Program
from tests.storage.servers import Sshd

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
