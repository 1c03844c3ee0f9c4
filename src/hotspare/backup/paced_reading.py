"""Reading a machine's disks no faster than its guest can stand, and no faster than the user allows.

The decisions are in ``pacing.py``. Here are the thread that looks at the guest, and the readers that wait.
Beside a guest that is busy one reader reads at a time: what several of them ask for at once stands in the
way of the guest's own requests, and QEMU serves one as fast as three (docs/decisions/0017).
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

from hotspare.backup.pacing import LOOK_MAX, HeldBack, LatencyControl
from hotspare.backup.priority import below_the_guests
from hotspare.block.device import BlockReader
from hotspare.cancellation import Cancellation
from hotspare.platforms.platform import IoTotals
from hotspare.storage.wrappers.throttle import TokenBucket
from hotspare.units import KIB, MIB

ReadInto = Callable[[BlockReader, int, memoryview], float]
"""Fills the memory from an offset on; gives the seconds that it waited for the guest."""

_WAIT_SECONDS = 0.1
"""Most that a reader sleeps before it looks again whether it may go on or has to stop."""
_LIMITED_SECONDS = 0.25
_GRAIN_MIN, _GRAIN_MAX = 256 * KIB, 1 * MIB
"""Bytes that are read at once: under a limit what passes in so many seconds. QEMU serves 1 MiB fastest."""


def read_freely(reader: BlockReader, offset: int, buffer: memoryview) -> float:
    """Read at once."""
    reader.read_into(offset, buffer)
    return 0.0


class ReadPacer:
    """Readers of one machine that wait for each other, for the guest, and for the limit.

    Args:
        control: None when nothing is known of a guest.
        limit: bytes per second; None for none.
        cancellation: ends every wait.
    """

    def __init__(self, control: LatencyControl | None, limit: int | None, cancellation: Cancellation) -> None:
        self.held_back = control.held_back if control else HeldBack()
        self._control = control
        self._limit = TokenBucket(limit) if limit else None
        within = int(limit * _LIMITED_SECONDS) if limit else 0
        self._limited_grain = max(_GRAIN_MIN, min(_GRAIN_MAX, within))
        self._cancellation = cancellation
        self._turn = threading.Lock()
        self._state = threading.Lock()
        self._has_read = False

    def read_into(self, reader: BlockReader, offset: int, buffer: memoryview) -> float:
        """Read as soon and as fast as it may be.

        Raises:
            Interrupted: ``cancellation`` was requested while waiting.
            SourceLost: the disk went away.
        """
        with self._turn if self._one_at_a_time() else nullcontext():
            at, waited = 0, 0.0
            while at < len(buffer):
                piece = buffer[at : at + self._grain()]
                waited += self._wait(len(piece))
                reader.read_into(offset + at, piece)
                at += len(piece)
        return waited

    def look(self, totals: Mapping[str, IoTotals] | None) -> None:
        """Take in what the guest has done so far; None ends the control."""
        with self._state:
            if totals is None:
                self._control = None
            elif self._control is not None:
                self._control.observe(time.monotonic(), totals)

    @property
    def look_after(self) -> float:
        """Seconds until the next ``look``."""
        with self._state:
            return self._control.look_after if self._control else LOOK_MAX

    def _one_at_a_time(self) -> bool:
        with self._state:
            return self._limit is not None or (self._control is not None and self._control.sparing)

    def _grain(self) -> int:
        with self._state:
            grain = self._control.grain if self._control else _GRAIN_MAX
        return min(grain, self._limited_grain if self._limit else _GRAIN_MAX)

    def _wait(self, count: int) -> float:
        paid_at = time.monotonic() + (self._limit.charge(count) if self._limit else 0.0)
        while (left := paid_at - time.monotonic()) > 0:
            self._sleep(left)
        waited, began = 0.0, time.monotonic()
        while (left := self._guest_wants(count)) > 0:
            self._sleep(left)
            waited = time.monotonic() - began
        if not self._has_read:  # what is learnt before the first read is no waiting for the guest
            self._has_read = True
            return 0.0
        self.held_back.seconds += waited
        return waited

    def _guest_wants(self, count: int) -> float:
        with self._state:
            return self._control.delay(time.monotonic(), count) if self._control else 0.0

    def _sleep(self, seconds: float) -> None:
        self._cancellation.check()
        time.sleep(min(seconds, _WAIT_SECONDS))


@contextmanager
def paced_reading(
    guest_io: Callable[[], Mapping[str, IoTotals] | None],
    factor: float | None,
    limit: int | None,
    cancellation: Cancellation,
) -> Iterator[tuple[ReadInto, HeldBack]]:
    """Give a way to read that spares the guest as long as the block runs, and what that costs.

    Args:
        guest_io: counts the guest's own I/O, as ``Snapshot.guest_io``.
        factor: how many times its usual latency the guest may see; None for no control.
        limit: bytes per second; None for no limit.
        cancellation: ends every wait.
    """
    first = guest_io() if factor is not None else None
    control = None if first is None or factor is None else LatencyControl(factor, time.monotonic())
    if control is None and limit is None:
        yield read_freely, HeldBack()
        return
    pacer = ReadPacer(control, limit, cancellation)
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(pacer.look_after):
            totals = guest_io()
            pacer.look(totals)
            if totals is None:
                return

    watcher = threading.Thread(target=watch, name="guest-watcher", daemon=True)
    if control is None:
        yield pacer.read_into, pacer.held_back
        return
    pacer.look(first)
    watcher.start()
    try:
        with below_the_guests():
            yield pacer.read_into, pacer.held_back
    finally:
        stop.set()
        watcher.join()
