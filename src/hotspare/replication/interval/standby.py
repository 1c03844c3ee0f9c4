"""What is shipped from, and the standby's replica that is shipped into."""

from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractContextManager
from typing import Protocol

from hotspare.block.device import BlockDisk
from hotspare.cancellation import Cancellation
from hotspare.platforms.platform import Machine, Snapshot, SnapshotRequest
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.compare.digests import RangeHasher


class Source(Protocol):
    """Where machines are shipped from: a ``Platform``, or a bare file (``replication/plain``)."""

    def inspect(self, name: str) -> Machine:
        """Describe a machine. Raises ``MachineNotFound``."""
        ...

    def open_snapshot(
        self, machine: Machine, request: SnapshotRequest, cancellation: Cancellation
    ) -> AbstractContextManager[Snapshot]:
        """Freeze it for an instant; see ``Platform``."""
        ...

    def close(self) -> None:
        """Let go of the connection; a second call does nothing."""
        ...


class Standby(Protocol):
    """Where a machine is shipped to.

    Whatever is written between two points goes into overlays of its own. It is never a point before
    ``make_point`` has returned, and cannot harm those that are.
    """

    def points(self) -> Sequence[ReplicaPoint]:
        """Give the points, the oldest first.

        Raises:
            SourceLost: the standby does not answer.
        """
        ...

    def receive(self, disks: Mapping[str, int]) -> Set[str]:
        """Make ready for the next point to have these disks, given by name with their bytes.

        Gives the names of those that read as zeroes: they are new or have another size than at the newest
        point. All others hold that point, and over it what an earlier, broken cycle may have written.

        Raises:
            NoSpace: the standby is full.
            SourceLost: the standby does not answer.
        """
        ...

    def open_disk(self, name: str) -> BlockDisk:
        """Open a disk that is being received; it stays open, and the caller does not close it."""
        ...

    def hasher(self, name: str) -> RangeHasher:
        """Open a disk that is being received to be compared, over there. The caller closes it."""
        ...

    def make_point(self, point: ReplicaPoint) -> ReplicaPoint:
        """Let all disks as they were received be a point, at once; durable when this returns.

        Gives the point with the images that hold it.

        Raises:
            NoSpace, SourceLost: there is no such point; the call may be made again.
        """
        ...

    def remove_points(self, ids: Sequence[str]) -> Sequence[str]:
        """Remove points, and give those that were: one that is being read, or held for a backup, stays."""
        ...

    def close(self) -> None:
        """Let go of the standby; a second call does nothing."""
        ...
