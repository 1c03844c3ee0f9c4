"""Free units of a file system, from bitmaps and flags."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.block.ranges import Ranges
from hotspare.guest.unused import free_runs
from hotspare.guest.unused.free_runs import FreeRuns


def plainly(bits: list[bool], unit: int, start: int) -> Ranges:
    """Give the free units one by one."""
    return Ranges.of(
        (start + number * unit, start + (number + 1) * unit) for number, used in enumerate(bits) if not used
    )


@given(pieces=st.lists(st.lists(st.booleans(), max_size=300), max_size=5), unit=st.sampled_from([512, 4096]))
def test_bitmaps_and_flags_in_pieces(pieces: list[list[bool]], unit: int) -> None:
    by_bitmap, by_flags = FreeRuns(unit, 1000), FreeRuns(unit, 1000)
    for piece in pieces:
        octets = np.packbits(np.array(piece, dtype=bool), bitorder="little")
        by_bitmap.add_bitmap(np.append(octets, np.zeros(3, dtype=np.uint8)), len(piece))
        by_flags.add_flags(~np.array(piece, dtype=bool))
    bits = [used for piece in pieces for used in piece]
    for runs in (by_bitmap, by_flags):
        assert runs.ranges() == plainly(bits, unit, 1000)
        assert runs.free == bits.count(False)
        assert runs.units == len(bits)
        assert not runs.incomplete


def test_too_many_runs_leave_the_short_ones_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_runs, "_RUNS_MAX", 100)
    bits = [number % 2 == 0 for number in range(1000)] + [True] + [False] * 50 + [True] * 5
    runs = FreeRuns(1)
    for start in range(0, len(bits), 104):
        piece = bits[start : start + 104]
        runs.add_bitmap(np.packbits(np.array(piece), bitorder="little"), len(piece))
    assert runs.incomplete
    assert runs.free == bits.count(False)
    assert not len(runs.ranges() - plainly(bits, 1, 0))
    assert len(runs.ranges()) <= 100
    assert runs.ranges().covers(1010, 1040)


def test_a_chequerboard_takes_bounded_memory_and_time() -> None:
    runs = FreeRuns(512)
    piece = np.full(1 << 20, 0x55, dtype=np.uint8)
    begun = time.process_time()
    for _ in range(16):  # of a volume of 64 GiB
        runs.add_bitmap(piece, 8 << 20)
    assert time.process_time() - begun < 5
    assert runs.free == 8 << 23
    assert len(runs.ranges()) <= 2_000_000
    assert runs.incomplete
