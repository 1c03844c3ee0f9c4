"""What the standby does for points of a group: prepare them, make them, and say that they count.

Points are made while the source holds all machines still, and are nothing special at first. Only when the
source knows that none of the machines had moved before all of them were made are they marked as one.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from hotspare.errors import HotspareError, MachineNotFound, PermissionRefused, PointNotFound
from hotspare.platforms.replica.record import GroupMark, ReplicaPoint
from hotspare.replication.groups.whole import GroupPoint, half_points, points_of_all, whole_points
from hotspare.replication.link.server import Caller
from hotspare.replication.link.wire import NOTHING, PEER, Nothing, Verb
from hotspare.replication.model import Tenure
from hotspare.replication.standby.replica import Replica
from hotspare.thinning import parse_thinning

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A replica, and who may write to it."""

    protection: str
    tenure: Tenure


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A point of these is about to be made."""

    members: tuple[Member, ...]


class Newest(msgspec.Struct, frozen=True, kw_only=True):
    """What is there."""

    point: str
    """Id of the newest point of any of them; empty when there is none."""


class Make(msgspec.Struct, frozen=True, kw_only=True):
    """Make a point of each, now: all of the machines stand still."""

    members: tuple[Member, ...]
    points: tuple[ReplicaPoint, ...]
    """One for each member, all with the same id."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Points that were made are of one instant."""

    members: tuple[Member, ...]
    point: str
    taken_at: datetime
    mark: GroupMark


class Thin(msgspec.Struct, frozen=True, kw_only=True):
    """Remove points of a group that are not to stay; those that do not count are the machines' own again."""

    members: tuple[Member, ...]
    group: str
    retention: str


class GroupPoints(msgspec.Struct, frozen=True, kw_only=True):
    """Points of a group that count, the oldest first."""

    points: tuple[GroupPoint, ...]


READY = Verb("group.ready", Ready, Newest, PEER)
MAKE = Verb("group.make", Make, Nothing, PEER)
MARK = Verb("group.mark", Mark, Nothing, PEER)
THIN = Verb("group.thin", Thin, GroupPoints, PEER)


def register_replicas(agent: "Agent") -> None:
    """Let an agent answer all of this."""
    service = _Service(agent)
    agent.services.register(READY, service.ready)
    agent.services.register(MAKE, service.make)
    agent.services.register(MARK, service.mark)
    agent.services.register(THIN, service.thin)


def points_here(agent: "Agent") -> dict[str, list[ReplicaPoint]]:
    """Give the points of all replicas that are here, by protection."""
    found = {}
    for protection in agent.protections():
        try:
            found[protection.id] = agent.replica(protection.id).points()
        except MachineNotFound:
            continue
    return found


class _Service:
    def __init__(self, agent: "Agent") -> None:
        self._agent = agent

    def ready(self, caller: Caller, asked: Ready, _body: bytes) -> Newest:
        replicas = self._of(caller, asked.members)
        _each([replica.make_ready for replica in replicas])
        newest = [point.id for replica in replicas for point in replica.points()[-1:]]
        return Newest(point=max(newest, default=""))

    def make(self, caller: Caller, asked: Make, _body: bytes) -> Nothing:
        replicas = self._of(caller, asked.members)

        def maker(replica: Replica, point: ReplicaPoint) -> Callable[[], object]:
            return lambda: replica.make_point(point, of_whole=True)

        _each([maker(replica, point) for replica, point in zip(replicas, asked.points, strict=True)])
        return NOTHING

    def mark(self, caller: Caller, asked: Mark, _body: bytes) -> Nothing:
        replicas = self._of(caller, asked.members)
        for replica in replicas:
            if all(point.id != asked.point for point in replica.points()):
                raise PointNotFound(
                    f"The replica of {replica.machine_name} has lost the point {asked.point}",
                    meaning="There is no such point of the group",
                )
        for replica in replicas:
            replica.mark_point(asked.point, asked.taken_at, asked.mark)
        return NOTHING

    def thin(self, caller: Caller, asked: Thin, _body: bytes) -> GroupPoints:
        replicas = self._of(caller, asked.members)
        points = points_here(self._agent)
        half = half_points(asked.group, points)
        for replica in replicas:
            replica.unmark_points(half)
        whole = {point.id: point.taken_at for point in whole_points(asked.group, points)}
        # What is in use at one member stays at all.
        used = {point for replica in replicas for point in replica.needed_points()}
        dropped = set(parse_thinning(asked.retention).dropped(whole, datetime.now(UTC))) - used
        if dropped:
            _each([_remover(replica, dropped) for replica in replicas])
        members = [member.protection for member in asked.members]
        return GroupPoints(points=tuple(points_of_all(asked.group, points_here(self._agent), members)))

    def _of(self, caller: Caller, members: Sequence[Member]) -> list[Replica]:
        found = []
        for member in members:
            replica = self._agent.replica(member.protection)
            if caller.id != member.tenure.holder:
                raise PermissionRefused(f"{caller.id} does not hold the tenure that it names")
            replica.check_tenure(member.tenure)
            found.append(replica)
        return found


def _remover(replica: Replica, gone: set[str]) -> Callable[[], object]:
    return lambda: replica.remove_points(gone)


def _each(work: Sequence[Callable[[], object]]) -> None:
    """Do all at once, to the end; then raise what one of them has raised."""
    with ThreadPoolExecutor(len(work), thread_name_prefix="group") as threads:
        started = [threads.submit(one) for one in work]
    problems = [problem for one in started if (problem := one.exception()) is not None]
    for problem in problems:
        if not isinstance(problem, HotspareError):
            raise problem
    if problems:
        raise problems[0]
