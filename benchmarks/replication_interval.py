"""Measures interval replication between two hosts of the lab: lag, and the processor time that it takes.

Run it as root: ``python -m benchmarks.replication_interval --help``.
"""

import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from cyclopts import App
from rich.console import Console

from hotspare.platforms.replica.record import read_record
from hotspare.replication import protections
from hotspare.replication.link.wire import NOTHING
from lab import DiskSpec, LabGuest, ensure_host, sweep
from lab.image import guest_image
from lab.two_hosts import Host, Hosts
from tests.replication.interval.two_agents import Shipped, TwoAgents

MIB = 1024 * 1024
_TICKS = os.sysconf("SC_CLK_TCK")
_PERIOD = 0.2
"""Seconds between two looks at the lag."""
_WRITER = (
    "n=0; while :; do n=$(((n+1)%64));"
    " dd if=/dev/urandom of=/data/load bs=1M count=1 seek=$n conv=notrunc,fsync 2>/dev/null; sleep 1; done"
)

app = App(name="python -m benchmarks.replication_interval", help_format="plaintext")


@dataclass(slots=True)
class Usage:
    """Seconds of processor time of one host's programs, with those that they have started and ended."""

    agent: float
    storage_daemon: float
    libvirt: float


@dataclass(slots=True)
class Measured:
    """One run."""

    seconds: float
    lags: list[float] = field(default_factory=list)
    source: Usage = field(default_factory=lambda: Usage(0, 0, 0))
    standby: Usage = field(default_factory=lambda: Usage(0, 0, 0))
    cycles: list[float] = field(default_factory=list)
    """Seconds that each took."""
    sent: int = 0


@app.default
def measure(*, seconds: float = 60, interval: float = 5, idle: bool = False, points: str = "last 12") -> None:
    """Measure a machine that changes 1 MiB/s.

    Args:
        seconds: How long.
        interval: Seconds between two cycles.
        idle: Measure a machine that writes nothing instead.
        points: Which points stay.
    """
    console = Console()
    ensure_host()
    sweep()
    guest_image()
    with Hosts("bench-interval", ("source", "standby")) as hosts:
        guest = LabGuest.create("bench-interval", disks=[DiskSpec(size=256 * MIB)], host=hosts.source)
        with guest, TwoAgents(hosts) as agents:
            guest.start().wait_ready()
            if not idle:
                guest.exec(f"setsid sh -c '{_WRITER}' </dev/null >/dev/null 2>&1 &")
            shipped = agents.protect(guest, interval=interval, retention=points)
            shipped.acknowledged.stop()
            shipped.wait_for_point(shipped.wait_for_point().id)
            found = _watch(shipped, hosts, seconds)
    _tell(console, found)


def _watch(shipped: Shipped, hosts: Hosts, seconds: float) -> Measured:
    before = _usage(hosts.source), _usage(hosts.standby)
    found = Measured(seconds)
    seen = {point.id for point in read_record(shipped.folder).points}
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        (status,) = shipped.agents.source.call(protections.STATUS, NOTHING)
        if status.lag is not None:
            found.lags.append(status.lag.seconds)
        for point in read_record(shipped.folder).points:
            if point.id not in seen:
                seen.add(point.id)
                found.cycles.append((point.finished_at - point.taken_at).total_seconds())
                found.sent += sum(disk.bytes_sent for disk in point.disks)
        time.sleep(_PERIOD)
    found.seconds = time.monotonic() - began
    found.source = _since(before[0], _usage(hosts.source))
    found.standby = _since(before[1], _usage(hosts.standby))
    return found


def _since(before: Usage, after: Usage) -> Usage:
    return Usage(
        after.agent - before.agent,
        after.storage_daemon - before.storage_daemon,
        after.libvirt - before.libvirt,
    )


def _usage(host: Host) -> Usage:
    spent = {"replica agent": 0.0, "qemu-storage-daemon": 0.0, "libvirtd": 0.0}
    namespace = Path(f"/proc/{host.pid}/ns/pid").readlink()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "ns/pid").readlink() != namespace:
                continue
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        for name in spent:
            if name in words and "qemu-system" not in words:
                spent[name] += sum(int(ticks) for ticks in fields[11:15]) / _TICKS
                break
    return Usage(spent["replica agent"], spent["qemu-storage-daemon"], spent["libvirtd"])


def _tell(console: Console, found: Measured) -> None:
    share = {
        name: 100 * value / found.seconds
        for name, value in (
            ("source agent", found.source.agent),
            ("standby agent", found.standby.agent),
            ("standby storage daemon", found.standby.storage_daemon),
            ("source libvirtd (not ours)", found.source.libvirt),
        )
    }
    lags = sorted(found.lags)
    console.print(f"load of this host: {os.getloadavg()[0]:.1f}")
    cycles = found.cycles or [0.0]
    console.print(f"{found.seconds:.0f} s, {len(found.cycles)} cycles, {found.sent / MIB:.1f} MiB sent")
    console.print(f"a cycle took {statistics.median(cycles):.2f} s (median), {max(cycles):.2f} s at most")
    nearly_all = lags[int(len(lags) * 0.95)]
    console.print(
        f"lag: {statistics.mean(lags):.1f} s (mean), {nearly_all:.1f} s (95 %), {lags[-1]:.1f} s at most"
    )
    for name, percent in share.items():
        console.print(f"{name}: {percent:.1f} % of a core")
    ours = sum(percent for name, percent in share.items() if "not ours" not in name)
    console.print(f"all of ours: {ours:.1f} % of a core")


if __name__ == "__main__":
    app()
