"""Processes at work on a repository (see process.py), and what they said before they were killed."""

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError
from hotspare.repository.check import check_structure
from hotspare.repository.repository import Repository
from tests.repository.gc.process import content
from tests.repository.test_repository import read_disk

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 100.0
"""Seconds; for a host that is busy."""
_CODE = "import sys; from tests.repository.gc.process import main; main(*sys.argv[1:])"


class Worker:
    """One process."""

    def __init__(self, *words: str, environment: Mapping[str, str] | None = None, before: str = "") -> None:
        """``words`` are those of process.py; ``before`` is code that it runs first."""
        command = [sys.executable, "-c", before + _CODE, *words]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._said: list[list[str]] = []
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def stored(self) -> dict[str, int]:
        """Give the points that it reported so far, with the seeds of their content."""
        return {said[1]: int(said[2]) for said in list(self._said) if said[0] == "stored"}

    def forgotten(self) -> set[str]:
        """Give the points that it may have forgotten."""
        return {said[1] for said in list(self._said) if said[0] == "forget"}

    def waits_for(self, count: int) -> None:
        """Return when so many points were reported."""
        deadline = time.monotonic() + PATIENCE
        while len(self.stored()) < count:
            assert self._process.poll() is None, f"the process ended: {self._process.returncode}"
            assert time.monotonic() < deadline, "no restore point was reported"
            time.sleep(0.01)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()

    def _listen(self) -> None:
        assert self._process.stdout
        with self._process.stdout as lines:
            # The last line may be cut short by the kill.
            self._said.extend(line.split() for line in lines if line.endswith("\n"))


def lost_of(repository: Repository, expected: Mapping[str, int]) -> list[str]:
    """Tell what is wrong with a repository that has to hold these points."""
    try:
        report = check_structure(repository, events.ignore, Cancellation())
    except HotspareError as error:
        return [error.what]
    lost = [f"{problem.object} {problem.detail}" for problem in report.problems]
    for point, seed in expected.items():
        try:
            if read_disk(repository, point) != content(seed):
                lost.append(f"{point} reads wrong")
        except HotspareError as error:
            lost.append(f"{point}: {error!r}")
    return lost
