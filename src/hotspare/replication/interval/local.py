"""The standby's side of shipping: a replica of this host, in the words that ``standby.py`` asks for.

The agent of the standby answers with it.
"""

from collections.abc import Mapping, Sequence, Set

from hotspare.block.nbd.client import NbdClient
from hotspare.block.nbd.tls import Tls
from hotspare.errors import SourceLost
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.compare.digests import LocalHasher
from hotspare.replication.link.tls import Identity
from hotspare.replication.model import Tenure
from hotspare.replication.standby.replica import Replica

_TIMEOUT = 20.0


class LocalStandby:
    """A ``Standby``.

    Args:
        replica: of this host.
        identity: of this host's agent; its certificates open the replica's disks.
        tenure: whose writes are accepted.
    """

    def __init__(self, replica: Replica, identity: Identity, tenure: Tenure) -> None:
        self._replica = replica
        self._identity = identity
        self._tenure = tenure
        self._tls = Tls(identity.client_context(identity.id), identity.id)

    def points(self) -> Sequence[ReplicaPoint]:
        """Give the points, the oldest first."""
        return self._replica.points()

    def receive(self, disks: Mapping[str, int]) -> Set[str]:
        """Make ready for the next point to have these disks; gives those that begin as zeroes."""
        self._replica.check_tenure(self._tenure)
        before = {chain.name: chain.size for chain in self._replica.state.chains}
        self._replica.receive(disks)
        return {name for name, size in disks.items() if before.get(name) != size}

    def open_disk(self, name: str) -> NbdClient:
        """Open a disk that is being received."""
        exports = self._replica.serve(self._tenure)
        if name not in exports.names:
            raise SourceLost(f"The replica does not serve a disk {name}")
        return NbdClient.connect(
            ("127.0.0.1", exports.port), exports.names[name], timeout=_TIMEOUT, tls=self._tls
        )

    def hasher(self, name: str) -> LocalHasher:
        """Open a disk to be compared."""
        return LocalHasher(self.open_disk(name))

    def make_point(self, point: ReplicaPoint) -> ReplicaPoint:
        """Let the disks be a point."""
        self._replica.check_tenure(self._tenure)
        return self._replica.make_point(point)

    def remove_points(self, ids: Sequence[str]) -> Sequence[str]:
        """Remove points that nobody holds."""
        self._replica.remove_points(ids)
        left = {point.id for point in self._replica.points()}
        return [one for one in ids if one not in left]

    def close(self) -> None:
        """Do nothing: the replica is its owner's to close."""
