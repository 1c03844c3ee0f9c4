"""Layouts against a byte-by-byte description of where everything lies."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.block.ranges import Ranges
from hotspare.guest.volumes.layouts import Concatenated, Linear, Striped
from hotspare.guest.volumes.volume import Layout
from hotspare.units import GIB, KIB, MIB, TIB

Where = list[tuple[str, int]]


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Layout, Where]:
    """Draw a layout of some segments, and for each of its bytes disk and offset, counted out by hand."""
    places = {"a": 7, "b": 3, "c": 0}
    parts: list[Layout] = []
    where: Where = []
    for _ in range(draw(st.integers(1, 4))):
        stripe, rows = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        disks = draw(st.lists(st.sampled_from(sorted(places)), min_size=1, max_size=3))
        columns: list[Layout] = []
        starts = []
        for disk in disks:
            columns.append(Linear(disk, places[disk], stripe * rows))
            starts.append(places[disk])
            places[disk] += stripe * rows + draw(st.integers(0, 3))
        parts.append(Striped(columns, stripe))
        for row in range(rows):
            for disk, start in zip(disks, starts, strict=True):
                where += [(disk, start + row * stripe + byte) for byte in range(stripe)]
    return (parts[0] if len(parts) == 1 else Concatenated(parts)), where


def members(sets: dict[str, Ranges]) -> set[tuple[str, int]]:
    return {
        (disk, byte) for disk, found in sets.items() for start, end in found for byte in range(start, end)
    }


@settings(max_examples=100)
@given(layouts(), st.integers(0, 60), st.integers(0, 60))
def test_places_are_in_the_order_of_the_volume(drawn: tuple[Layout, Where], offset: int, length: int) -> None:
    layout, where = drawn

    found = [
        (place.disk, place.offset + byte)
        for place in layout.places(offset, length)
        for byte in range(place.length)
    ]

    assert layout.size == len(where)
    assert layout.disks == {disk for disk, _ in where}
    assert found == where[offset : offset + length]


@settings(max_examples=100)
@given(layouts(), st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70)), max_size=6))
def test_sets_are_translated_byte_by_byte(drawn: tuple[Layout, Where], pairs: list[tuple[int, int]]) -> None:
    layout, where = drawn
    bytes_of_volume = {byte for start, end in pairs for byte in range(start, end)}

    found = layout.on_disks(Ranges.of(pairs))

    assert members(found) == {where[byte] for byte in bytes_of_volume if byte < len(where)}
    for ranges in found.values():
        assert (np.diff(ranges.bounds.reshape(-1)) > 0).all(), "ranges touch or overlap"


def test_nothing_beyond_the_end_is_translated() -> None:
    """A map that is wrong about the size must not reach the neighbour."""
    linear = Linear("a", 100, 10)
    striped = Striped([Linear("a", 100, 10), Linear("b", 200, 10)], 5)
    both = Concatenated([linear, Linear("b", 0, 10)])
    everything = Ranges.of([(-50, 1000)])

    assert linear.on_disks(everything) == {"a": Ranges.of([(100, 110)])}
    assert striped.on_disks(everything) == {"a": Ranges.of([(100, 110)]), "b": Ranges.of([(200, 210)])}
    assert both.on_disks(everything) == {"a": Ranges.of([(100, 110)]), "b": Ranges.of([(0, 10)])}


def test_columns_must_fit() -> None:
    with pytest.raises(ValueError, match="differ"):
        Striped([Linear("a", 0, 8), Linear("b", 0, 12)], 4)
    with pytest.raises(ValueError, match="end with a stripe"):
        Striped([Linear("a", 0, 6), Linear("b", 0, 6)], 4)


def test_a_terabyte_in_stripes_costs_no_more_than_its_ranges() -> None:
    layout = Striped([Linear(disk, 1 * MIB, 256 * GIB) for disk in "abcd"], 4 * KIB)
    starts = np.arange(500_000, dtype=np.int64) * MIB
    scattered = Ranges(np.column_stack((starts, starts + 100 * KIB)))

    begun = time.process_time()
    whole = layout.on_disks(Ranges.whole(1 * TIB))
    parts = layout.on_disks(scattered)
    first = next(layout.places(0, 1 * TIB))
    took = time.process_time() - begun

    assert whole == {disk: Ranges.of([(1 * MIB, 256 * GIB + 1 * MIB)]) for disk in "abcd"}
    assert sum(found.total for found in parts.values()) == scattered.total
    assert first.length == 4 * KIB
    assert took < 10
