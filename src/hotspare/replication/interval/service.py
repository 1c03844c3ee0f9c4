"""What a standby's agent can be asked by those who ship machines to it."""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hotspare.errors import PermissionRefused
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.compare.digests import BATCH, LocalHasher
from hotspare.replication.interval.local import LocalStandby
from hotspare.replication.link.server import Caller
from hotspare.replication.link.wire import PEER, Verb
from hotspare.replication.model import DiskSize, Protection, Tenure
from hotspare.replication.standby.exports import Exports
from hotspare.replication.standby.service import PointList

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """A machine will be shipped; a replica is made if there is none."""

    protection: Protection
    tenure: Tenure


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Names a replica, and whose request it is."""

    protection: str
    tenure: Tenure


class Receive(Asked, frozen=True, kw_only=True):
    """The next point will have these disks."""

    disks: tuple[DiskSize, ...]


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """Where they are written to."""

    exports: Exports
    blank: frozenset[str]
    """Those that read as zeroes."""


class MakePoint(Asked, frozen=True, kw_only=True):
    """All is there: make it a point."""

    session: str
    """Of the exports that it was written to."""
    point: ReplicaPoint


class RemovePoints(Asked, frozen=True, kw_only=True):
    """Remove points."""

    ids: tuple[str, ...]


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """Those that are gone; others are held."""

    ids: tuple[str, ...]


class Digests(Asked, frozen=True, kw_only=True):
    """Hash a part of a disk that is being received."""

    disk: str
    offset: int
    length: int
    """At most ``BATCH``."""


class Hashed(msgspec.Struct, frozen=True, kw_only=True):
    """The digests are the answer's body."""

    size: int
    """Bytes of the whole disk."""


BEGIN = Verb("interval.begin", Begin, PointList, PEER)
RECEIVE = Verb("interval.receive", Receive, Received, PEER)
MAKE_POINT = Verb("interval.make-point", MakePoint, ReplicaPoint, PEER)
REMOVE_POINTS = Verb("interval.remove-points", RemovePoints, Removed, PEER)
POINTS = Verb("interval.points", Asked, PointList, PEER)
DIGESTS = Verb("compare.digests", Digests, Hashed, PEER)


def register(agent: "Agent") -> None:
    """Let an agent answer all of this."""
    service = _Service(agent)
    agent.services.register(BEGIN, service.begin)
    agent.services.register(RECEIVE, service.receive)
    agent.services.register(MAKE_POINT, service.make_point)
    agent.services.register(REMOVE_POINTS, service.remove_points)
    agent.services.register(POINTS, service.points)
    agent.services.register(DIGESTS, service.digests)


class _Service:
    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._idle = _IdleHashers()

    def begin(self, caller: Caller, asked: Begin, _body: bytes) -> PointList:
        protection = asked.protection
        if caller.id != protection.source or protection.standby != self._agent.identity.id:
            raise PermissionRefused(
                f"{caller.id} is not the source of this protection, or this host not its standby",
                meaning="Nothing was changed",
            )
        if protection not in self._agent.protections():
            self._agent.keep(protection)
        replica = self._agent.make_replica(protection, asked.tenure)
        replica.pass_on(asked.tenure)
        # A write of a connection that broke may be on its way still, and would undo what comes now.
        replica.close_exports()
        return PointList(points=tuple(replica.points()))

    def receive(self, caller: Caller, asked: Receive, _body: bytes) -> Received:
        standby = self._standby(caller, asked)
        blank = standby.receive({disk.name: disk.size for disk in asked.disks})
        return Received(exports=standby.exports(), blank=frozenset(blank))

    def make_point(self, caller: Caller, asked: MakePoint, _body: bytes) -> ReplicaPoint:
        standby = self._standby(caller, asked)
        self._idle.close(standby.exports().names.values())
        return standby.make_point(asked.point, asked.session)

    def remove_points(self, caller: Caller, asked: RemovePoints, _body: bytes) -> Removed:
        return Removed(ids=tuple(self._standby(caller, asked).remove_points(asked.ids)))

    def points(self, caller: Caller, asked: Asked, _body: bytes) -> PointList:
        return PointList(points=tuple(self._standby(caller, asked).points()))

    def digests(self, caller: Caller, asked: Digests, _body: bytes) -> tuple[Hashed, bytes]:
        standby = self._standby(caller, asked)
        export = standby.exports().names.get(asked.disk, "")
        hasher = self._idle.take(export) or standby.hasher(asked.disk)
        try:
            digests = hasher.digests(asked.offset, min(asked.length, BATCH))
        except BaseException:
            hasher.close()
            raise
        self._idle.give_back(export, hasher)
        return Hashed(size=hasher.size), digests

    def _standby(self, caller: Caller, asked: Asked) -> LocalStandby:
        if caller.id != asked.tenure.holder:
            raise PermissionRefused(f"{caller.id} does not hold the tenure that it names")
        replica = self._agent.replica(asked.protection)
        replica.check_tenure(asked.tenure)
        seed = self._agent.protection(asked.protection).seed
        return LocalStandby(replica, self._agent.identity, asked.tenure, Path(seed) if seed else None)


class _IdleHashers:
    """Disks that stay open from one request for digests to the next, by the name of their export."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[LocalHasher]] = {}

    def take(self, export: str) -> LocalHasher | None:
        with self._lock:
            idle = self._idle.get(export)
            return idle.pop() if idle else None

    def give_back(self, export: str, hasher: LocalHasher) -> None:
        with self._lock:
            self._idle.setdefault(export, []).append(hasher)

    def close(self, exports: Iterable[str]) -> None:
        with self._lock:
            ended = [hasher for export in exports for hasher in self._idle.pop(export, [])]
        for hasher in ended:
            hasher.close()
