"""The standby's side of shipping: a replica of this host, in the words that ``standby.py`` asks for.

The agent of the standby answers with it.
"""

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path

from hotspare.block.nbd.client import NbdClient
from hotspare.block.nbd.tls import Tls
from hotspare.errors import HotspareError, SourceLost
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.compare.digests import LocalHasher
from hotspare.replication.link.tls import Identity
from hotspare.replication.model import Tenure
from hotspare.replication.standby.exports import Exports
from hotspare.replication.standby.replica import Replica

_TIMEOUT = 20.0


class LocalStandby:
    """A ``Standby``.

    Args:
        replica: of this host.
        identity: of this host's agent; its certificates open the replica's disks.
        tenure: whose writes are accepted.
        seed: folder with images that disks begin with, see ``Replica.receive``; None for none.
    """

    def __init__(
        self, replica: Replica, identity: Identity, tenure: Tenure, seed: Path | None = None
    ) -> None:
        self._replica = replica
        self._identity = identity
        self._tenure = tenure
        self._seed = seed
        self._disks: dict[str, NbdClient] = {}
        """Those that are open, by the name of their export."""

    def points(self) -> Sequence[ReplicaPoint]:
        """Give the points, the oldest first."""
        return self._replica.points()

    def receive(self, disks: Mapping[str, int]) -> Set[str]:
        """Make ready for the next point to have these disks; gives those that begin as zeroes."""
        self._replica.check_tenure(self._tenure)
        before = {chain.name: chain.size for chain in self._replica.state.chains}
        blank = self._replica.receive(disks, self._seed)
        return {name for name, size in disks.items() if before.get(name) != size} & blank

    def exports(self) -> Exports:
        """Say where the disks are served."""
        return self._replica.serve(self._tenure)

    def open_disk(self, name: str) -> NbdClient:
        """Open a disk that is being received, or give it again."""
        exports = self.exports()
        export = exports.names.get(name, "")
        if export not in self._disks:
            self._disks[export] = self._connect(exports, name)
        return self._disks[export]

    def _connect(self, exports: Exports, name: str) -> NbdClient:
        return connect_disk("127.0.0.1", exports, name, self._identity, self._identity.id)

    def hasher(self, name: str) -> LocalHasher:
        """Open a disk to be compared."""
        return LocalHasher(self._connect(self.exports(), name))

    def make_point(self, point: ReplicaPoint, session: str | None = None) -> ReplicaPoint:
        """Let the disks be a point; with ``session``, only if they are still open as they were then."""
        with self._replica.turn:
            self._replica.check_tenure(self._tenure)
            if session is not None:
                self._replica.check_session(session)
            return self._replica.make_point(point)

    def remove_points(self, ids: Sequence[str]) -> Sequence[str]:
        """Remove points that nobody holds."""
        self._replica.remove_points(ids)
        left = {point.id for point in self._replica.points()}
        return [one for one in ids if one not in left]

    def close(self) -> None:
        """Let go of the disks; the replica is its owner's to close."""
        while self._disks:
            with suppress(HotspareError):  # it may be lost already
                self._disks.popitem()[1].close()


def connect_disk(address: str, exports: Exports, name: str, identity: Identity, server: str) -> NbdClient:
    """Connect to a disk of a replica.

    Args:
        address: of the standby.
        exports: of the replica.
        name: of the disk.
        identity: ours.
        server: id of the standby.

    Raises:
        SourceLost: it is not served.
    """
    if name not in exports.names:
        raise SourceLost(
            f"The replica does not serve a disk {name}", hint="It is begun anew by the next cycle"
        )
    tls = Tls(identity.client_context(server), server)
    return NbdClient.connect((address, exports.port), exports.names[name], timeout=_TIMEOUT, tls=tls)
