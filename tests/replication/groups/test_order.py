"""Who is in a group, and in which order its machines start."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from hotspare.errors import UsageError
from hotspare.replication.groups.order import in_order, joined, members_of, membership, problem_of, ranked
from hotspare.replication.model import Membership, Mode, Protection

NAMES = ["cache", "db", "queue", "web"]


def protection(name: str, **changes: object) -> Protection:
    made = Protection(
        id=f"id-{name}",
        machine_id=f"uuid-{name}",
        machine=name,
        mode=Mode.SYNC,
        source="source",
        standby="standby",
    )
    changed: Protection = msgspec.structs.replace(made, **changes)
    return changed


def group(*names: str) -> list[Protection]:
    members: list[Protection] = []
    for name in names:
        members.append(joined(protection(name), "shop", members, Membership(name="shop", interval=7.0)))
    return members


@given(some.permutations(NAMES), some.permutations(NAMES), some.integers(0, 4))
def test_those_that_are_named_come_first_and_the_others_as_before(
    before: list[str], named: list[str], count: int
) -> None:
    members = group(*before)
    ordered = in_order(members, named[:count])
    assert [one.machine for one in ordered[:count]] == named[:count]
    rest = [one for one in before if one not in named[:count]]
    assert [one.machine for one in ordered[count:]] == rest
    # What is kept by rank is found again in that order, however the protections come.
    again = members_of("shop", sorted(ranked(ordered), key=lambda one: one.id))
    assert [one.machine for one in again] == [one.machine for one in ordered]


@pytest.mark.parametrize("names", [["db", "db"], ["nobody"]])
def test_only_members_can_be_named_and_once(names: list[str]) -> None:
    with pytest.raises(UsageError, match="named twice, or is no member"):
        in_order(group("db", "web"), names)


def test_who_joins_is_the_last_and_takes_what_is_of_the_group() -> None:
    members = group("db", "web")
    late = joined(protection("cache"), "shop", members, Membership(name="shop", interval=99.0))
    assert (membership(late).rank, membership(late).interval) == (2, 7.0)
    assert joined(members[0], "shop", members, Membership(name="shop")) == members[0]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"mode": Mode.INTERVAL}, "only machines in sync mode"),
        ({"standby": "elsewhere"}, "not the same source and standby"),
        ({"group": Membership(name="other")}, "is in the group other already"),
    ],
)
def test_who_cannot_be_in_a_group_is_told_why(changes: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        joined(protection("web", **changes), "shop", group("db"), Membership(name="shop"))


def test_machines_on_several_hosts_are_no_group_for_the_moment() -> None:
    members = group("db", "web")
    assert problem_of(members) == ""
    moved: Protection = msgspec.structs.replace(members[0], source="standby", standby="source")
    assert "several hosts" in problem_of([moved, members[1]])
