"""Sets of bytes against Python's own sets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hotspare.block.ranges import NOTHING, Ranges

SIZE = 60
pairs = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=12)


def members(ranges: Ranges) -> set[int]:
    return {byte for start, end in ranges for byte in range(start, end)}


def made_of(pairs: list[tuple[int, int]]) -> set[int]:
    return {byte for start, end in pairs for byte in range(start, end)}


def is_normal(ranges: Ranges) -> bool:
    edges = ranges.bounds.reshape(-1)
    return bool((np.diff(edges) > 0).all())


@given(pairs, pairs)
def test_operations_are_those_of_sets(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    a, b = Ranges.of(one), Ranges.of(other)
    left, right = made_of(one), made_of(other)

    results = {
        "of": (a, left),
        "or": (a | b, left | right),
        "and": (a & b, left & right),
        "sub": (a - b, left - right),
        "complement": (a.complement(SIZE), set(range(SIZE)) - left),
        "union": (Ranges.union([a, b, a]), left | right),
    }

    assert {name: members(found) for name, (found, _) in results.items()} == {
        name: expected for name, (_, expected) in results.items()
    }
    assert all(is_normal(found) for found, _ in results.values())
    assert a.total == len(left)


@given(pairs, st.integers(0, SIZE), st.integers(0, SIZE))
def test_parts(ranges: list[tuple[int, int]], start: int, end: int) -> None:
    found = Ranges.of(ranges)

    assert members(found.within(start, end)) == made_of(ranges) & set(range(start, end))
    assert is_normal(found.within(start, end))
    assert found.covers(start, end) == (set(range(start, end)) <= made_of(ranges))


@given(pairs, st.integers(1, 16))
def test_whole_units(ranges: list[tuple[int, int]], unit: int) -> None:
    found = Ranges.of(ranges)
    units = {
        byte
        for byte in members(found)
        if set(range(byte // unit * unit, (byte // unit + 1) * unit)) <= members(found)
    }

    assert members(found.aligned_inside(unit)) == units


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 8), st.integers(0, 100))
def test_bits(bits: list[bool], unit: int, start: int) -> None:
    expected = {start + at * unit + byte for at, bit in enumerate(bits) if bit for byte in range(unit)}

    assert members(Ranges.of_bits(np.array(bits, dtype=bool), unit, start)) == expected


@given(pairs, st.integers(0, 5))
def test_the_longest_are_kept(ranges: list[tuple[int, int]], count: int) -> None:
    found = Ranges.of(ranges)
    lengths = sorted((end - start for start, end in found), reverse=True)

    kept = found.largest(count)

    assert sorted((end - start for start, end in kept), reverse=True) == lengths[:count]
    assert members(kept) <= members(found)
    assert is_normal(kept)


def test_nothing() -> None:
    assert list(NOTHING) == []
    assert NOTHING.total == 0
    assert NOTHING | Ranges.whole(4) == Ranges.whole(4)
    assert Ranges.whole(4).moved(3) == Ranges.of([(3, 7)])
    assert not NOTHING.covers(0, 1)


def test_millions_are_quick() -> None:
    starts = np.arange(0, 8_000_000, 8, dtype=np.int64)
    many = Ranges(np.column_stack((starts, starts + 4)))

    assert (many & many.moved(2)).total == 2 * len(starts)


def test_equal_sets_are_one_key() -> None:
    assert {Ranges.of([(0, 2), (2, 4)]), Ranges.whole(4), NOTHING} == {Ranges.whole(4), NOTHING}
