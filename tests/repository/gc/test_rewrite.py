"""What a prune makes of the index segments."""

from collections.abc import Iterable

from hotspare.repository.codec import RAW
from hotspare.repository.gc.rewrite import Rewrite, plan_rewrite
from hotspare.repository.index import PackRecord, Segment
from hotspare.repository.index.cache import ListedSegment, SegmentListing
from hotspare.repository.index.table import Table
from hotspare.repository.pack import Entry


def pack(number: int) -> PackRecord:
    return PackRecord("data", number.to_bytes(32, "big"), 1000, 1, bytes(32))


def table(*packs: int) -> Table:
    """Give a table with one row in each of these packs."""
    entries = [(at, Entry(number.to_bytes(32, "little"), 64, 10, RAW)) for at, number in enumerate(packs)]
    return Table.of(Segment.of([pack(number) for number in packs], entries))


def listing(replaced: tuple[str, ...] = (), **segments: tuple[str, Table]) -> SegmentListing:
    listed = {name: ListedSegment(rows, (), session) for name, (session, rows) in segments.items()}
    return SegmentListing(listed, replaced, {})


def packs_of(rewrite: Rewrite) -> list[int]:
    records = [record for group in rewrite.tables for part in group for record in part.packs]
    return sorted(int.from_bytes(record.digest, "big") for record in records)


def names(*numbers: int) -> Iterable[str]:
    return {pack(number).name for number in numbers}


def test_only_segments_that_name_a_dropped_pack_are_rewritten() -> None:
    rewrite = plan_rewrite(
        listing(a=("w-1", table(1, 2)), b=("w-2", table(3))), None, frozenset(names(2)), frozenset()
    )
    assert rewrite.replaced == ("a",)
    assert packs_of(rewrite) == [1]


def test_nothing_is_published_where_nothing_is_left() -> None:
    rewrite = plan_rewrite(listing(a=("w-1", table(1))), None, frozenset(names(1)), frozenset())
    assert rewrite == Rewrite([], ("a",))


def test_what_was_copied_is_listed_with_the_rest() -> None:
    rewrite = plan_rewrite(listing(a=("w-1", table(1, 2))), table(9), frozenset(names(1)), frozenset())
    assert packs_of(rewrite) == [2, 9]


def test_segments_of_given_up_sessions_are_taken_over() -> None:
    rewrite = plan_rewrite(listing(a=("w-1", table(1))), None, frozenset(), frozenset({"w-1"}))
    assert rewrite.replaced == ("a",)
    assert packs_of(rewrite) == [1]


def test_what_was_replaced_before_stays_replaced_and_goes_first() -> None:
    rewrite = plan_rewrite(
        listing(("old", "older"), a=("w-1", table(1, 2))), None, frozenset(names(1)), frozenset()
    )
    assert rewrite.replaced == ("old", "older", "a")
