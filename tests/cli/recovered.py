"""Machines that are recovered from a backup of one guest, and what they must hold."""

import hashlib
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from hotspare.restore.instant.record import Recoveries
from lab import DiskSpec, LabGuest, domain_name
from tests.cli.lab_program import program_for_libvirt
from tests.cli.program import Finished, Program

MIB = 1024 * 1024
FILE_SIZE = 24 * MIB
"""More than the server keeps in memory: reading it always takes the repository."""
_PATIENCE = 60.0


@dataclass
class Site:
    """A restore point of a guest that is off, and what the guest's file had in it."""

    program: Program
    source: str
    digest: str
    disks: Path

    @property
    def recoveries(self) -> Recoveries:
        return Recoveries(self.program.folder / "state")

    def words(self, name: str, *more: str) -> list[str]:
        return ["recover", self.source, "--now", "--to", name, "--folder", str(self.disks), *more]

    def recover(self, label: str, *more: str) -> "Recovered":
        name = domain_name(label)
        try:
            self.expect(*self.words(name, *more))
        except BaseException:
            self.program.run("recover", "undo", name, "--yes")
            raise
        return Recovered(self, LabGuest.attach(name))

    def expect(self, *words: str | Path) -> dict[str, Any]:
        """Run a command in a process of its own that has to succeed, and give its document."""
        process = self.program.start(*words, "-o", "json")
        try:
            out, err = process.communicate(timeout=5 * _PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        assert process.returncode == 0, err
        return Finished(process.returncode, out, err).document()


@contextmanager
def site_of_guest(folder: Path) -> Iterator[Site]:
    """Back up a guest that was never started: what it holds is made here."""
    content = random.Random(7).randbytes(FILE_SIZE)
    tree = folder / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(content)
    raw = folder / "disk.raw"
    output_of("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, raw, "96M")
    with program_for_libvirt(folder) as program, tempfile.TemporaryDirectory(dir="/var/tmp") as disks:
        Path(disks).chmod(0o711)
        program.environment |= {"HOTSPARE_INSTANT_PATIENCE": "1s", "HOTSPARE_INSTANT_CACHE": "16MiB"}
        with LabGuest.create("recoverable", disks=[DiskSpec(size=96 * MIB, content=raw)]) as guest:
            program.expect("backup", guest.name)
            yield Site(program, guest.name, hashlib.sha256(content).hexdigest(), Path(disks))


@dataclass
class Recovered:
    """A machine that was recovered."""

    site: Site
    guest: LabGuest

    def keeper_pids(self) -> list[int]:
        """Give the process that serves, and the one that waits for it."""
        status = self.site.recoveries.status(self.guest.name)
        waiting = self.site.recoveries.keeper_pid(self.guest.name)
        assert status is not None
        assert waiting is not None
        return [status.pid, waiting]

    def kill_keeper(self) -> None:
        for pid in reversed(self.keeper_pids()):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.site.recoveries.is_kept(self.guest.name), "kept by nobody")

    def read_all(self) -> None:
        """Let the guest begin to read its whole file, from the disk."""
        self.guest.exec(
            "rm -f /run/sum; echo 3 >/proc/sys/vm/drop_caches;"
            "setsid sh -c 'sha256sum /data/file >/run/now; mv /run/now /run/sum' </dev/null >/dev/null 2>&1 &"
        )

    def expect_read(self) -> None:
        """What it began to read is what it was, and nothing inside has noticed anything."""
        wait_until(self._has_read, "read to the end")
        assert self.guest.exec("cat /run/sum").split()[0] == self.site.digest
        assert self.guest.exec("dmesg | grep -ciE 'i/o error|ext4-fs error' || true") == "0"

    def _has_read(self) -> bool:
        try:
            return bool(self.guest.exec("cat /run/sum 2>/dev/null || true"))
        except libvirt.libvirtError:
            return False  # it is paused

    def expect_going_on(self) -> None:
        """Its workload makes progress."""
        before = self.guest.acked()
        wait_until(lambda: self.guest.acked() > before, "writing again")

    def expect_records(self, acked: int) -> None:
        """Inside, all records are there that were acknowledged."""
        check_records(self.guest.read_file("/data/journal"), acked)

    def expect_as_written(self, acked: int) -> None:
        """On its disk, read without it: all of the records, the file as it was, and a sound file system."""
        path = self.guest.disks["vda"]
        info = json.loads(output_of("qemu-img", "info", "--output=json", path))
        assert "backing-filename" not in info
        output_of("qemu-img", "check", path)
        raw = self.site.disks / "moved.raw"
        output_of("qemu-img", "convert", "-O", "raw", path, raw)
        output_of("e2fsck", "-fn", raw)
        check_records(file_of(raw, "/journal"), acked)
        assert hashlib.sha256(file_of(raw, "/file")).hexdigest() == self.site.digest
        raw.unlink()


def check_records(journal: bytes, acked: int) -> None:
    numbers = [int(line) for line in journal.split()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= acked > 0


def file_of(raw: Path, path: str) -> bytes:
    return subprocess.run(["debugfs", "-R", f"cat {path}", raw], capture_output=True, check=True).stdout


def output_of(*command: str | Path) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_until(reached: Callable[[], bool], state: str, seconds: float = _PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"not {state} within {seconds:.0f} s"
        time.sleep(0.05)
