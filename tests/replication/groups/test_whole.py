"""Which points of a group count, after any crash; and that the others go."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hotspare.errors import PointNotFound
from hotspare.platforms.platform import Machine, PowerState
from hotspare.platforms.replica.record import GroupMark, ReplicaPoint
from hotspare.replication.groups.whole import find_point, half_points, points_of_all, whole_points

MEMBERS = ("db", "web", "cache")
MACHINE = Machine(id="uuid", name="web", platform="qemu:///system", state=PowerState.RUNNING)
BEGAN = datetime(2026, 11, 26, tzinfo=UTC)


def point(name: str, mark: GroupMark | None) -> ReplicaPoint:
    taken = BEGAN + timedelta(seconds=int(name[1:]))
    return ReplicaPoint(
        id=name,
        taken_at=taken,
        finished_at=taken,
        consistency="crash",
        machine=MACHINE,
        disks=(),
        group=mark,
    )


def mark(group: str = "shop", members: tuple[str, ...] = MEMBERS, seconds: float = 0.02) -> GroupMark:
    return GroupMark(name=group, members=tuple(sorted(members)), paused_seconds=seconds)


attempts = some.lists(
    some.tuples(some.sets(some.sampled_from(MEMBERS)), some.sets(some.sampled_from(MEMBERS))), max_size=8
)


@given(attempts)
def test_a_point_counts_when_all_members_have_it_marked_and_never_else(
    tried: list[tuple[set[str], set[str]]],
) -> None:
    """Of each attempt some members have the point, and of those some the mark: whatever a crash leaves."""
    points: dict[str, list[ReplicaPoint]] = {member: [] for member in MEMBERS}
    expected = []
    for number, (made, marked) in enumerate(tried):
        for member in sorted(made):
            points[member].append(point(f"p{number}", mark() if member in marked else None))
        if made & marked == set(MEMBERS):
            expected.append(f"p{number}")
    assert [one.id for one in whole_points("shop", points)] == expected
    half = {f"p{number}" for number, (made, marked) in enumerate(tried) if made & marked} - set(expected)
    assert half_points("shop", points) == half


def test_marks_that_differ_are_of_no_one_point() -> None:
    points = {member: [point("p1", mark(seconds=0.01 if member == "db" else 0.02))] for member in MEMBERS}
    assert whole_points("shop", points) == []
    assert half_points("shop", points) == {"p1"}


def test_a_replica_that_is_gone_takes_the_points_with_it() -> None:
    points = {member: [point("p1", mark())] for member in MEMBERS}
    assert [one.members for one in whole_points("shop", points)] == [tuple(sorted(MEMBERS))]
    del points["web"]
    assert whole_points("shop", points) == []


def test_a_point_from_before_a_machine_joined_is_not_of_all() -> None:
    points = {member: [point("p1", mark(members=("db", "web")))] for member in ("db", "web")}
    points["cache"] = []
    assert [one.id for one in points_of_all("shop", points, ["db", "web"])] == ["p1"]
    assert points_of_all("shop", points, MEMBERS) == []


def test_groups_do_not_see_each_others_points() -> None:
    points = {member: [point("p1", mark("other"))] for member in MEMBERS}
    assert whole_points("shop", points) == []
    assert half_points("shop", points) == set()


def test_a_point_is_found_by_the_beginning_of_its_id_and_must_have_all() -> None:
    points = {member: [point("p10", mark()), point("p11", mark())] for member in MEMBERS}
    points["web"][1] = point("p11", None)
    assert find_point("shop", points, "p1", MEMBERS).id == "p10"
    with pytest.raises(PointNotFound, match="p11 is not there at all members"):
        find_point("shop", points, "p11", MEMBERS)
    with pytest.raises(PointNotFound, match="older than the membership of late"):
        find_point("shop", points, "p10", [*MEMBERS, "late"])
    with pytest.raises(PointNotFound, match="no points ''"):
        find_point("shop", points, "", MEMBERS)
