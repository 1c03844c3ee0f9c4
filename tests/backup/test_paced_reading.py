"""Readers that wait: for each other, for the guest, for the limit, and never for ever."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from hotspare.backup.paced_reading import ReadPacer, paced_reading, read_freely
from hotspare.backup.pacing import LatencyControl
from hotspare.cancellation import Cancellation
from hotspare.errors import Interrupted, SourceLost
from hotspare.platforms.platform import IoTotals
from hotspare.units import KIB, MIB
from tests.memory_disk import MemoryDisk

CONTENT = bytes(range(256)) * (12 * KIB)
PIECE = 1 * MIB


class WatchedDisk(MemoryDisk):
    """Notes how many read at once."""

    def __init__(self) -> None:
        super().__init__(bytearray(CONTENT))
        self.lock = threading.Lock()
        self.reading = self.most_at_once = 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        with self.lock:
            self.reading += 1
            self.most_at_once = max(self.most_at_once, self.reading)
        time.sleep(0.002)
        super().read_into(offset, buffer)
        with self.lock:
            self.reading -= 1


def read_all(read_into: object, disk: WatchedDisk) -> bytes:
    assert callable(read_into)
    content = bytearray(len(CONTENT))
    view = memoryview(content)
    with ThreadPoolExecutor(3) as threads:
        reads = [
            threads.submit(read_into, disk, at, view[at : at + PIECE]) for at in range(0, len(CONTENT), PIECE)
        ]
        for read in reads:
            read.result(timeout=60)
    return bytes(content)


def busy_guest() -> Mapping[str, IoTotals]:
    """Give the counters of a guest that does a thousand operations a second, each in half a millisecond."""
    operations = int(time.monotonic() * 1000)
    return {"vda write": IoTotals(operations, operations * 500_000)}


def test_nothing_is_in_the_way_without_a_guest_and_a_limit() -> None:
    with paced_reading(lambda: None, 2.0, None, Cancellation()) as (read_into, held_back):
        assert read_into is read_freely
        assert read_all(read_into, WatchedDisk()) == CONTENT
    assert held_back.seconds == 0


def test_a_guest_is_not_looked_at_when_nobody_asked_for_it() -> None:
    def never() -> None:
        raise AssertionError("was asked")

    with paced_reading(never, None, None, Cancellation()) as (read_into, _held_back):
        assert read_into is read_freely


def test_beside_an_idle_guest_several_read_at_once() -> None:
    disk = WatchedDisk()
    idle = {"vda write": IoTotals(7, 7_000_000)}
    with paced_reading(lambda: idle, 2.0, None, Cancellation()) as (read_into, _held_back):
        for _ in range(2):  # at first it is not known that it is idle
            assert read_all(read_into, disk) == CONTENT
    assert disk.most_at_once > 1


def test_beside_a_busy_guest_one_reads_at_a_time_and_reads_right() -> None:
    disk = WatchedDisk()
    with paced_reading(busy_guest, 2.0, None, Cancellation()) as (read_into, _held_back):
        assert read_all(read_into, disk) == CONTENT
    assert disk.most_at_once == 1
    assert "guest-watcher" not in {thread.name for thread in threading.enumerate()}


def test_a_guest_that_can_be_seen_no_more_ends_the_control() -> None:
    looks = 0

    def stops() -> Mapping[str, IoTotals] | None:
        nonlocal looks
        looks += 1
        return busy_guest() if looks < 3 else None

    with paced_reading(stops, 2.0, None, Cancellation()) as (read_into, _held_back):
        assert read_all(read_into, WatchedDisk()) == CONTENT
        deadline = time.monotonic() + 60
        while looks < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert looks == 3


def test_a_limit_holds_for_all_readers_together() -> None:
    began = time.monotonic()
    with paced_reading(lambda: None, None, 4 * MIB, Cancellation()) as (read_into, held_back):
        assert read_all(read_into, WatchedDisk()) == CONTENT
    # A burst of half a second is free.
    assert time.monotonic() - began >= len(CONTENT) / (4 * MIB) - 0.5
    assert held_back.seconds < 0.25, "that was the user's wish, not the guest's"


def test_what_is_waited_for_the_guest_is_counted() -> None:
    control = LatencyControl(2.0, time.monotonic() - 100)
    pacer = ReadPacer(control, None, Cancellation())
    control.rate = 16 * MIB
    began = time.monotonic()
    assert read_all(pacer.read_into, WatchedDisk()) == CONTENT
    took = time.monotonic() - began

    assert took >= (len(CONTENT) - PIECE) / (16 * MIB)
    assert 0 < pacer.held_back.seconds <= took


@pytest.mark.parametrize("control", [False, True])
def test_an_interruption_ends_a_wait(control: bool) -> None:
    cancellation = Cancellation()
    slow = LatencyControl(2.0, time.monotonic() - 100)
    slow.rate = 1.0
    pacer = ReadPacer(slow, None, cancellation) if control else ReadPacer(None, 1, cancellation)
    threading.Timer(0.3, cancellation.cancel).start()

    with pytest.raises(Interrupted):
        read_all(pacer.read_into, WatchedDisk())


def test_a_reader_that_fails_makes_way_for_the_others() -> None:
    class Broken(WatchedDisk):
        def read_into(self, offset: int, buffer: memoryview) -> None:
            raise SourceLost("gone")

    with paced_reading(busy_guest, 2.0, None, Cancellation()) as (read_into, _held_back):
        with pytest.raises(SourceLost, match="gone"):
            read_into(Broken(), 0, memoryview(bytearray(PIECE)))
        assert read_all(read_into, WatchedDisk()) == CONTENT
