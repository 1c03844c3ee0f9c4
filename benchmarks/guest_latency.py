"""What a guest feels of a backup: how long its flushes take, and how many it gets done in a second."""

import statistics
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.guest_programs import Hotspare
from benchmarks.measure import settle
from hotspare.units import MIB
from lab import DiskSpec, LabGuest

IDLE = "idle"
WITHOUT, WITH = "without control", "with control"
MANNERS: Mapping[str, Sequence[str]] = {
    WITHOUT: ["--no-latency-control"],
    WITH: [],
    "with control, factor 1.5": ["--latency-factor", "1.5"],
    "limited to 100 MiB/s": ["--no-latency-control", "--read-limit", "100MiB/s"],
}
"""Options of the backups that are compared; all read the same disk into a new repository."""
_OWN_SESSION = ("setsid", "--wait")
"""As systemd starts it: the priority of a session is lowered by who leads it only."""


@dataclass(frozen=True, slots=True)
class Flushes:
    """What a program in the guest saw that writes 4 KiB and flushes them, again and again."""

    median: float
    """Seconds that a write with its flush took."""
    p99: float
    per_second: float

    @classmethod
    def of(cls, records: Sequence[tuple[float, float]], seconds: float) -> "Flushes":
        """Sum up records (when it began, how long it took, in seconds) of a time."""
        took = sorted(each for _, each in records)
        return cls(statistics.median(took), took[int(len(took) * 0.99)], len(took) / seconds)


@dataclass(slots=True)
class Manner:
    """One manner of backing up; an entry for each round."""

    flushes: list[Flushes] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Of the transfer."""
    held_back: list[dict[str, Any] | None] = field(default_factory=list)


def measure_latency(
    disk: Path, size: int, folder: Path, rounds: int, tell: Callable[[str], None]
) -> dict[str, Manner]:
    """Back a machine up in each manner, in turn, while a program in it writes and flushes.

    Args:
        disk: a raw image that the machine has as its second disk.
        size: bytes of it.
        folder: where repositories are made: best in memory, so that they do not share the guest's disk.
        rounds: how often.
        tell: told what is going on.
    """
    results = {name: Manner() for name in (IDLE, *MANNERS)}
    specs = [DiskSpec(size=256 * MIB), DiskSpec(size=size, content=disk)]
    with LabGuest.create("bench-latency", disks=specs) as guest:
        guest.start().wait_ready()
        for number in range(rounds):
            order = list(results)[number % len(results) :] + list(results)[: number % len(results)]
            for name in order:
                tell(f"latency: round {number + 1} of {rounds}, {name}")
                settle()
                if name == IDLE:
                    with _flushing(guest) as records:
                        time.sleep(10)
                    results[name].flushes.append(Flushes.of(records, records[-1][0] - records[0][0]))
                else:
                    program = Hotspare(folder / "latency", folder / "scratch", folder, before=_OWN_SESSION)
                    _back_up(guest, program, MANNERS[name], results[name])
    return results


def _back_up(guest: LabGuest, program: Hotspare, options: Sequence[str], result: Manner) -> None:
    program.create_repository()
    with _flushing(guest) as records:
        started = time.monotonic()
        done = program.back_up(guest.name, options)
    begin, end = (done.phases[phase] - started for phase in ("transfer", "commit"))
    program.remove()
    times = [at for at, _ in records]
    during = records[bisect_left(times, begin) : bisect_left(times, end)]
    result.flushes.append(Flushes.of(during, end - begin))
    result.seconds.append(end - begin)
    result.held_back.append(done.result["held_back"])


@contextmanager
def _flushing(guest: LabGuest) -> Iterator[list[tuple[float, float]]]:
    """Let the guest write and flush while the block runs; the list is filled at its end.

    Its times count from the start of the block, up to the fraction of a second that starting takes.
    """
    records: list[tuple[float, float]] = []
    guest.exec("setsid flush-latency /data/flushed /run/flushes </dev/null >/dev/null 2>&1 &")
    guest.exec("until [ -s /data/flushed ]; do sleep 0.1; done")
    try:
        yield records
    finally:
        guest.exec("kill $(pidof flush-latency); while pidof flush-latency >/dev/null; do sleep 0.1; done")
    for line in guest.read_file("/run/flushes").decode().splitlines():
        began, took = (int(word) / 1e6 for word in line.split())
        records.append((began, took))
