"""Which points of a group count: those that all of its members have. Pure.

A point of a group is one of each member, all with one id and one mark. Marks are put on one after the other,
so after a crash in the midst some members have it, and others not: then it does not count for any.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import msgspec

from hotspare.errors import PointNotFound
from hotspare.platforms.replica.record import ReplicaPoint


class GroupPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A group at one instant."""

    id: str
    """The same at each member."""
    group: str
    taken_at: datetime
    members: tuple[str, ...]
    """Ids of the protections."""
    paused_seconds: float
    """For how long the machines stood still for it."""


Points = Mapping[str, Sequence[ReplicaPoint]]
"""The points of each replica, by the id of its protection."""


def whole_points(group: str, points: Points) -> list[GroupPoint]:
    """Give the points of a group that count, the oldest first."""
    marks: dict[str, dict[str, ReplicaPoint]] = {}
    for protection, of_one in points.items():
        for point in of_one:
            if point.group is not None and point.group.name == group:
                marks.setdefault(point.id, {})[protection] = point
    found = []
    for name, by_member in sorted(marks.items()):
        first = next(iter(by_member.values()))
        mark = first.group
        if mark is None or set(by_member) != set(mark.members):
            continue
        if any(point.group != mark for point in by_member.values()):
            continue
        found.append(
            GroupPoint(
                id=name,
                group=group,
                taken_at=first.taken_at,
                members=mark.members,
                paused_seconds=mark.paused_seconds,
            )
        )
    return found


def points_of_all(group: str, points: Points, needed: Collection[str]) -> list[GroupPoint]:
    """Give the points of a group that count and that have all of some protections in them."""
    return [point for point in whole_points(group, points) if set(needed) <= set(point.members)]


def half_points(group: str, points: Points) -> set[str]:
    """Give the ids of points that are marked at some members and do not count."""
    marked = {
        point.id
        for of_one in points.values()
        for point in of_one
        if point.group is not None and point.group.name == group
    }
    return marked - {point.id for point in whole_points(group, points)}


def find_point(group: str, points: Points, name: str, needed: Sequence[str]) -> GroupPoint:
    """Find a point that counts by the beginning of its id.

    Args:
        group: its name.
        points: of all replicas that are here.
        name: beginning of the id.
        needed: ids of the protections that have to be in it.

    Raises:
        PointNotFound: there is none or several, or a machine is not in it.
    """
    found = [point for point in whole_points(group, points) if name and point.id.startswith(name)]
    if len(found) != 1:
        half = sorted(one for one in half_points(group, points) if name and one.startswith(name))
        raise PointNotFound(
            f"The group {group} has {len(found) or 'no'} points {name!r}"
            + (f"; {', '.join(half)} is not there at all members, so it does not count" if half else ""),
            meaning="Nothing was done",
            hint=f'See "hotspare replica group points {group}"',
        )
    if missing := sorted(set(needed) - set(found[0].members)):
        raise PointNotFound(
            f"The point {found[0].id} is older than the membership of {', '.join(missing)}",
            meaning="Nothing was done",
            hint="Choose a later point, or let those machines leave the group",
        )
    return found[0]
