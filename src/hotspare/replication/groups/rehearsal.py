"""Trying the failover of a whole group: copies of all machines of one point, in one network of their own."""

import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import msgspec

from hotspare.errors import HotspareError, PointNotFound, UsageError
from hotspare.replication.failover.rehearsal import Copy, copied
from hotspare.replication.failover.report import Report
from hotspare.replication.groups.order import in_order, membership
from hotspare.replication.groups.replicas import points_here
from hotspare.replication.groups.service import group_members
from hotspare.replication.groups.whole import find_point, points_of_all
from hotspare.replication.link.server import Caller
from hotspare.replication.link.wire import LOCAL, Verb
from hotspare.replication.model import Protection

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent


class RehearseGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Start copies of all machines, check them, take them down."""

    group: str
    order: tuple[str, ...] = ()
    point: str = ""
    """Beginning of the id of a point of the group; empty for the newest."""
    checks: dict[str, tuple[str, ...]] = {}
    """By machine: commands for the shell inside, run when all are up."""
    check_seconds: float = 60.0


class GroupRehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """How it went."""

    group: str
    point: str
    seconds: float
    reports: tuple[Report, ...]
    """One for each machine, in the order of their start."""


REHEARSE_GROUP = Verb("group.rehearse", RehearseGroup, GroupRehearsal, LOCAL)


def register_group_rehearsal(agent: "Agent") -> None:
    """Let an agent answer this."""
    agent.services.register(REHEARSE_GROUP, lambda caller, asked, _body: _rehearse(agent, caller, asked))


def _rehearse(agent: "Agent", _caller: Caller, asked: RehearseGroup) -> GroupRehearsal:
    members = in_order(group_members(agent, asked.group), asked.order)
    if any(one.standby != agent.identity.id for one in members):
        raise UsageError(
            f"The replicas of {asked.group} are not all on this host",
            meaning="Nothing was done",
            hint="Run this on the standby",
        )
    checks = {in_order(members, [name])[0].id: commands for name, commands in asked.checks.items()}
    point = _point(agent, asked, members)
    began = time.monotonic()
    copies: list[Copy] = []
    with ExitStack() as stack:
        for one in members:
            network = f"{asked.group}-rehearsal"
            copies.append(stack.enter_context(copied(agent, one, point, network)))
        for one, copy in zip(members, copies, strict=True):
            with suppress(HotspareError):  # its report says it
                _start(one, copy)
        for one, copy in zip(members, copies, strict=True):
            if not copy.report.problem:
                with suppress(HotspareError):
                    _check(one, copy, checks.get(one.id, ()), asked.check_seconds)
    return GroupRehearsal(
        group=asked.group,
        point=point,
        seconds=round(time.monotonic() - began, 3),
        reports=tuple(copy.report for copy in copies),
    )


def _point(agent: "Agent", asked: RehearseGroup, members: list[Protection]) -> str:
    points, needed = points_here(agent), [one.id for one in members]
    whole = points_of_all(asked.group, points, needed)
    if not asked.point and not whole:
        raise PointNotFound(
            f"The group {asked.group} has no point yet",
            meaning="Nothing was done",
            hint='See "hotspare replica group list" on the host that runs its machines',
        )
    return find_point(asked.group, points, asked.point or whole[-1].id, needed).id


def _start(protection: Protection, copy: Copy) -> None:
    place = membership(protection)
    copy.start()
    if place.wait == "agent":
        copy.wait_for_agent(place.wait_seconds)
    time.sleep(place.delay)


def _check(protection: Protection, copy: Copy, checks: tuple[str, ...], seconds: float) -> None:
    place = membership(protection)
    if checks and place.wait != "agent":
        copy.wait_for_agent(place.wait_seconds)
    for check in checks:
        copy.check(check, seconds)
