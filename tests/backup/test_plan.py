"""Plans against a model that looks at each byte."""

from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.backup.plan import plan_transfer, stripes
from hotspare.block.extent import Extent, ExtentKind

CHUNK = 8


@st.composite
def extent_lists(draw: st.DrawFn) -> tuple[int, list[Extent]]:
    size = draw(st.integers(1, 200))
    extents: list[Extent] = []
    at = 0
    while at < size:
        at += draw(st.integers(0, 30))
        if at >= size:
            break
        length = min(draw(st.integers(1, 40)), size - at)
        extents.append(Extent(at, length, draw(st.sampled_from(ExtentKind))))
        at += length
    return size, extents


@settings(max_examples=500)
@given(extent_lists())
def test_every_touched_chunk_is_read_unless_it_is_all_zero(given_disk: tuple[int, list[Extent]]) -> None:
    size, extents = given_disk
    kinds: list[ExtentKind | None] = [None] * size
    for extent in extents:
        kinds[extent.offset : extent.end] = [extent.kind] * extent.length
    expected = {}
    for chunk in range(-(-size // CHUNK)):
        inside = kinds[chunk * CHUNK : (chunk + 1) * CHUNK]
        if any(kind is not None for kind in inside):
            expected[chunk] = all(kind is ExtentKind.ZERO for kind in inside)

    plan = plan_transfer(extents, size, CHUNK)

    found = {chunk: run.zero for run in plan for chunk in range(run.first, run.first + run.chunks)}
    assert found == expected
    runs = list(plan)
    assert runs == sorted(runs)
    assert plan.chunks_zero == sum(expected.values())
    assert plan.chunks_to_read == len(expected) - sum(expected.values())
    assert plan.bytes_to_process <= size

    pieces = list(stripes(plan, size, CHUNK, 3 * CHUNK))
    assert {c: p.zero for p in pieces for c in range(p.first, p.first + p.chunks)} == expected
    assert all(piece.zero or piece.chunks <= 3 for piece in pieces)
    assert [piece.first for piece in pieces] == sorted(piece.first for piece in pieces)


def test_a_huge_hole_is_one_run() -> None:
    plan = plan_transfer([Extent(0, 1 << 50, ExtentKind.ZERO)], 1 << 50, 1 << 18)

    assert len(plan) == 1
    assert plan.bytes_to_process == 1 << 50
