"""An estate in a model: machines on hosts over a week, with loads by day and night, and backups upon them.

Nothing here is measured on real machines: it is a model, whose assumptions docs/performance-staggering.md
lists. The rules that are compared get the same estate, the same changes of data and the same chance.
"""

import math
import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hotspare.policy.load import LoadSample

START = datetime(2026, 5, 31, tzinfo=UTC)
"""A Sunday: the day before the week that counts."""
MINUTE = 60.0
HOUR = 3600.0
DAY = 86400.0
HOST_DISK = 600.0
"""MiB per second that the disks of a host can do."""
LINK = 1200.0
"""MiB per second that the link to a repository can do."""
MACHINE_MAX = 200.0
"""MiB per second that one machine's data comes at most."""
RUN_FIXED = 20.0
"""Seconds that a run takes beside its data."""
SLOW = 2.0
"""How many times its usual latency a guest's I/O takes when that counts as slow."""


@dataclass(slots=True)
class Machine:
    """One machine, and how it stands."""

    name: str
    host: int
    repository: int
    rpo: float
    """Seconds."""
    changes: float
    """MiB per hour that it changes."""
    last: float
    """When the data of its newest restore point was frozen, in seconds since the start."""


@dataclass(slots=True)
class Run:
    """A backup that goes on."""

    machine: Machine
    began: float
    left: float
    """MiB still to be read."""
    size: float
    fixed_left: float = RUN_FIXED


@dataclass(slots=True)
class Estate:
    """All machines and hosts; ``load`` is what the guests themselves want of a host's disks."""

    machines: list[Machine]
    hosts: int
    repositories: int
    peaks: list[tuple[float, float, float]]
    """Of each host: the hour at which its guests are busiest, how busy then, and how busy at least."""
    runs: list[Run] = field(default_factory=list)

    def own_load(self, host: int, now: float) -> float:
        """Give the share of a host's disks that its guests want, 0 to 1."""
        peak, high, low = self.peaks[host]
        weekday, hour = int(now // DAY + 6) % 7, now % DAY / HOUR
        if weekday >= 5:
            high = low + (high - low) * 0.3
        away = min(abs(hour - peak), 24 - abs(hour - peak))
        return low + (high - low) * math.exp(-((away / 3.5) ** 2))

    def begin(self, machine: Machine, now: float, chance: random.Random) -> Run:
        """Begin a run: it reads what changed since the newest restore point."""
        size = max(64.0, machine.changes * (now - machine.last) / HOUR * chance.uniform(0.7, 1.4))
        run = Run(machine, now, size, size)
        self.runs.append(run)
        return run

    def step(self, now: float, seconds: float) -> tuple[list[tuple[Run, float]], dict[int, float]]:
        """Let time pass. Gives the runs that ended, each with when; and how slow the guests of hosts were."""
        by_host: dict[int, list[Run]] = defaultdict(list)
        by_repository: dict[int, int] = defaultdict(int)
        for run in self.runs:
            by_host[run.machine.host].append(run)
            by_repository[run.machine.repository] += 1
        ended, slowness = [], {}
        for host, runs in by_host.items():
            own = self.own_load(host, now)
            # Guests and backups share the disks evenly when these are full; backups never stop altogether.
            free = max(0.15, 1.0 - own) * HOST_DISK / len(runs)
            read = 0.0
            for run in runs:
                rate = min(MACHINE_MAX, free, LINK / by_repository[run.machine.repository])
                left = seconds - run.fixed_left
                run.fixed_left = max(0.0, run.fixed_left - seconds)
                if left <= 0:
                    continue
                done = min(run.left, rate * left)
                run.left -= done
                read += done / seconds
                if run.left <= 0.5:
                    ended.append((run, now + min(seconds, seconds - left + done / rate)))
            slowness[host] = latency(own + read / HOST_DISK) / latency(own)
        gone = {id(run) for run, _ in ended}
        self.runs = [run for run in self.runs if id(run) not in gone]
        for run, _ in ended:
            run.machine.last = run.began
        return ended, slowness


def latency(share: float) -> float:
    """Give how long an operation takes on disks used by so much: a queue, in units of an idle disk."""
    return 1.0 / (1.0 - min(share, 0.97))


def make_estate(machines: int, hosts: int, seed: int) -> Estate:
    """Make an estate: two hosts of three are busy by day, the others at night."""
    chance = random.Random(seed)
    peaks = [
        (
            chance.uniform(10, 15) if host % 3 else chance.uniform(0, 4),
            chance.uniform(0.55, 0.85),
            chance.uniform(0.05, 0.2),
        )
        for host in range(hosts)
    ]
    repositories = 4
    found = []
    for number in range(machines):
        rpo = chance.choices((26 * HOUR, 6 * HOUR), (9, 1))[0]
        found.append(
            Machine(
                f"vm{number:04d}",
                number % hosts,
                number % repositories,
                rpo,
                changes=chance.lognormvariate(6.7, 1.0),
                last=-chance.uniform(0.2, 0.9) * rpo,
            )
        )
    return Estate(found, hosts, repositories, peaks)


def history(estate: Estate, host: int, weeks: int, seed: int) -> list[LoadSample]:
    """Give the samples that a timer would have taken of a host before the week that is looked at."""
    chance = random.Random(seed * 1000 + host)
    found = []
    for count in range(weeks * 7 * 24 * 2):
        at = -weeks * 7 * DAY + count * 1800.0
        own = max(0.0, estate.own_load(host, at) + chance.gauss(0, 0.03))
        found.append(
            LoadSample(
                at=START + timedelta(seconds=at),
                cpu=own / 2,
                disk=own * HOST_DISK * 2**20,
                network=0.0,
                latency=latency(own) / 1000,
            )
        )
    return found
