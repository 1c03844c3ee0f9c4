"""The standby, as the source of one protection sees it."""

from collections.abc import Mapping, Sequence

from hotspare.block.nbd.client import NbdClient
from hotspare.block.nbd.tls import Tls
from hotspare.platforms.platform import Consistency
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.interval.remote import RemoteHasher
from hotspare.replication.link.client import PeerClient
from hotspare.replication.link.tls import Identity
from hotspare.replication.model import DiskSize, NamedProtection, Protection, Tenure
from hotspare.replication.standby.exports import Exports
from hotspare.replication.standby.service import (
    ADVANCE,
    BEGIN,
    FORGET,
    MAKE_POINT,
    POINTS,
    PREPARE,
    PULSE,
    RATE_POINT,
    REMOVE_POINTS,
    Advance,
    Ask,
    Begin,
    MakePoint,
    Prepare,
    Prepared,
    Pulse,
    RatePoint,
    RemovePoints,
)

_POINT_SECONDS = 60.0
_REMOVE_SECONDS = 3600.0


class StandbyLink:
    """Calls of one protection. Pulses go over a connection of their own, so that nothing holds them up.

    Every method raises ``PeerUnavailable`` when the standby does not answer, and what it refuses with.
    """

    def __init__(self, identity: Identity, protection: Protection, tenure: Tenure) -> None:
        self._identity = identity
        self._protection = protection
        self.tenure = tenure
        self.peer = identity.peer(protection.standby)
        self._calls, self._pulses, self._slow = (PeerClient(identity, self.peer) for _ in range(3))
        self._session = ""

    def prepare(self, disks: Mapping[str, int], *, anew: bool) -> Prepared:
        """Make ready for writes, and learn what is there.

        Args:
            disks: names and sizes in bytes.
            anew: the replica will be brought up to date. Whatever was sent before and has not arrived yet,
                writes of broken mirrors above all, must not arrive after that.
        """
        sizes = tuple(DiskSize(name=name, size=size) for name, size in disks.items())
        asked = Prepare(protection=self._protection, tenure=self.tenure, disks=sizes, anew=anew)
        prepared = self._calls.call(PREPARE, asked)
        self._session = prepared.exports.session
        return prepared

    def pulse(self, seconds: float) -> Pulse:
        """Ask how the replica is, and give up after so long."""
        asked = Ask(protection=self._protection.id, tenure=self.tenure)
        return self._pulses.call(PULSE, asked, timeout=seconds)

    def begin(self, point: ReplicaPoint | None) -> None:
        """Say that writes come which are no whole machine; what is whole now is kept as a point."""
        asked = Begin(protection=self._protection.id, tenure=self.tenure, session=self._session, point=point)
        self._calls.call(BEGIN, asked, timeout=_POINT_SECONDS)

    def advance(self, base: str, *, whole: bool) -> None:
        """Say which bitmaps mark all that the replica lacks, and whether it is whole."""
        asked = Advance(
            protection=self._protection.id,
            tenure=self.tenure,
            session=self._session,
            base=base,
            whole=whole,
        )
        self._calls.call(ADVANCE, asked)

    def make_point(self, point: ReplicaPoint, base: str) -> ReplicaPoint:
        """Make a point of what is there now."""
        asked = MakePoint(
            protection=self._protection.id,
            tenure=self.tenure,
            session=self._session,
            point=point,
            base=base,
        )
        return self._slow.call(MAKE_POINT, asked, timeout=_POINT_SECONDS)

    def rate_point(self, point: str, consistency: Consistency, warnings: Sequence[str]) -> None:
        """Say how good a point is that was just made."""
        asked = RatePoint(
            protection=self._protection.id,
            tenure=self.tenure,
            session=self._session,
            point=point,
            consistency=consistency.value,
            warnings=tuple(warnings),
        )
        self._slow.call(RATE_POINT, asked)

    def remove_points(self, ids: Sequence[str]) -> Sequence[ReplicaPoint]:
        """Remove points, and give those that are left."""
        asked = RemovePoints(protection=self._protection.id, tenure=self.tenure, ids=tuple(ids))
        return self._slow.call(REMOVE_POINTS, asked, timeout=_REMOVE_SECONDS).points

    def points(self) -> Sequence[ReplicaPoint]:
        """List the points, the oldest first."""
        return self._slow.call(POINTS, NamedProtection(protection=self._protection.id)).points

    def forget(self) -> None:
        """Have the replica removed, with all points."""
        self._slow.call(FORGET, NamedProtection(protection=self._protection.id), timeout=_POINT_SECONDS)

    def open(self, exports: Exports, disk: str, timeout: float) -> NbdClient:
        """Open a disk of the replica for writing."""
        tls = Tls(self._identity.client_context(self.peer.id), self.peer.id)
        place = (self.peer.address, exports.port)
        return NbdClient.connect(place, exports.names[disk], tls=tls, timeout=timeout)

    def hasher(self, disk: str) -> RemoteHasher:
        """Have a disk of the replica hashed over there, to be compared."""
        asked = {"protection": self._protection.id, "tenure": self.tenure}
        return RemoteHasher(self._identity, self.peer, asked, disk)  # type: ignore[arg-type]

    def hang_up(self) -> None:
        """Break all connections, also in the midst of a call; the next calls make others."""
        for client in (self._calls, self._pulses, self._slow):
            client.hang_up()

    def close(self) -> None:
        """Hang up."""
        for client in (self._calls, self._pulses, self._slow):
            client.close()
