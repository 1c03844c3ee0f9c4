"""Reading ahead gives the same bytes, and many questions at once."""

import random
import threading
import time

import pytest

from hotspare.errors import StorageError
from hotspare.restore.files.read_ahead import ReadAhead
from hotspare.units import KIB, MIB
from tests.memory_disk import MemoryDisk

DATA = random.Random(1).randbytes(21 * MIB + 333)


class SlowDisk(MemoryDisk):
    def __init__(self, data: bytes, seconds: float = 0.0) -> None:
        super().__init__(bytearray(data))
        self.seconds = seconds
        self.at_once = self.most_at_once = 0
        self.fails = False
        self.lock = threading.Lock()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.seconds)
        if self.fails:
            raise StorageError("gone")
        super().read_into(offset, buffer)
        with self.lock:
            self.at_once -= 1


def read(disk: ReadAhead, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    disk.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def test_random_and_sequential_reads_give_the_same_bytes() -> None:
    disk = ReadAhead(SlowDisk(DATA))
    source = random.Random(2)
    for _ in range(20):
        at = source.randrange(len(DATA))
        for _ in range(source.randrange(12)):
            length = min(source.choice([1, 4 * KIB, 256 * KIB, 3 * MIB]), len(DATA) - at)
            assert read(disk, at, length) == DATA[at : at + length]
            at += length
    disk.close()
    disk.close()


def test_a_long_read_asks_many_times_at_once() -> None:
    inner = SlowDisk(DATA, 0.02)
    disk = ReadAhead(inner)
    whole = b"".join(read(disk, at, min(256 * KIB, len(DATA) - at)) for at in range(0, len(DATA), 256 * KIB))
    disk.close()
    assert whole == DATA
    assert inner.most_at_once >= 4


def test_small_reads_fetch_nothing_more() -> None:
    inner = SlowDisk(DATA)
    disk = ReadAhead(inner)
    for at in range(0, 21 * MIB, 3 * MIB):
        read(disk, at, 256 * KIB)
    disk.close()
    assert inner.bytes_read == 7 * 256 * KIB


def test_a_failure_is_told_and_not_kept() -> None:
    inner = SlowDisk(DATA)
    disk = ReadAhead(inner)
    inner.fails = True
    with pytest.raises(StorageError):
        read(disk, 0, 2 * MIB)
    inner.fails = False
    for _ in range(7):
        try:
            assert read(disk, 0, 2 * MIB) == DATA[: 2 * MIB]
            break
        except StorageError:
            continue
    else:
        raise AssertionError
    disk.close()
