"""Makes the points of groups, on the host that runs their machines.

    the standby prepares -> all machines are held still -> the standby makes a point of each
    -> they go on -> had none of them moved meanwhile, and no mirror broken? then the points are marked as one

Whatever a machine was told is done was on the standby before (``sync`` mode); and while all stand still, none
learns of anything more. So whoever had an answer of one machine, and then wrote to another, finds both in the
point, or the first alone.
"""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING

from hotspare.errors import HotspareError
from hotspare.platforms.replica.record import GroupMark
from hotspare.replication.groups.hold import Hold, Holder, held
from hotspare.replication.groups.order import members_of, membership, problem_of
from hotspare.replication.groups.replicas import MAKE, MARK, READY, THIN, Make, Mark, Member, Ready, Thin
from hotspare.replication.link.client import PeerClient
from hotspare.replication.model import Membership, Protection
from hotspare.replication.source.sync import SyncRunner
from hotspare.repository.point import new_point_id

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent

_LOG = logging.getLogger("hotspare.replica")
_LOOK_SECONDS = 0.25
_AGAIN_SECONDS = 5.0
"""After an attempt that failed; or the group's interval, if that is shorter."""
_TURN_SECONDS = 5.0
_READY_SECONDS = 10.0
_MARK_SECONDS = 10.0
_THIN_SECONDS = 3600.0


@dataclass(slots=True)
class GroupState:
    """How it goes with one group. Written by the group's thread, read by others."""

    problem: str = "there was no point yet"
    """Why there was no point last time; empty when there was."""
    newest: str = ""
    points: int = 0
    paused_seconds: float = 0.0
    """For how long its machines stood still for the newest point."""
    longest_pause: float = 0.0
    """Of all attempts since the agent was started."""


@dataclass(slots=True)
class _Working:
    state: GroupState = field(default_factory=GroupState)
    thread: threading.Thread | None = None


class GroupKeeper:
    """Has points made of all groups whose machines this host runs. Each group has a thread of its own."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._closed = threading.Event()
        self._groups: dict[str, _Working] = {}
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._look_after, name="groups", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; a point that is being made is made to its end."""
        self._closed.set()
        for working in (*self._groups.values(), _Working(thread=self._thread)):
            if working.thread is not None and working.thread.is_alive():
                working.thread.join(_TURN_SECONDS)

    def state(self, group: str) -> GroupState | None:
        """Say how it goes with a group; None when its machines do not run here."""
        with self._turn:
            working = self._groups.get(group)
            return working.state if working else None

    def _look_after(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            try:
                self._begin_and_forget(self._groups_here())
            except Exception:  # noqa: BLE001 - the agent goes on, whatever the mistake
                _LOG.exception("groups could not be looked after")

    def _groups_here(self) -> set[str]:
        me = self._agent.identity.id
        mine = [one for one in self._agent.protections() if one.source == me and not one.stopped]
        return {one.group.name for one in mine if one.group is not None}

    def _begin_and_forget(self, names: set[str]) -> None:
        with self._turn:
            for name in set(self._groups) - names:
                del self._groups[name]  # its thread sees that, and ends
            for name in names - set(self._groups):
                working = self._groups[name] = _Working()
                working.thread = threading.Thread(
                    target=self._work, args=(name, working), name=f"group-{name}", daemon=True
                )
                working.thread.start()

    def _work(self, name: str, working: _Working) -> None:
        state, began = working.state, -inf
        self._let_all_go(name)
        while not self._closed.wait(_LOOK_SECONDS) and self._groups.get(name) is working:
            members = members_of(name, self._agent.protections())
            if not members or time.monotonic() < began + _pause(membership(members[0]), state):
                continue
            began = time.monotonic()
            try:
                self._make(name, members, state)
            except HotspareError as error:
                self._note_problem(name, state, str(error))
            except Exception as error:  # noqa: BLE001 - the agent goes on, whatever the mistake
                _LOG.exception("%s: a mistake in Hotspare", name)
                self._note_problem(name, state, f"{type(error).__name__}: {error}")
            else:
                if state.problem:
                    _LOG.info("group %s: there are points", name)
                state.problem = ""

    def _note_problem(self, name: str, state: GroupState, problem: str) -> None:
        if problem != state.problem:
            _LOG.warning("group %s: no point this time: %s", name, problem)
        state.problem = problem

    def _let_all_go(self, name: str) -> None:
        """Undo what an agent and a fence have left that were killed while they held a machine."""
        for protection in members_of(name, self._agent.protections()):
            holder = Holder(self._agent, protection)
            try:
                holder.prepare()
            except HotspareError as error:
                _LOG.warning("group %s: %s", name, error)
            finally:
                holder.close()

    # One point

    def _make(self, name: str, members: Sequence[Protection], state: GroupState) -> None:
        """Make a point of a group. Raises ``HotspareError``: there is none, or none that counts."""
        runners = self._runners(members)
        place = membership(members[0])
        with ExitStack() as stack:
            for runner in runners:
                stack.enter_context(runner.points.having_turn(_TURN_SECONDS))
            client = stack.enter_context(self._agent.client(members[0].standby))
            holders = self._holders(members, stack)
            asked = tuple(Member(protection=one.id, tenure=self._agent.tenure_of(one)) for one in members)
            newest = client.call(READY, Ready(members=asked), timeout=_READY_SECONDS).point
            point = new_point_id(
                datetime.now(UTC), after=max(newest, *(one.points.newest for one in runners))
            )
            points = tuple(runner.describe_point(point) for runner in runners)
            before = [runner.unbroken() for runner in runners]
            taken_at, hold = self._hold_and_make(
                client, holders, Make(members=asked, points=points), place, state
            )
            if hold.broken:
                raise HotspareError(f"{hold.broken} went on before all points were made")
            if self._runners(members) != runners or [one.unbroken() for one in runners] != before:
                raise HotspareError("a mirror broke meanwhile")
            mark = GroupMark(
                name=name,
                members=tuple(sorted(one.id for one in members)),
                paused_seconds=round(hold.seconds, 4),
            )
            client.call(
                MARK, Mark(members=asked, point=point, taken_at=taken_at, mark=mark), timeout=_MARK_SECONDS
            )
        state.newest, state.paused_seconds = point, hold.seconds
        self._thin(members, asked, place, state)

    def _hold_and_make(
        self,
        client: PeerClient,
        holders: dict[str, Holder],
        make: Make,
        place: Membership,
        state: GroupState,
    ) -> tuple[datetime, Hold]:
        limit, began = place.pause_limit, time.monotonic()
        hold = Hold()
        try:
            with held(holders, limit) as hold:
                taken_at = datetime.now(UTC)
                left = limit - (time.monotonic() - began)
                client.call(MAKE, make, timeout=max(0.001, left))
        finally:
            state.longest_pause = max(state.longest_pause, time.monotonic() - began)
        return taken_at, hold

    def _thin(
        self, members: Sequence[Protection], asked: tuple[Member, ...], place: Membership, state: GroupState
    ) -> None:
        with self._agent.client(members[0].standby) as client:
            thin = Thin(members=asked, group=place.name, retention=place.retention)
            state.points = len(client.call(THIN, thin, timeout=_THIN_SECONDS).points)

    def _holders(self, members: Sequence[Protection], stack: ExitStack) -> dict[str, Holder]:
        holders = {}
        for one in members:
            holder = holders[one.id] = Holder(self._agent, one)
            stack.callback(holder.close)
            holder.prepare()
        return holders

    def _runners(self, members: Sequence[Protection]) -> list[SyncRunner]:
        """Give who looks after the members, all of which are mirrored. Raises ``HotspareError``."""
        if problem := problem_of(members):
            raise HotspareError(problem)
        found = []
        for one in members:
            runner = self._agent.runner(one.id)
            if not isinstance(runner, SyncRunner):
                raise HotspareError(f"{one.machine} is not replicated at the moment")
            runner.unbroken()
            found.append(runner)
        return found


def _pause(place: Membership, state: GroupState) -> float:
    """Give the seconds from one attempt to the next; the interval may have been changed since."""
    return min(place.interval, _AGAIN_SECONDS) if state.problem else place.interval
