"""How soon a guest's agent answers: started from its local disk, and recovered instantly."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import ProgramFailed, settle
from hotspare.units import MIB
from lab import DiskSpec, LabGuest, domain_name
from lab.guest import Kind
from tests.storage.servers import Seaweed

LOCAL, FOLDER, S3 = "local disk", "repository in a folder", "repository on S3"
KINDS: Mapping[Kind, str] = {
    "direct": "kernel from the host, data on its disk",
    "disk": "everything from its disk",
}
_PASSPHRASE = "correct horse battery staple"
_PATIENCE = 600.0


@dataclass(slots=True)
class Starts:
    """One kind of guest: seconds until its agent answered, by where it was started from."""

    answered: dict[str, list[float]] = field(default_factory=lambda: {LOCAL: [], FOLDER: [], S3: []})
    started: dict[str, list[float]] = field(default_factory=lambda: {FOLDER: [], S3: []})
    """Seconds until the command had it started."""

    def ratios(self, name: str) -> list[float]:
        """Give, round by round, the time as a multiple of that from the local disk."""
        pairs = zip(self.answered[name], self.answered[LOCAL], strict=True)
        return [ours / local for ours, local in pairs]


class _Program:
    def __init__(self, folder: Path, repository: str, more: Mapping[str, str]) -> None:
        self._program = Path(sys.executable).with_name("hotspare")
        self.environment = {
            # As installed by a package manager, which compiles what it installs.
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "HOTSPARE_REPOSITORY": repository,
            "HOTSPARE_PASSPHRASE": _PASSPHRASE,
            "HOTSPARE_STATE_FOLDER": str(folder / "state"),
            "HOTSPARE_PLATFORM": "qemu:///system",
            **more,
        }

    def run(self, *words: str | Path, **more: str) -> None:
        done = subprocess.run(
            [self._program, *words],
            capture_output=True,
            text=True,
            env={**self.environment, **more},
            check=False,
        )
        if done.returncode:
            raise ProgramFailed(f"{words} ended with {done.returncode}:\n{done.stderr}")

    def start(self, *words: str | Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self._program, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environment,
        )


def measure_starts(folder: Path, rounds: int, tell: Callable[[str], None]) -> dict[Kind, Starts]:
    """Start each kind of guest in each way, in turn; the page cache is emptied before each start.

    Args:
        folder: made for repositories and disks.
        rounds: how often.
        tell: told what is going on.
    """
    folder.mkdir()
    folder.chmod(0o711)
    server = Seaweed(folder / "seaweed")
    server.up()
    try:
        return {kind: _measure_kind(kind, folder / kind, server, rounds, tell) for kind in KINDS}
    finally:
        server.kill()


def _measure_kind(
    kind: Kind, folder: Path, server: Seaweed, rounds: int, tell: Callable[[str], None]
) -> Starts:
    folder.mkdir()
    folder.chmod(0o711)
    results = Starts()
    url = server.url(f"plain/{kind}")
    with LabGuest.create(f"bench-{kind}", kind=kind, disks=[DiskSpec(size=256 * MIB)]) as guest:
        tell(f"{kind}: making the backups")
        local = _Program(folder, str(folder / "repository"), {})
        remote = _Program(folder, url, server.environment)
        both = {"HOTSPARE_TO_PASSPHRASE": _PASSPHRASE}
        local.run("repo", "create")
        local.run("backup", guest.name)
        remote.run("repo", "create", url, "--like", folder / "repository", **both)
        _Program(folder, str(folder / "repository"), server.environment).run(
            "repo", "copy", "--to", url, **both
        )
        programs = {FOLDER: local, S3: remote}
        ways = list(results.answered)
        for number in range(rounds):
            for way in ways[number % 3 :] + ways[: number % 3]:
                tell(f"{kind}: round {number + 1} of {rounds}, {way}")
                empty_page_cache()
                if way == LOCAL:
                    began = time.monotonic()
                    guest.start().wait_ready(_PATIENCE)
                    results.answered[way].append(time.monotonic() - began)
                    guest.destroy()
                else:
                    started, answered = _recover(programs[way], guest.name, folder)
                    results.started[way].append(started)
                    results.answered[way].append(answered)
    return results


def _recover(program: _Program, source: str, folder: Path) -> tuple[float, float]:
    """Recover a machine, and give when it was started and when its agent answered."""
    name = domain_name("bench-recovered")
    words = ["recover", source, "--now", "--to", name, "--folder", str(folder / "disks")]
    words.append("--keep-running-from-backup")
    began = time.monotonic()
    command = program.start(*words)
    try:
        guest = LabGuest(name)
        while not _runs(guest):
            if command.poll():
                raise ProgramFailed(f"{words} ended with {command.returncode}")
            time.sleep(0.02)
        started = time.monotonic() - began
        guest.wait_ready(_PATIENCE)
        answered = time.monotonic() - began
        command.wait()
    finally:
        command.wait()
        program.run("recover", "undo", name, "--yes")
    return started, answered


def _runs(guest: LabGuest) -> bool:
    try:
        return guest.running
    except Exception:  # noqa: BLE001 - there is no such domain yet
        return False


def empty_page_cache() -> None:
    """Write out what is dirty, and forget what was read."""
    settle()
    Path("/proc/sys/vm/drop_caches").write_text("3")
