"""Bringing up a whole group on its standby, one machine after the other, and home again.

Each machine is moved as it would be alone, by the same leases; what is added is the order, and one point for
all. Planned, all are shut down first, the last of the order first, so that none runs without what it needs.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from hotspare.errors import HotspareError, PermissionRefused, UsageError
from hotspare.replication.failover import machine as machines
from hotspare.replication.failover.active import read_active
from hotspare.replication.failover.report import Report
from hotspare.replication.failover.service import FAILOVER, LEASE_STATUS, REPROTECT, Failover
from hotspare.replication.groups.order import in_order, membership, problem_of
from hotspare.replication.groups.replicas import points_here
from hotspare.replication.groups.service import NamedGroup, group_members
from hotspare.replication.groups.whole import find_point
from hotspare.replication.link.server import Caller
from hotspare.replication.link.wire import LOCAL, NOTHING, PEER, Nothing, Verb
from hotspare.replication.model import NamedProtection, Protection

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent

_AROUND_SECONDS = 60.0


class FailGroupOver(msgspec.Struct, frozen=True, kw_only=True):
    """Bring up a group on its standby; see ``failover.service.Failover``."""

    group: str
    order: tuple[str, ...] = ()
    """Of this time; machines that are not named come after, in the group's order."""
    point: str = ""
    """Beginning of the id of a point of the group; empty for all that each replica has."""
    planned: bool = False
    force: bool = False
    dry_run: bool = False
    shutdown_seconds: float = 120.0


class ShutDown(msgspec.Struct, frozen=True, kw_only=True):
    """Shut a machine down where it runs; it is handed over later."""

    protection: str
    seconds: float


class Outcome(msgspec.Struct, kw_only=True):
    """What became of one machine."""

    machine: str
    protection: str
    moved: bool = False
    """Whether it was started on this host: now, or before by the same command."""
    report: Report | None = None
    answered: bool | None = None
    """Whether its guest agent has answered; None where nobody waited for it."""
    error: str = ""
    """Why it was not moved; empty when it was."""


class GroupReport(msgspec.Struct, kw_only=True):
    """What became of all."""

    group: str
    point: str
    """Empty for all that each replica had."""
    began: float
    """Seconds since 1970."""
    seconds: float = 0.0
    machines: list[Outcome] = []
    """In the order of their start."""
    warnings: list[str] = []

    @property
    def failed(self) -> list[Outcome]:
        """Those that were not moved."""
        return [one for one in self.machines if one.error]


class GroupTurned(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each machine that was to be protected in the other direction."""

    machines: tuple[Outcome, ...]


FAIL_OVER = Verb("group.failover", FailGroupOver, GroupReport, LOCAL)
REPROTECT_GROUP = Verb("group.reprotect", NamedGroup, GroupTurned, LOCAL)
SHUT_DOWN = Verb("group.shut-down", ShutDown, Nothing, PEER)
START_AGAIN = Verb("group.start-again", NamedProtection, Nothing, PEER)


def register_group_failover(agent: "Agent") -> None:
    """Let an agent answer all of this."""
    service = _Service(agent)
    agent.services.register(FAIL_OVER, service.fail_over)
    agent.services.register(REPROTECT_GROUP, service.reprotect)
    agent.services.register(SHUT_DOWN, service.shut_down)
    agent.services.register(START_AGAIN, service.start_again)


class _Service:
    def __init__(self, agent: "Agent") -> None:
        self._agent = agent

    def fail_over(self, _caller: Caller, asked: FailGroupOver, _body: bytes) -> GroupReport:
        """Move all, or say which were. Raises when none was moved."""
        members = in_order(group_members(self._agent, asked.group), asked.order)
        if asked.planned and asked.point:
            raise UsageError("--planned and --point exclude each other", meaning="Nothing was done")
        point = self._point(asked, members)
        report = GroupReport(group=asked.group, point=point, began=time.time())
        here = [one for one in members if self._is_here(one)]
        left = [one for one in members if one not in here]
        if not left:
            raise UsageError(
                f"All machines of {asked.group} were taken over by this host already",
                meaning="Nothing was done",
            )
        self._refuse_mixture(here, point)
        # Whoever refuses at all does so before any machine was touched.
        tried = {one.id: self._ask(one, asked, point, dry_run=True) for one in left}
        report.warnings += _warnings(members, tried, asked)
        for one in members:
            outcome = Outcome(machine=one.machine, protection=one.id, moved=one in here)
            outcome.report = tried.get(one.id)
            report.machines.append(outcome)
        if not asked.dry_run:
            if asked.planned:
                self._shut_all_down(left, asked.shutdown_seconds)
            self._move(left, asked, report)
        report.seconds = round(time.time() - report.began, 3)
        return report

    def _point(self, asked: FailGroupOver, members: Sequence[Protection]) -> str:
        if not asked.point:
            return ""
        needed = [one.id for one in members]
        return find_point(asked.group, points_here(self._agent), asked.point, needed).id

    def _is_here(self, protection: Protection) -> bool:
        status = self._agent.services.ask(LEASE_STATUS, NamedProtection(protection=protection.id))
        return status.holder == status.me and protection.standby == status.me

    def _refuse_mixture(self, here: Sequence[Protection], point: str) -> None:
        for one in here:
            active = read_active(self._agent.folder_of(one.id))
            began_with = "" if active is None or active.newest else active.point
            if began_with != point:
                raise UsageError(
                    f"{one.machine} runs here already, from another state than this",
                    meaning="Nothing was done: the machines would be of different instants",
                    hint=f'Use "--point {began_with}"' if began_with else "Leave out --point",
                )

    def _ask(self, protection: Protection, asked: FailGroupOver, point: str, *, dry_run: bool) -> Report:
        one = Failover(
            protection=protection.id,
            point=point,
            planned=asked.planned,
            force=asked.force,
            dry_run=dry_run,
            shutdown_seconds=asked.shutdown_seconds,
        )
        return self._agent.services.ask(FAILOVER, one)

    def _move(self, left: Sequence[Protection], asked: FailGroupOver, report: GroupReport) -> None:
        """Move one after the other. Planned, the first that fails ends it; else those after it go on.

        Raises:
            HotspareError: none was moved.
        """
        outcomes = {one.protection: one for one in report.machines}
        first: HotspareError | None = None
        for number, protection in enumerate(left):
            outcome = outcomes[protection.id]
            try:
                outcome.report = self._ask(protection, asked, report.point, dry_run=False)
            except HotspareError as error:
                first = first or error
                outcome.report, outcome.error = None, str(error)
                if asked.planned:
                    self._stay(left[number + 1 :], outcomes, report)
                    break
                continue
            outcome.moved = True
            self._wait(protection, outcome, report, is_last=number + 1 == len(left))
        if first is not None and not any(one.moved for one in report.machines):
            first.what = "; ".join([first.what, *report.warnings])
            raise first

    def _wait(self, protection: Protection, outcome: Outcome, report: GroupReport, *, is_last: bool) -> None:
        place = membership(protection)
        if place.wait == "agent":
            domain = machines.find(protection.platform, protection.machine_id)
            outcome.answered = machines.wait_for_agent(domain, place.wait_seconds)
            if not outcome.answered:
                report.warnings.append(f"{protection.machine}: its agent has not answered")
        if not is_last:
            time.sleep(place.delay)

    def _shut_all_down(self, members: Sequence[Protection], seconds: float) -> None:
        """Shut all down, the last first. Raises ``HotspareError``; then those that were go on at home."""
        down: list[Protection] = []
        with self._agent.client(members[0].source) as client:
            for one in reversed(members):
                try:
                    ask = ShutDown(protection=one.id, seconds=seconds)
                    client.call(SHUT_DOWN, ask, timeout=seconds + _AROUND_SECONDS)
                except HotspareError as error:
                    problems = [problem for late in reversed(down) if (problem := self._start_again(late))]
                    if problems:
                        error.what += f"; {'; '.join(problems)}"
                    raise
                down.append(one)

    def _stay(self, members: Sequence[Protection], outcomes: dict[str, Outcome], report: GroupReport) -> None:
        """Let machines that were shut down, and are not moved any more, go on at home."""
        for one in members:
            outcomes[one.id].report = None
            outcomes[one.id].error = "one before it was not moved, so it stays where it was"
            if problem := self._start_again(one):
                report.warnings.append(problem)

    def _start_again(self, protection: Protection) -> str:
        """Give why it could not be started at home; empty when it was."""
        try:
            with self._agent.client(protection.source) as client:
                client.call(START_AGAIN, NamedProtection(protection=protection.id))
        except HotspareError as error:
            return f"{protection.machine} is off, and could not be started again on its host: {error}"
        return ""

    # What is asked of the host that runs them

    def shut_down(self, caller: Caller, asked: ShutDown, _body: bytes) -> Nothing:
        protection = self._mine(caller, asked.protection)
        domain = machines.find(protection.platform, protection.machine_id)
        machines.shut_down(domain, asked.seconds)
        return NOTHING

    def start_again(self, caller: Caller, asked: NamedProtection, _body: bytes) -> Nothing:
        protection = self._mine(caller, asked.protection)
        if not self._agent.keeper_for(protection).may_start():
            raise HotspareError(
                f"This host may not run {protection.machine} at the moment",
                meaning="It stays off: a machine must never run twice",
                hint='See "hotspare replica lease"',
            )
        machines.start(machines.find(protection.platform, protection.machine_id))
        return NOTHING

    def _mine(self, caller: Caller, name: str) -> Protection:
        protection = self._agent.protection(name)
        if caller.id != protection.standby or protection.source != self._agent.identity.id:
            raise PermissionRefused(
                f"{caller.id} is not the standby of {protection.machine}, or this host not its source",
                meaning="Nothing was done",
            )
        return protection

    # The other direction

    def reprotect(self, _caller: Caller, asked: NamedGroup, _body: bytes) -> GroupTurned:
        outcomes = []
        for one in group_members(self._agent, asked.group):
            outcome = Outcome(machine=one.machine, protection=one.id)
            try:
                self._agent.services.ask(REPROTECT, NamedProtection(protection=one.id))
                outcome.moved = True
            except HotspareError as error:
                outcome.error = str(error)
            outcomes.append(outcome)
        return GroupTurned(machines=tuple(outcomes))


def _warnings(members: Sequence[Protection], tried: dict[str, Report], asked: FailGroupOver) -> list[str]:
    found = [f"{report.machine}: {one}" for report in tried.values() for one in report.warnings]
    if problem := problem_of(members):
        found.append(problem)
    behind = [report.machine for report in tried.values() if report.loss is None or report.loss.bytes is None]
    if behind and not asked.point and not asked.planned:
        found.append(
            f"{', '.join(behind)} would be of an earlier instant than the others; a point of the group is of"
            f' one for all ("hotspare replica group points {asked.group}")'
        )
    return found
