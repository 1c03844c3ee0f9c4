"""Dirty bitmaps of real QEMU images, and the pairing of runs against a byte-by-byte model."""

from collections.abc import Sequence
from itertools import chain, pairwise, repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.block.extent import Extent, ExtentKind
from hotspare.block.nbd.extents import changed_extents
from hotspare.block.nbd.status import Run, merged, paired, trimmed
from hotspare.block.qemu import QemuNbd, create_image
from hotspare.errors import SourceLost
from hotspare.units import GIB, KIB, MIB
from tests.block.nbd.programs import run

RUNS = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 3)), max_size=12)


def flags_of(runs: Sequence[Run]) -> list[int]:
    return list(chain.from_iterable(repeat(flags, length) for length, flags in runs))


@given(RUNS, RUNS)
def test_pairing_gives_both_flags_of_every_byte(first: list[Run], second: list[Run]) -> None:
    pairs = list(paired(first, second))

    assert all(length > 0 for length, _, _ in pairs)
    model = list(zip(flags_of(first), flags_of(second), strict=False))
    assert [(a, b) for length, a, b in pairs for _ in range(length)] == model


@given(RUNS, st.integers(0, 100), st.integers(0, 100))
def test_trimming_cuts_both_ends(runs: list[Run], skip: int, length: int) -> None:
    assert flags_of(trimmed(runs, skip, length)) == flags_of(runs)[skip : skip + length]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9), st.sampled_from(ExtentKind)), max_size=20))
def test_merging_keeps_every_byte_and_every_gap(parts: list[tuple[int, int, ExtentKind]]) -> None:
    extents, position = [], 0
    for gap, length, kind in parts:
        extents.append(Extent(position + gap, length, kind))
        position += gap + length

    result = list(merged(extents))

    assert _by_byte(result) == _by_byte(extents)
    for before, after in pairwise(result):
        assert before.end < after.offset or (before.end == after.offset and before.kind is not after.kind)


def _by_byte(extents: Sequence[Extent]) -> dict[int, ExtentKind]:
    return {at: extent.kind for extent in extents for at in range(extent.offset, extent.end)}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """5 GiB with data at both ends and a bitmap that has seen later writes, zeroes and trims."""
    path = tmp_path / "disk.qcow2"
    create_image(path, "qcow2", 5 * GIB)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 8M", "-c", "write -P 1 4G 8M", path)
    run("qemu-img", "bitmap", "--add", path, "b0")
    commands = ["write -P 2 1M 64k", "write -z 2M 1M", "discard 4G 1M", "write -P 3 5119M 1M"]
    run("qemu-io", "-f", "qcow2", "-d", "unmap", *chain.from_iterable(("-c", c) for c in commands), path)
    return path


def test_tells_what_changed_and_what_became_zero(image: Path) -> None:
    with QemuNbd(image, "qcow2", bitmap="b0") as server, server.connect() as client:
        assert list(changed_extents(client, "qemu:dirty-bitmap:b0")) == [
            Extent(1 * MIB, 64 * KIB, ExtentKind.DATA),
            Extent(2 * MIB, 1 * MIB, ExtentKind.ZERO),
            Extent(4 * GIB, 1 * MIB, ExtentKind.ZERO),
            Extent(5119 * MIB, 1 * MIB, ExtentKind.DATA),
        ]


def test_many_changes_take_several_answers(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    create_image(path.with_suffix(".qcow2"), "qcow2", 1 * GIB)
    image = path.with_suffix(".qcow2")
    run("qemu-img", "bitmap", "--add", "-g", "4k", image, "b0")
    with QemuNbd(image, "qcow2", read_only=False, cache="unsafe") as server, server.connect() as client:
        written = [n * 12 * KIB for n in range(20_000)]
        for offset in written:
            client.write(offset, b"x" * 4 * KIB)
        client.flush()
    with QemuNbd(image, "qcow2", bitmap="b0") as server, server.connect() as client:
        # The allocation map has clusters of 64 KiB and the bitmap grains of 4 KiB.
        changed = list(changed_extents(client, "qemu:dirty-bitmap:b0"))
    assert [extent.offset for extent in changed] == written
    assert {extent.length for extent in changed} == {4 * KIB}


def test_a_bitmap_that_was_not_negotiated_is_lost(image: Path) -> None:
    with (
        QemuNbd(image, "qcow2") as server,
        server.connect() as client,
        pytest.raises(SourceLost, match="qemu:dirty-bitmap:b0"),
    ):
        changed_extents(client, "qemu:dirty-bitmap:b0")
