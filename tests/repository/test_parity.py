"""Parity objects: what they repair, up to where, and that they never give wrong bytes."""

import itertools
import random

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.errors import RepositoryDamaged
from hotspare.repository.format import PARITY_MAX
from hotspare.repository.parity import (
    GROUP_MAX,
    SECTOR_MAX,
    Layout,
    Parity,
    build_parity,
    damaged_parity,
    lost_sectors,
    read_parity,
    rebuild,
)
from hotspare.units import MIB


def parity_of(data: bytes, parity: int = 4) -> bytes:
    return b"".join(map(bytes, build_parity(memoryview(data), blake3(data).digest(), parity)))


def read(data: bytes) -> Parity:
    return read_parity("parity/x", data)


def hurt(data: bytes, sectors: list[int], size: int) -> bytes:
    """Flip one bit in each of the sectors."""
    hurt = bytearray(data)
    for number in sectors:
        hurt[min(number * size + 7, len(data) - 1)] ^= 0x10
    return bytes(hurt)


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 300_000),
    parity=st.integers(1, PARITY_MAX),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_as_many_sectors_of_a_group_as_it_has_parity_are_repaired_and_no_more(
    size: int, parity: int, seed: int, data: st.DataObject
) -> None:
    pack = random.Random(seed).randbytes(size)
    layout = Layout.of(size, parity)
    known = read(parity_of(pack, parity))
    members = list(layout.members(data.draw(st.integers(0, layout.groups - 1))))
    order = random.Random(seed).sample(members, len(members))
    bad = order[:parity]
    damaged = hurt(pack, bad, layout.sector_size)
    assert lost_sectors(known, memoryview(damaged)) == sorted(bad)
    assert rebuild(known, memoryview(damaged)) == pack
    if len(members) > parity:
        worse = hurt(pack, order[: parity + 1], layout.sector_size)
        assert rebuild(known, memoryview(worse)) is None


def test_a_run_of_neighbours_is_shared_by_all_groups() -> None:
    pack = random.Random(1).randbytes(20 * MIB)
    layout = Layout.of(len(pack), 4)
    assert layout.groups == 4
    known = read(parity_of(pack))
    hole = 4 * layout.groups
    for first in (0, 17, layout.sectors - hole):
        damaged = bytearray(pack)
        damaged[first * SECTOR_MAX : (first + hole) * SECTOR_MAX] = bytes(
            len(damaged[first * SECTOR_MAX : (first + hole) * SECTOR_MAX])
        )
        assert rebuild(known, memoryview(bytes(damaged))) == pack


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_a_pack_that_was_cut_short_is_repaired_when_little_is_missing(keep: int) -> None:
    pack = random.Random(1).randbytes(MIB)
    layout = Layout.of(len(pack), 4)
    known = read(parity_of(pack))
    assert rebuild(known, memoryview(pack[: -4 * layout.sector_size + keep])) == pack
    assert rebuild(known, memoryview(pack[: -5 * layout.sector_size])) is None
    assert rebuild(known, memoryview(pack + b"more than was written")) == pack


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 10**6), flip=st.integers(1, 255), lost=st.integers(0, 3))
def test_damage_to_the_parity_itself_is_known_and_worked_around(at: int, flip: int, lost: int) -> None:
    pack = random.Random(2).randbytes(40_000)
    stored = bytearray(parity_of(pack))
    stored[at % len(stored)] ^= flip
    known = read(bytes(stored))  # one of the two heads is whole
    assert damaged_parity(known) <= 1
    layout = known.layout
    bad = random.Random(at).sample(range(layout.sectors), lost)
    assert rebuild(known, memoryview(hurt(pack, bad, layout.sector_size))) == pack


def test_without_a_head_there_is_a_typed_error() -> None:
    stored = bytearray(parity_of(random.Random(2).randbytes(5000)))
    stored[20] ^= 1
    stored[-20] ^= 1
    with pytest.raises(RepositoryDamaged, match="not what was written"):
        read(bytes(stored))


@settings(max_examples=300, deadline=None)
@given(junk=st.binary(max_size=600), keep=st.integers(0, 2000))
def test_junk_is_refused_with_a_typed_error(junk: bytes, keep: int) -> None:
    stored = parity_of(bytes(1000))
    for data in (junk, stored[:keep] + junk):
        try:
            known = read(data)
        except RepositoryDamaged:
            continue
        assert known.digest == blake3(bytes(1000)).digest()


@pytest.mark.parametrize("size", [1, 511, 5000, 60_000, MIB, 5 * MIB, 33 * MIB])
def test_parity_costs_what_was_asked_for(size: int) -> None:
    """Four sectors to every hundred; somewhat more for small packs, which have fewer sectors."""
    layout = Layout.of(size, 4)
    share = layout.groups * layout.parity * layout.sector_size / size
    assert share <= (0.06 if size >= 5 * MIB else 0.09 if size >= 60_000 else 2048 / size)
    assert all(len(layout.members(group)) <= GROUP_MAX for group in range(layout.groups))


def test_the_code_is_the_one_that_the_specification_describes() -> None:
    """Parity sector j of k data sectors is the polynomial through them, at the point after theirs."""
    powers = [1]
    while len(powers) < 255:
        doubled = powers[-1] << 1
        powers.append(doubled ^ 0x11D if doubled & 256 else doubled)
    logs = {power: exponent for exponent, power in enumerate(powers)}

    def times(left: int, right: int) -> int:
        return powers[(logs[left] + logs[right]) % 255] if left and right else 0

    def over(left: int, right: int) -> int:
        return powers[(logs[left] - logs[right]) % 255] if left else 0

    pack = random.Random(3).randbytes(10 * 512)
    known = read(parity_of(pack, 3))
    points = [0, *powers]
    sectors = [pack[at : at + 512] for at in range(0, len(pack), 512)]
    for made, byte in itertools.product(range(3), (0, 1, 500)):
        x = points[len(sectors) + made]
        value = 0
        for i, sector in enumerate(sectors):
            term = sector[byte]
            for j in range(len(sectors)):
                if i != j:
                    term = times(term, over(x ^ points[j], points[i] ^ points[j]))
            value ^= term
        assert known.sectors[made][byte] == value
