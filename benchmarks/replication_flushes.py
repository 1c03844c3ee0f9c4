"""What a guest feels: how long a small write with its flush takes, and how fast a large file is written."""

import statistics
import time
from dataclasses import dataclass

from hotspare.units import MIB
from lab import LabGuest

_LARGE = 64 * MIB


@dataclass(frozen=True, slots=True)
class Felt:
    """One manner of one round."""

    median: float
    """Seconds that a write of 4 KiB with its flush took."""
    p99: float
    throughput: float
    """Bytes per second of a large file that is written over and flushed."""


def feel(guest: LabGuest, seconds: float) -> Felt:
    """Let a guest write for so long, and then a large file."""
    guest.exec("setsid flush-latency /data/flushed /run/flushes </dev/null >/dev/null 2>&1 &")
    guest.exec("until [ -s /data/flushed ]; do sleep 0.1; done")
    time.sleep(seconds)
    guest.exec("kill $(pidof flush-latency); while pidof flush-latency >/dev/null; do sleep 0.1; done")
    took = sorted(
        int(line.split()[1]) / 1e6 for line in guest.read_file("/run/flushes").decode().splitlines()
    )
    return Felt(statistics.median(took), took[int(len(took) * 0.99)], _write_large(guest))


def _write_large(guest: LabGuest) -> float:
    """Write over a file that is there already, so that nothing has to be allocated; give bytes per second."""
    write = f"dd if=/dev/zero of=/data/large bs=1M count={_LARGE // MIB} conv=notrunc,fsync 2>/dev/null"
    guest.exec(f"[ -e /data/large ] || {write}", timeout=300)
    began = time.monotonic()
    guest.exec(write, timeout=300)
    return _LARGE / (time.monotonic() - began)
