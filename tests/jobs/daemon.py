"""Servers and movers as real processes, and what can be asked of them from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hotspare.jobs.book import JobBook
from hotspare.jobs.orders import Order
from tests.cli.program import HOTSPARE, Program

_PATIENCE = 100.0
_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = [str(HOTSPARE)] if os.environ.get("REAL_HEARTBEATS") else ["-m", "tests.jobs.quick"]


@dataclass
class Daemon:
    """One process that serves."""

    process: subprocess.Popen[bytes]
    log: Path
    started: float
    apart: bool

    @property
    def pid(self) -> int:
        """Of the program itself, which is a child of ``unshare`` where that started it."""
        if not self.apart:
            return self.process.pid
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    @property
    def title(self) -> str:
        """What it is called."""
        return self.log.read_text().partition("Ready as ")[2].partition(":")[0]

    def signal(self, number: signal.Signals) -> None:
        """Send the program a signal."""
        os.kill(self.pid, number)

    def stop(self) -> int:
        """Ask it to stop; gives its exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.process.wait(_PATIENCE)

    def wait_ready(self) -> float:
        """Return once it is ready; gives the seconds since it was started."""
        wait_for(lambda: "Ready as" in self.log.read_text() or self.process.poll() is not None)
        assert "Ready as" in self.log.read_text(), self.log.read_text()
        return time.monotonic() - self.started


class Site:
    """A host with images, policies and a repository, and who serves it."""

    def __init__(self, program: Program, database: str | None = None) -> None:
        self.program = program
        self.folder = program.folder
        program.environment["HOTSPARE_LISTEN"] = "127.0.0.1:0"
        if database:
            program.environment["HOTSPARE_JOB_DATABASE"] = database
        self._daemons: list[Daemon] = []

    def image(self, name: str, content: bytes) -> None:
        """Add a machine, or replace its disk."""
        (self.folder / "images" / f"{name}.raw").write_bytes(content)

    def policy(self, name: str, text: str) -> None:
        """Add a policy, or replace it."""
        (self.folder / "policies").mkdir(exist_ok=True)
        (self.folder / "policies" / f"{name}.yaml").write_text(text)

    def start(self, *words: str, apart: bool = False, **variables: str) -> Daemon:
        """Start ``hotspare server ...``; ``apart`` in name spaces of its own for processes and network."""
        log = self.folder / f"daemon-{len(self._daemons)}.log"
        under = ["unshare", "--net", "--pid", "--mount-proc", "--fork", "--kill-child"] if apart else []
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*under, sys.executable, *_PROGRAM, "server", *words],
                stdout=file,
                stderr=file,
                env=self.program.environment | variables,
                cwd=_ROOT,
            )
        daemon = Daemon(process, log, time.monotonic(), apart)
        self._daemons.append(daemon)
        return daemon

    @property
    def database(self) -> str:
        """URL of the job database."""
        default = f"sqlite:///{self.program.environment['HOTSPARE_STATE_FOLDER']}/jobs.sqlite"
        return self.program.environment.get("HOTSPARE_JOB_DATABASE", default)

    def ask(self, policy: str, machine: str) -> str:
        """Have a machine backed up by a policy; gives the job's id."""
        machines = self.program.expect("machine", "list", "-o", "json").document()["machines"]
        (found,) = [one for one in machines if one["name"] == machine]
        order = Order(
            policy=policy,
            platform=self.program.environment["HOTSPARE_PLATFORM"],
            machine_id=found["id"],
            machine=machine,
        )
        with JobBook(self.database) as book:
            return book.ask(order)

    def jobs(self) -> list[dict[str, Any]]:
        """Give what ``hotspare job list`` does; nothing before there is a database."""
        done = self.program.run("job", "list", "-o", "json")
        return [] if done.status else done.document()["jobs"]

    def job(self, **wanted: object) -> dict[str, Any]:
        """Wait for a job that has all of these fields, and give it."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [one for one in self.jobs() if all(one[key] == value for key, value in wanted.items())]
            return bool(found)

        wait_for(look, self.describe)
        return found[0]

    def points(self) -> list[dict[str, Any]]:
        """Give the restore points, the oldest first."""
        points: list[dict[str, Any]] = self.program.expect("point", "list", "-o", "json").document()["points"]
        return points

    def outcomes(self) -> list[str]:
        """Give how runs ended, the oldest first."""
        runs = self.program.expect("run", "list", "-o", "json").document()["runs"]
        return [run["outcome"] for run in reversed(runs)]

    def describe(self) -> str:
        """Say what there is, for a test that failed."""
        logs = "\n".join(one.log.read_text() for one in self._daemons)
        return f"{json.dumps(self.jobs(), indent=1)}\n{self.outcomes()}\n{logs}"

    def close(self) -> None:
        """Kill what still serves."""
        for daemon in self._daemons:
            if daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait()


@contextmanager
def site(program: Program, database: str | None = None, *, make: bool = True) -> Iterator[Site]:
    """Give a site with an empty repository, or that of the program; whoever serves it is gone at the end."""
    if make:
        program.expect("repo", "create")
    made = Site(program, database)
    try:
        yield made
    finally:
        made.close()


def wait_for(
    happened: Callable[[], bool], describe: Callable[[], str] = lambda: "", patience: float = _PATIENCE
) -> float:
    """Return once something has happened; gives for how many seconds that was waited for."""
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < patience, describe()
        time.sleep(0.1)
    return time.monotonic() - began
