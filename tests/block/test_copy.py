"""Copying disks against plain byte strings."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.block import copy
from hotspare.block.copy import copy_disk
from hotspare.cancellation import Cancellation
from hotspare.errors import Interrupted, SourceLost
from tests.memory_disk import MemoryDisk


def sparse_bytes(seed: int, size: int) -> bytearray:
    source = random.Random(seed)
    data = bytearray(size)
    for _ in range(source.randrange(6)):
        start = source.randrange(size)
        length = min(source.randrange(1, size + 1) // 3 + 1, size - start)
        data[start : start + length] = source.randbytes(length)
    return data


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), size=st.integers(1, 200_000), blank=st.booleans())
def test_the_target_becomes_the_source(seed: int, size: int, *, blank: bool) -> None:
    source = MemoryDisk(sparse_bytes(seed, size))
    target = MemoryDisk(bytearray(size) if blank else bytearray(b"\xee" * size))
    progress: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copy, "STRIPE", 16384)  # many pieces from small disks
        copy_disk(
            source,
            target,
            target_is_blank=blank,
            on_progress=lambda handled, read: progress.append((handled, read)),
            cancellation=Cancellation(),
        )

    assert target.data == source.data
    assert progress == sorted(progress)
    assert progress[-1][0] == size
    assert progress[-1][1] == source.bytes_read


def test_a_cancelled_copy_stops() -> None:
    cancellation = Cancellation()
    with pytest.raises(Interrupted):
        copy_disk(
            MemoryDisk(random.Random(1).randbytes(20 << 20)),
            MemoryDisk(bytearray(20 << 20)),
            target_is_blank=True,
            on_progress=lambda _handled, _read: cancellation.cancel(),
            cancellation=cancellation,
        )


def test_a_lost_source_is_reported_and_stops_the_others() -> None:
    class Dying(MemoryDisk):
        def read_into(self, offset: int, buffer: memoryview) -> None:
            if offset >= 8 << 20:
                raise SourceLost("the machine stopped")
            super().read_into(offset, buffer)

    source = Dying(random.Random(1).randbytes(64 << 20))
    with pytest.raises(SourceLost):
        copy_disk(
            source,
            MemoryDisk(bytearray(64 << 20)),
            target_is_blank=True,
            on_progress=lambda _handled, _read: None,
            cancellation=Cancellation(),
        )
    assert source.bytes_read < 40 << 20
