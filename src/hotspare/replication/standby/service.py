"""What a standby's agent can be asked about its replicas."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hotspare.errors import HotspareError, MachineNotFound, PermissionRefused
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.failover.active import runs_upon_replica
from hotspare.replication.link.server import Caller
from hotspare.replication.link.wire import NOTHING, PEER, Nothing, Verb
from hotspare.replication.model import DiskSize, NamedProtection, Protection, Tenure
from hotspare.replication.standby.exports import Exports
from hotspare.replication.standby.replica import Replica
from hotspare.replication.standby.space import free_space_problem

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent

_PULSE_SECONDS = 1.0


class Prepare(msgspec.Struct, frozen=True, kw_only=True):
    """Make ready for writes of a machine; a replica is made if there is none."""

    protection: Protection
    tenure: Tenure
    disks: tuple[DiskSize, ...]
    anew: bool
    """Nothing that was sent before may reach the disks any more."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What the replica is, and where its disks are."""

    exports: Exports
    base: str
    """Serial of the source's bitmaps which mark all that the replica lacks; empty when none do."""
    blank: frozenset[str]
    """Disks that nothing was ever written to."""
    whole: bool
    newest_point: str
    points: int


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for something of one replica."""

    protection: str
    tenure: Tenure


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """How the replica is."""

    problem: str
    """Why it cannot take writes; empty when it can."""
    exports: Exports | None


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """Writes will come that are no whole machine before their end."""

    protection: str
    tenure: Tenure
    session: str
    """Of the exports that the writes come to; so everywhere."""
    point: ReplicaPoint | None
    """Made before, of what is there now if that is whole."""


class Advance(msgspec.Struct, frozen=True, kw_only=True):
    """From now on the replica lacks what the bitmaps of another serial mark."""

    protection: str
    tenure: Tenure
    session: str
    base: str
    whole: bool


class MakePoint(msgspec.Struct, frozen=True, kw_only=True):
    """Make a point."""

    protection: str
    tenure: Tenure
    session: str
    point: ReplicaPoint
    base: str


class RatePoint(msgspec.Struct, frozen=True, kw_only=True):
    """Say how good a point is, which is known only after it was made."""

    protection: str
    tenure: Tenure
    session: str
    point: str
    """Its id."""
    consistency: str
    """A ``Consistency``."""
    warnings: tuple[str, ...]
    """More of them."""


class RemovePoints(msgspec.Struct, frozen=True, kw_only=True):
    """Remove points."""

    protection: str
    tenure: Tenure
    ids: tuple[str, ...]


class PointList(msgspec.Struct, frozen=True, kw_only=True):
    """The points of a replica, the oldest first."""

    points: tuple[ReplicaPoint, ...]


PREPARE = Verb("replica.prepare", Prepare, Prepared, PEER)
PULSE = Verb("replica.pulse", Ask, Pulse, PEER)
BEGIN = Verb("replica.begin", Begin, Nothing, PEER)
ADVANCE = Verb("replica.advance", Advance, Nothing, PEER)
MAKE_POINT = Verb("replica.make-point", MakePoint, ReplicaPoint, PEER)
RATE_POINT = Verb("replica.rate-point", RatePoint, Nothing, PEER)
REMOVE_POINTS = Verb("replica.remove-points", RemovePoints, PointList, PEER)
FORGET = Verb("replica.forget", NamedProtection, Nothing, PEER)
POINTS = Verb("replica.points", NamedProtection, PointList)


def register(agent: "Agent") -> None:
    """Let an agent answer all of this."""
    service = _Service(agent)
    agent.services.register(PREPARE, service.prepare)
    agent.services.register(PULSE, service.pulse)
    agent.services.register(BEGIN, service.begin)
    agent.services.register(ADVANCE, service.advance)
    agent.services.register(MAKE_POINT, service.make_point)
    agent.services.register(RATE_POINT, service.rate_point)
    agent.services.register(REMOVE_POINTS, service.remove_points)
    agent.services.register(FORGET, service.forget)
    agent.services.register(POINTS, service.points)


class _Service:
    def __init__(self, agent: "Agent") -> None:
        self._agent = agent

    def prepare(self, caller: Caller, asked: Prepare, _body: bytes) -> Prepared:
        protection, tenure = asked.protection, asked.tenure
        if caller.id != protection.source or protection.standby != self._agent.identity.id:
            raise PermissionRefused(
                f"{caller.id} is not the source of this protection, or we not its standby"
            )
        self._note(protection)
        replica = self._agent.make_replica(protection, tenure)
        replica.pass_on(tenure)
        seed = Path(protection.seed) if protection.seed else None
        replica.receive({disk.name: disk.size for disk in asked.disks}, seed)
        exports = replica.serve(tenure, durable=protection.durable, anew=asked.anew)
        state, points = replica.state, replica.points()
        return Prepared(
            exports=exports,
            base=state.base,
            blank=frozenset(state.blank),
            whole=state.whole,
            newest_point=points[-1].id if points else "",
            points=len(points),
        )

    def _note(self, protection: Protection) -> None:
        try:
            known = self._agent.protection(protection.id)
        except MachineNotFound:
            known = None
        if known != protection:
            self._agent.keep(protection)

    def pulse(self, caller: Caller, asked: Ask, _body: bytes) -> Pulse:
        replica = self._of(caller, asked.protection, asked.tenure)
        problem = free_space_problem(replica.folder)
        if not problem and not replica.answers(_PULSE_SECONDS):
            problem = "its storage daemon has died or does not answer"
        return Pulse(problem=problem, exports=replica.state.exports)

    def begin(self, caller: Caller, asked: Begin, _body: bytes) -> Nothing:
        with self._in_session(caller, asked) as replica:
            if replica.state.whole and asked.point is not None:
                replica.make_point(asked.point)
            replica.set_whole(False)
        return NOTHING

    def advance(self, caller: Caller, asked: Advance, _body: bytes) -> Nothing:
        with self._in_session(caller, asked) as replica:
            replica.advance(asked.base, whole=asked.whole)
        return NOTHING

    def make_point(self, caller: Caller, asked: MakePoint, _body: bytes) -> ReplicaPoint:
        with self._in_session(caller, asked) as replica:
            made = replica.make_point(asked.point, of_whole=True)
            replica.advance(asked.base, whole=True)
        return made

    def rate_point(self, caller: Caller, asked: RatePoint, _body: bytes) -> Nothing:
        with self._in_session(caller, asked) as replica:
            replica.rate_point(asked.point, asked.consistency, asked.warnings)
        return NOTHING

    def remove_points(self, caller: Caller, asked: RemovePoints, _body: bytes) -> PointList:
        replica = self._of(caller, asked.protection, asked.tenure)
        replica.remove_points(asked.ids)
        return PointList(points=tuple(replica.points()))

    def forget(self, caller: Caller, asked: NamedProtection, _body: bytes) -> Nothing:
        try:
            protection = self._agent.protection(asked.protection)
        except MachineNotFound:
            return NOTHING
        if caller.id != protection.source:
            raise PermissionRefused(f"{caller.id} is not the source of this protection")
        if runs_upon_replica(self._agent.folder_of(protection.id)):
            raise HotspareError(
                f"The machine {protection.machine} was taken over and runs upon its replica",
                meaning="Nothing was removed",
                hint="End the protection there, or with --only-here just on this host",
            )
        self._agent.forget(protection.id)
        return NOTHING

    def points(self, _caller: Caller, asked: NamedProtection, _body: bytes) -> PointList:
        return PointList(
            points=tuple(self._agent.replica(self._agent.protection(asked.protection).id).points())
        )

    @contextmanager
    def _in_session(
        self, caller: Caller, asked: Begin | Advance | MakePoint | RatePoint
    ) -> Iterator[Replica]:
        """Give the replica, which nobody else changes then, to a request that is not outdated."""
        replica = self._of(caller, asked.protection, asked.tenure)
        with replica.turn:
            replica.check_session(asked.session)
            yield replica

    def _of(self, caller: Caller, protection: str, tenure: Tenure) -> Replica:
        replica = self._agent.replica(protection)
        if caller.id != tenure.holder:
            raise PermissionRefused(f"{caller.id} does not hold the tenure that it names")
        replica.check_tenure(tenure)
        return replica
