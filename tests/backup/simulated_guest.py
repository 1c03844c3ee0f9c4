"""A guest and a backup that share a disk, as a queue: the more is read, the longer the guest's I/O takes.

A model, no measurement: what it gives is checked on real guests by ``python -m benchmarks.guest``.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from hotspare.backup.pacing import LatencyControl
from hotspare.platforms.platform import IoTotals
from hotspare.units import MIB

CAPACITY = 1000 * MIB
"""Bytes per second that a reader gets when nobody holds it back."""
_STEP = 0.004


@dataclass(slots=True)
class SimulatedGuest:
    """One program in a guest that writes, waits, and writes again.

    Attributes:
        sensitivity: how much reading at full speed slows the guest down.
        latency: seconds that one operation takes by itself, at a time.
        thinks: seconds between two operations, at a time.
        spread: of the latencies, which are log-normal.
    """

    sensitivity: float = 2.0
    latency: Callable[[float], float] = lambda _now: 0.0008
    thinks: Callable[[float], float] = lambda _now: 0.0
    spread: float = 0.6
    seed: int = 1
    now: float = 0.0
    operations: int = 0
    took: float = 0.0
    read: int = 0
    rates: list[tuple[float, float]] = field(default_factory=list)
    """(time, bytes read per second) between two looks."""
    ratios: list[tuple[float, float]] = field(default_factory=list)
    """(time, how many times its own latency an operation is expected to take)."""

    def slowdown(self, share: float) -> float:
        """Give how many times longer an operation takes when reading uses this share of the disk's time."""
        return 1 + self.sensitivity * share / (1.08 - share)

    def best_rate(self, factor: float) -> float:
        """Give the bytes per second at which the guest is slowed down by just that factor."""
        share = 1.08 * (factor - 1) / (self.sensitivity + factor - 1)
        return min(share, 1.0) * CAPACITY

    def run(self, control: LatencyControl, seconds: float) -> None:
        """Read as fast as ``control`` lets us, while the guest does its work."""
        chance = random.Random(f"{self.seed} {self.now}")
        share = spare = behind = 0.0
        next_look = looked = self.now
        read_before = self.read
        end = self.now + seconds
        while self.now < end:
            spare = min(spare + CAPACITY * _STEP, control.grain)
            read = 0
            while spare > 0 and control.delay(self.now, control.grain) == 0:
                read += control.grain
                spare -= control.grain
            self.read += read
            share = 0.9 * share + 0.1 * min(1.0, read / (CAPACITY * _STEP))
            self.now += _STEP
            behind += _STEP
            alone = self.latency(self.now)
            while behind > 0:
                duration = (
                    alone * self.slowdown(share) * chance.lognormvariate(-(self.spread**2) / 2, self.spread)
                )
                self.operations += 1
                self.took += duration
                behind -= duration + self.thinks(self.now)
            self.ratios.append((self.now, self.slowdown(share)))
            if self.now >= next_look:
                control.observe(self.now, {"vda write": IoTotals(self.operations, int(self.took * 1e9))})
                self.rates.append((self.now, (self.read - read_before) / max(_STEP, self.now - looked)))
                looked, read_before = self.now, self.read
                next_look = self.now + control.look_after

    def rate_between(self, begin: float, end: float) -> float:
        """Give the mean bytes per second read in that time."""
        rates = [rate for at, rate in self.rates if begin < at <= end]
        return sum(rates) / len(rates)

    def ratio_between(self, begin: float, end: float) -> float:
        """Give how many times longer than by themselves the guest's operations took in that time."""
        ratios = [ratio for at, ratio in self.ratios if begin < at <= end]
        return sum(ratios) / len(ratios)
