"""A standby on another host, spoken to through its agent; the disks' content goes over NBD with TLS."""

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from typing import Self, TypedDict

from hotspare.block.nbd.client import NbdClient
from hotspare.errors import HotspareError, SourceLost
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.interval import service
from hotspare.replication.interval.local import connect_disk
from hotspare.replication.link.client import PeerClient
from hotspare.replication.link.tls import Identity
from hotspare.replication.link.wire import PeerUnavailable
from hotspare.replication.model import DiskSize, Peer, Protection, Tenure
from hotspare.replication.standby.exports import Exports


class _Named(TypedDict):
    """What every request says."""

    protection: str
    tenure: Tenure


_LONG_SECONDS = 600.0
"""For what may have to merge images, or to start a storage daemon, on a busy host."""


class RemoteStandby:
    """A ``Standby``. Connections to disks stay open from cycle to cycle.

    Args:
        identity: of this host's agent.
        peer: the standby's.
        protection: whose replica it is; made over there if it is not there.
        tenure: this host's.

    Raises:
        PeerUnavailable: nobody answers there.
        PermissionRefused: another host has taken the machine over.
    """

    def __init__(self, identity: Identity, peer: Peer, protection: Protection, tenure: Tenure) -> None:
        self._identity = identity
        self._peer = peer
        self._client = PeerClient(identity, peer)
        self._named = _Named(protection=protection.id, tenure=tenure)
        self._exports: Exports | None = None
        self._disks: dict[str, NbdClient] = {}
        try:
            self._client.call(service.BEGIN, service.Begin(protection=protection, tenure=tenure))
        except BaseException:
            self._client.close()
            raise

    def points(self) -> Sequence[ReplicaPoint]:
        """Give the points, the oldest first."""
        return self._client.call(service.POINTS, service.Asked(**self._named)).points

    def receive(self, disks: Mapping[str, int]) -> Set[str]:
        """Make ready for the next point to have these disks; gives those that begin as zeroes."""
        sizes = tuple(DiskSize(name=name, size=size) for name, size in disks.items())
        asked = service.Receive(**self._named, disks=sizes)
        received = self._client.call(service.RECEIVE, asked, timeout=_LONG_SECONDS)
        if received.exports != self._exports:
            self._close_disks()
            self._exports = received.exports
        return received.blank

    def open_disk(self, name: str) -> NbdClient:
        """Open a disk that is being received, or give it again."""
        if self._exports is None:
            raise SourceLost("The replica's disks were not asked for")
        if name not in self._disks:
            address, server = self._peer.address, self._peer.id
            self._disks[name] = connect_disk(address, self._exports, name, self._identity, server)
        return self._disks[name]

    def hasher(self, name: str) -> "RemoteHasher":
        """Open a disk to be compared, over there."""
        return RemoteHasher(self._identity, self._peer, self._named, name)

    def make_point(self, point: ReplicaPoint) -> ReplicaPoint:
        """Let the disks be a point."""
        session = self._exports.session if self._exports else ""
        asked = service.MakePoint(**self._named, session=session, point=point)
        try:
            return self._client.call(service.MAKE_POINT, asked)
        except PeerUnavailable as error:
            raise SourceLost(error.what, meaning=error.meaning, hint=error.hint) from error

    def remove_points(self, ids: Sequence[str]) -> Sequence[str]:
        """Remove points that nobody holds."""
        asked = service.RemovePoints(**self._named, ids=tuple(ids))
        return self._client.call(service.REMOVE_POINTS, asked, timeout=_LONG_SECONDS).ids

    def close(self) -> None:
        """Let go of all connections."""
        self._close_disks()
        self._client.close()

    def _close_disks(self) -> None:
        while self._disks:
            with suppress(HotspareError):  # it may be lost already
                self._disks.popitem()[1].close()


class RemoteHasher:
    """A ``RangeHasher`` that lets the standby's agent read and hash; has a connection of its own."""

    def __init__(self, identity: Identity, peer: Peer, named: _Named, disk: str) -> None:
        self._parts = (identity, peer, named, disk)
        self._client = PeerClient(identity, peer)
        self.size = self._ask(0, 0)[0]

    def digests(self, offset: int, length: int) -> bytes:
        """Have a part hashed."""
        return self._ask(offset, length)[1]

    def _ask(self, offset: int, length: int) -> tuple[int, bytes]:
        _, _, named, disk = self._parts
        asked = service.Digests(**named, disk=disk, offset=offset, length=length)
        try:
            hashed, digests = self._client.exchange(service.DIGESTS, asked)
        except PeerUnavailable as error:
            raise SourceLost(error.what, meaning=error.meaning, hint=error.hint) from error
        return hashed.size, digests

    def clone(self) -> Self:
        """Connect once more."""
        return type(self)(*self._parts)

    def close(self) -> None:
        """Disconnect."""
        self._client.close()
