"""Which packs a prune chooses."""

from hotspare.repository.format import DATA, META
from hotspare.repository.gc.condemn import Choice, Usage, choose
from hotspare.repository.index import PackRecord

TARGET = 1000


def usage(number: int, needed: int, waste: int, kind: str = DATA) -> Usage:
    digest = number.to_bytes(32, "big")
    size = needed + waste
    return Usage(PackRecord(kind, digest, size, 1, bytes(32)), size, needed, waste)


def numbers(usages: list[Usage]) -> list[int]:
    return sorted(int.from_bytes(one.record.digest, "big") for one in usages)


def chosen(choice: Choice) -> tuple[list[int], list[int], int]:
    return numbers(choice.unused), numbers(choice.repacked), choice.waste_left


def test_what_nobody_needs_goes_whatever_waste_may_stay() -> None:
    usages = [usage(1, 0, 900), usage(2, 900, 100)]
    assert chosen(choose(usages, 100, TARGET)) == ([1], [], 100)


def test_the_most_wasteful_are_repacked_until_little_enough_is_left() -> None:
    usages = [usage(1, 900, 100), usage(2, 100, 900), usage(3, 500, 500), usage(4, 1000, 0)]
    assert chosen(choose(usages, 0, TARGET)) == ([], [1, 2, 3], 0)
    assert chosen(choose(usages, 10, TARGET)) == ([], [2, 3], 100)
    assert chosen(choose(usages, 16, TARGET)) == ([], [2], 600)
    assert chosen(choose(usages, 40, TARGET)) == ([], [], 1500)


def test_no_waste_is_nothing_to_do() -> None:
    assert chosen(choose([usage(number, 1000, 0) for number in range(9)], 0, TARGET)) == ([], [], 0)
    assert chosen(choose([], 0, TARGET)) == ([], [], 0)


def test_many_small_packs_of_a_kind_are_put_together() -> None:
    small = [usage(number, 100, 0) for number in range(8)]
    assert chosen(choose(small, 100, TARGET)) == ([], list(range(8)), 0)
    assert chosen(choose(small[:7], 100, TARGET)) == ([], [], 0)
    mixed = [*small[:4], *(usage(number, 100, 0, META) for number in range(4, 8))]
    assert chosen(choose(mixed, 100, TARGET)) == ([], [], 0)


def test_small_packs_stay_where_they_would_hardly_become_fewer() -> None:
    almost_large = [usage(number, TARGET // 4 - 1, 0) for number in range(9)]
    assert chosen(choose(almost_large, 100, TARGET)) == ([], [], 0)
