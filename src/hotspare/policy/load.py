"""How busy a host is: from what its platform counts to samples, and what is usual for its guests.

Platforms count from the start of each machine; a sample is the difference between two looks. Machines that
were started, stopped or moved in between are left out of it.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from hotspare.units import MIB

_ENOUGH_SAMPLES = 12
"""Of latency, before anything counts as usual."""
_LEAST = 100.0 * MIB
"""Bytes per second that the disks and the network of any host can do."""
_ENOUGH_OPERATIONS = 20
"""Of the guests' disks, before their mean latency says something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineUse:
    """What one machine has used since it was started."""

    cpu_nanoseconds: int = 0
    disk_bytes: int = 0
    """Read and written."""
    disk_operations: int = 0
    disk_nanoseconds: int = 0
    """The time that they took, added up; operations that overlap count each."""
    network_bytes: int = 0
    """Received and sent."""


@dataclass(frozen=True, slots=True)
class HostUse:
    """One look at a host."""

    at: datetime
    cpus: int
    machines: Mapping[str, MachineUse]
    """Those that run, by id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSample:
    """How busy a host's machines kept it for a while."""

    at: datetime
    """The end of that while."""
    cpu: float
    """Share of all its processors that they used, 0 to 1."""
    disk: float
    """Bytes per second."""
    network: float
    """Bytes per second."""
    latency: float | None
    """Mean seconds of a disk operation; None when there were hardly any."""
    backing_up: bool = False
    """A backup of ours ran there meanwhile: it says nothing about what is usual."""


def sample_between(before: HostUse, after: HostUse, *, backing_up: bool = False) -> LoadSample | None:
    """Give what happened between two looks at a host; None when no time passed."""
    seconds = (after.at - before.at).total_seconds()
    if seconds <= 0:
        return None
    pairs = [
        (before.machines[machine], use)
        for machine, use in after.machines.items()
        if machine in before.machines
    ]
    grown = [(old, new) for old, new in pairs if new.cpu_nanoseconds >= old.cpu_nanoseconds]

    def total(name: str) -> int:
        return sum(max(0, getattr(new, name) - getattr(old, name)) for old, new in grown)

    operations = total("disk_operations")
    return LoadSample(
        at=after.at,
        cpu=min(1.0, total("cpu_nanoseconds") / 1e9 / seconds / max(1, after.cpus)),
        disk=total("disk_bytes") / seconds,
        network=total("network_bytes") / seconds,
        latency=total("disk_nanoseconds") / 1e9 / operations if operations >= _ENOUGH_OPERATIONS else None,
        backing_up=backing_up,
    )


def usual_latency(samples: Iterable[LoadSample]) -> float | None:
    """Give the latency, in seconds, that a host's guests usually have; None while that is not known.

    The median: nights of maintenance do not move it, and what is slow for weeks becomes usual.
    """
    latencies = [one.latency for one in samples if one.latency is not None and not one.backing_up]
    return statistics.median(latencies) if len(latencies) >= _ENOUGH_SAMPLES else None


def busyness(samples: Sequence[LoadSample]) -> list[float]:
    """Give, for each sample, how busy the host was, 0 to about 1: what is scarcest counts.

    What a host's disks and network can do is not known; the most that they do now and then stands for it, but
    no less than what any can: the murmur of an idle host is not a load.
    """
    disk, network = (_most(getattr(one, name) for one in samples) for name in ("disk", "network"))
    return [max(one.cpu, one.disk / disk, one.network / network) for one in samples]


def _most(values: Iterable[float]) -> float:
    """Give what is exceeded one time in fifty, so that one strange sample does not count."""
    ordered = sorted(values)
    return max(ordered[int(0.98 * (len(ordered) - 1))], _LEAST) if ordered else _LEAST
