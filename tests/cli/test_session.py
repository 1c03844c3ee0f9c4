"""``qemu:///session``: the machines of a user without rights, of libvirt's daemon of that user.

The user is made by a user namespace: whoever runs the tests is an ordinary user in it, to libvirt, QEMU and
the program alike, and the files of the checkout can be read all the same.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from hotspare.units import MIB
from tests.cli.program import Finished, Program

pytestmark = pytest.mark.lab

AS_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
NAME = "ours"


@dataclass
class User:
    """A user with a home folder and a session."""

    program: Program
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        runtime = self.home / "run"
        return {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(runtime),
            "HOTSPARE_PLATFORM": "qemu:///session",
        }

    def hotspare(self, *words: str | Path) -> Finished:
        done = self.program.run_process(*words, under=AS_USER, **self.environment)
        assert done.status == 0, done.err
        return done

    def virsh(self, *words: str) -> str:
        command: Sequence[str] = [*AS_USER, "virsh", "--quiet", "--connect", "qemu:///session", *words]
        environment = {**self.program.environment, **self.environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def user(program: Program, lab_host: None) -> Iterator[User]:
    # Not in pytest's folder: the paths of libvirt's sockets would be too long.
    with tempfile.TemporaryDirectory(prefix="hs-", dir="/tmp", ignore_cleanup_errors=True) as home:
        user = User(program, Path(home))
        (user.home / "run").mkdir(mode=0o700)
        # What libvirt knows of this host's QEMU takes each of its daemons many seconds to find out again.
        known = Path("/var/cache/libvirt/qemu")
        if known.exists():
            shutil.copytree(known, user.home / ".cache/libvirt/qemu")
        try:
            yield user
        finally:
            with suppress(AssertionError):
                for name in user.virsh("list", "--name").split():
                    user.virsh("destroy", name)
            with suppress(OSError, ValueError):  # it would go by itself, after two minutes
                os.kill(int((user.home / "run" / "libvirt" / "libvirtd.pid").read_text()), signal.SIGTERM)


def define(user: User) -> Path:
    disk = user.home / "ours.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, str(16 * MIB)], check=True)
    definition = user.home / "ours.xml"
    definition.write_text(
        f"""<domain type='qemu'><name>{NAME}</name><memory unit='MiB'>32</memory>
        <os><type arch='x86_64' machine='pc'>hvm</type></os><devices>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
        <target dev='vda' bus='virtio'/></disk>
        <controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"""
    )
    user.virsh("define", str(definition))
    return disk


def write(user: User, command: str) -> None:
    device = "/machine/peripheral/virtio-disk0/virtio-backend"
    user.virsh("qemu-monitor-command", NAME, "--hmp", f'qemu-io -d {device} "{command}"')


@pytest.mark.timeout(300)
def test_a_users_machine_there_and_back(user: User) -> None:
    disk = define(user)
    user.virsh("start", NAME)
    user.hotspare("repo", "create")
    write(user, f"write -P 1 {MIB} {MIB}")
    first = user.hotspare("backup", NAME, "-o", "json").document()["results"][0]["point"]
    write(user, f"write -P 2 {3 * MIB} {MIB}")
    second = user.hotspare("backup", "--all", "-o", "json").document()["results"][0]["point"]
    restored = user.hotspare("restore", NAME, "--to", "again", "-o", "json").document()["machine"]
    swept = user.hotspare("sweep", "-o", "json").document()["found"]
    user.virsh("destroy", NAME)

    assert first["disks"][0]["mode"] == "full"
    assert second["disks"][0]["mode"] == "increment"
    copy = Path(restored["disks"][0]["source"])
    assert copy.parent == user.home / ".local" / "share" / "libvirt" / "images"
    subprocess.run(["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "qcow2", disk, copy], check=True)
    assert swept == []


def kill_daemon(user: User) -> None:
    """Kill libvirt's daemon as a crash would; the next connection starts another one."""
    pid = int((user.home / "run" / "libvirt" / "libvirtd.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and _state(pid) != "Z":
        assert time.monotonic() < deadline, "the daemon lives on"
        time.sleep(0.05)


def _state(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


def begin_slow_backup(user: User) -> subprocess.Popen[str]:
    """Begin a backup that takes many seconds; return when it reads."""
    words = ("backup", NAME, "--read-limit", "1MiB/s", "--progress", "jsonl")
    process = user.program.start(*words, under=AS_USER, **user.environment)
    assert process.stderr is not None
    for line in process.stderr:
        if '"progress"' in line:
            return process
    raise AssertionError("the backup ended before it read anything")


@pytest.mark.timeout(300)
def test_libvirts_daemon_is_killed_between_and_during_backups(user: User) -> None:
    disk = define(user)
    user.virsh("start", NAME)
    user.hotspare("repo", "create")
    for number in range(12):
        write(user, f"write -P {number + 1} {number * MIB} {MIB}")
    user.hotspare("backup", NAME)
    kill_daemon(user)
    write(user, f"write -P 77 {3 * MIB} {MIB}")
    after = user.hotspare("backup", NAME, "-o", "json").document()["results"][0]["point"]
    for number in range(12):
        write(user, f"write -P {number + 100} {number * MIB} {MIB}")
    slow = begin_slow_backup(user)
    kill_daemon(user)
    _, said = slow.communicate(timeout=120)
    points = user.hotspare("point", "list", "-o", "json").document()["points"]
    write(user, f"write -P 88 {13 * MIB} {MIB}")
    last = user.hotspare("backup", NAME, "-o", "json").document()["results"][0]["point"]
    restored = user.hotspare("restore", NAME, "--to", "again", "-o", "json").document()["machine"]
    user.virsh("destroy", NAME)

    assert after["disks"][0]["mode"] == "increment"
    assert slow.returncode != 0, said
    assert "ibvirt" in said
    assert len(points) == 2, "nothing was made of the one that broke off"
    assert last["disks"][0]["mode"] == "increment"
    copy = restored["disks"][0]["source"]
    subprocess.run(["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "qcow2", disk, copy], check=True)
