"""Running a program and counting what it took."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hotspare.units import KIB

_LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of a program took, with all its child processes.

    Attributes:
        wall: seconds.
        cpu: seconds of user and system time of all cores.
        memory: bytes, the peak resident set of its largest process.
    """

    wall: float
    cpu: float
    memory: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall + other.wall, self.cpu + other.cpu, max(self.memory, other.memory))


class ProgramFailed(Exception):
    """A measured program ended with an error."""


def run(command: Sequence[str | Path], environment: Mapping[str, str], log: Path, folder: Path) -> Cost:
    """Run a program to its end; what it prints goes to ``log``.

    Raises:
        ProgramFailed: its exit status is not 0.
    """
    result = log.with_suffix(".cost")
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-I", "-S", _LAUNCHER, result, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=folder,
            check=False,
        )
    if done.returncode:
        words, said = " ".join(map(str, command)), log.read_text(errors="replace")
        raise ProgramFailed(f"{words} ended with {done.returncode}:\n{said}")
    used = json.loads(result.read_text(encoding="utf-8"))
    return Cost(used["wall"], used["cpu"], used["memory_kib"] * KIB)


def flush_file(path: Path) -> Cost:
    """Make a file durable."""
    started = time.monotonic()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Cost(time.monotonic() - started, 0.0, 0)


def stored_bytes(folder: Path) -> int:
    """Give the sum of the sizes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def median(costs: Iterable[Cost]) -> Cost:
    """Give the median of each figure by itself."""
    costs = list(costs)
    return Cost(
        statistics.median(cost.wall for cost in costs),
        statistics.median(cost.cpu for cost in costs),
        int(statistics.median(cost.memory for cost in costs)),
    )


def settle() -> None:
    """Write out what is dirty, so that one program's data is not written out in another's time."""
    os.sync()
