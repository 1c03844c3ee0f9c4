"""What an agent can be asked about groups: who is in them, and which points they have."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from hotspare.errors import MachineNotFound, UsageError
from hotspare.replication.groups.hold import Holder
from hotspare.replication.groups.maker import GroupKeeper
from hotspare.replication.groups.order import (
    changed,
    in_order,
    joined,
    members_of,
    membership,
    problem_of,
    ranked,
)
from hotspare.replication.groups.replicas import GroupPoints, points_here
from hotspare.replication.groups.whole import points_of_all
from hotspare.replication.link.server import Caller
from hotspare.replication.link.wire import LOCAL, Nothing, Verb
from hotspare.replication.model import Membership, Protection
from hotspare.thinning import parse_thinning

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent

_SHORTEST_SECONDS = 1.0


class SetGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Make a group, or change it; what is not named stays as it is. Machines by name or id."""

    name: str
    machines: tuple[str, ...] = ()
    """To be members as well."""
    order: tuple[str, ...] = ()
    """Of the start; those that are not named come after, as before."""
    interval: float | None = None
    retention: str | None = None
    pause_limit: float | None = None
    wait: dict[str, Literal["agent", "start"]] = {}
    wait_seconds: dict[str, float] = {}
    delay: dict[str, float] = {}


class Leave(msgspec.Struct, frozen=True, kw_only=True):
    """Let a machine be in no group any more."""

    machine: str


class NamedGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Names a group."""

    group: str


class GroupStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How it goes with one group."""

    name: str
    members: tuple[Protection, ...]
    """In the order of their start."""
    here: bool
    """Whether its machines run on this host."""
    points: int
    """How many there are that count."""
    newest_point: str
    paused_seconds: float | None
    """For how long its machines stood still for the newest point; None without one."""
    longest_pause: float | None
    """Of all attempts since the agent was started; None where that is not known."""
    problem: str
    """Why there was no point last time; empty when there was, and where that is not known."""


SET = Verb("group.set", SetGroup, GroupStatus, LOCAL)
LEAVE = Verb("group.leave", Leave, Protection, LOCAL)
LIST = Verb("group.list", Nothing, list[GroupStatus], LOCAL)
POINTS = Verb("group.points", NamedGroup, GroupPoints, LOCAL)


def register_groups(agent: "Agent", keeper: GroupKeeper) -> None:
    """Let an agent answer all of this."""
    service = _Service(agent, keeper)
    agent.services.register(SET, service.set)
    agent.services.register(LEAVE, service.leave)
    agent.services.register(LIST, service.groups)
    agent.services.register(POINTS, service.points)


def group_members(agent: "Agent", name: str) -> list[Protection]:
    """Give the members of a group that this host knows, in order. Raises ``MachineNotFound``."""
    members = members_of(name, agent.protections())
    if not members:
        raise MachineNotFound(
            f"No machine of a group {name!r} is protected here, and no replica of one kept",
            meaning="Nothing was done",
            hint='See "hotspare replica group list"',
        )
    return members


class _Service:
    def __init__(self, agent: "Agent", keeper: GroupKeeper) -> None:
        self._agent = agent
        self._keeper = keeper

    def set(self, _caller: Caller, asked: SetGroup, _body: bytes) -> GroupStatus:
        _refuse_nonsense(asked)
        before = {one.id: one for one in self._agent.protections()}
        members = members_of(asked.name, list(before.values()))
        for name in asked.machines:
            protection = self._agent.protection(name)
            now = joined(protection, asked.name, members, Membership(name=asked.name))
            members = [*(one for one in members if one.id != now.id), now]
        if not members:
            group_members(self._agent, asked.name)
        self._refuse_elsewhere(asked.name, members)
        for one in _placed(asked, members):
            if one != before[one.id]:
                self._agent.keep(one)
        return self._status(asked.name, group_members(self._agent, asked.name))

    def _refuse_elsewhere(self, name: str, members: list[Protection]) -> None:
        if any(one.source != self._agent.identity.id for one in members):
            raise UsageError(
                f"The machines of the group {name} do not all run on this host",
                meaning="Nothing was changed",
                hint="Run this on the host that runs them",
            )

    def leave(self, _caller: Caller, asked: Leave, _body: bytes) -> Protection:
        protection = self._agent.protection(asked.machine)
        self._refuse_elsewhere(membership(protection).name, [protection])
        alone: Protection = msgspec.structs.replace(protection, group=None)
        self._agent.keep(alone)
        Holder(self._agent, alone).end()
        return alone

    def groups(self, _caller: Caller, _asked: Nothing, _body: bytes) -> list[GroupStatus]:
        protections = self._agent.protections()
        names = sorted({one.group.name for one in protections if one.group is not None})
        return [self._status(name, members_of(name, protections)) for name in names]

    def points(self, _caller: Caller, asked: NamedGroup, _body: bytes) -> GroupPoints:
        needed = [one.id for one in group_members(self._agent, asked.group)]
        return GroupPoints(points=tuple(points_of_all(asked.group, points_here(self._agent), needed)))

    def _status(self, name: str, members: list[Protection]) -> GroupStatus:
        state = self._keeper.state(name)
        if any(one.source == self._agent.identity.id for one in members):
            return GroupStatus(
                name=name,
                members=tuple(members),
                here=True,
                points=state.points if state else 0,
                newest_point=state.newest if state else "",
                paused_seconds=state.paused_seconds if state and state.newest else None,
                longest_pause=state.longest_pause if state else None,
                problem=problem_of(members) or (state.problem if state else "it has just been made"),
            )
        whole = points_of_all(name, points_here(self._agent), [one.id for one in members])
        return GroupStatus(
            name=name,
            members=tuple(members),
            here=False,
            points=len(whole),
            newest_point=whole[-1].id if whole else "",
            paused_seconds=whole[-1].paused_seconds if whole else None,
            longest_pause=None,
            problem=problem_of(members),
        )


def _refuse_nonsense(asked: SetGroup) -> None:
    if asked.retention is not None:
        parse_thinning(asked.retention)
    if asked.interval is not None and asked.interval < _SHORTEST_SECONDS:
        raise UsageError("A second is the shortest interval of a group", meaning="Nothing was changed")
    if asked.pause_limit is not None and not 0 < asked.pause_limit <= _SHORTEST_SECONDS * 2:
        raise UsageError(
            "The machines of a group may stand still for up to two seconds", meaning="Nothing was changed"
        )


def _placed(asked: SetGroup, members: list[Protection]) -> list[Protection]:
    """Give all members as they are to be. Raises ``UsageError``: one that is named is no member."""
    common = {
        name: value
        for name, value in (
            ("interval", asked.interval),
            ("retention", asked.retention),
            ("pause_limit", asked.pause_limit),
        )
        if value is not None
    }
    placed = [changed(one, common) for one in members]
    if asked.order:
        placed = ranked(in_order(placed, asked.order))
    own: tuple[tuple[str, Mapping[str, object]], ...] = (
        ("wait", asked.wait),
        ("wait_seconds", asked.wait_seconds),
        ("delay", asked.delay),
    )
    for what, named in own:
        for machine, value in named.items():
            (chosen, *_) = in_order(placed, [machine])
            placed = [changed(one, {what: value}) if one.id == chosen.id else one for one in placed]
    return placed
