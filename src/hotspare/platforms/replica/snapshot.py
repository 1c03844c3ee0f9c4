"""A point of a replica as a frozen view: nothing has to be frozen, it stands still already."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from hotspare.block.extent import Extent, ExtentKind
from hotspare.block.nbd.client import NbdClient
from hotspare.block.nbd.protocol import BASE_ALLOCATION, Allocation
from hotspare.block.nbd.status import merged, next_step, paired
from hotspare.block.qemu import QemuNbd, run_tool
from hotspare.errors import SourceLost
from hotspare.platforms.platform import Consistency, Machine, SnapshotDisk, StateFile, Token
from hotspare.platforms.replica.holds import hold_for_repository
from hotspare.platforms.replica.record import ReplicaPoint, ReplicaRecord, read_record

_DEPTH = "qemu:allocation-depth"
"""Tells in which image of a chain a range is allocated, the uppermost being 1; 0 is in none. See QEMU's
docs/interop/nbd.txt."""
_FIRST = "there is no restore point to go on from"
_OTHER = "the last restore point was not made of a point that this replica still has"
_NEW_DISK = "the disk was begun anew on the standby since the last restore point"


class _Chain(QemuNbd):
    """Serves an image and all below it, and tells in which of them a range lies."""

    contexts = (BASE_ALLOCATION, _DEPTH)

    def _command(self) -> list[str]:
        program, *rest = super()._command()
        return [program, "--allocation-depth", *rest]


class ReplicaSnapshot:
    """One point of a replica; a ``Snapshot``. Takes over the hold on the point.

    Args:
        folder: of the replica.
        machine: the point's, with the disks that are wanted.
        record: of the replica, with the point in it.
        point: what is read.
        since: per disk, the token of the last restore point.
        repository: id of the repository that it is for.
        hold: descriptor that keeps the point from being removed.

    Raises:
        SourceLost: an image is not there.
        PlatformUnavailable: qemu-nbd is missing.
    """

    def __init__(
        self,
        folder: Path,
        machine: Machine,
        record: ReplicaRecord,
        point: ReplicaPoint,
        since: Mapping[str, Token],
        repository: str,
        hold: int,
    ) -> None:
        self.machine = machine
        self.consistency = Consistency(point.consistency)
        self.frozen_seconds = 0.0
        self.warnings: Sequence[str] = (
            f"made of the replica's point {point.id}, taken at {point.taken_at:%Y-%m-%d %H:%M:%S} UTC",
            *point.warnings,
        )
        self.state: Sequence[StateFile] = point.state
        self._folder = folder
        self._point = point
        self._repository = repository
        self._hold: int | None = hold
        self._layers: dict[str, int] = {}
        """Per disk that is an increment: so many of the uppermost images hold what changed."""
        self._serving = ExitStack()
        try:
            wanted = {disk.name for disk in machine.disks}
            images = {disk.name: folder / disk.image for disk in point.disks if disk.name in wanted}
            self._servers = {
                name: self._serving.enter_context(
                    _Chain(image, "qcow2", allow_references=True, force_share=True)
                )
                for name, image in images.items()
            }
            self.disks: Sequence[SnapshotDisk] = [
                self._disk(disk.name, disk.size, record, since.get(disk.name))
                for disk in point.disks
                if disk.name in wanted
            ]
        except BaseException:
            self.release()
            raise

    def _disk(self, name: str, size: int, record: ReplicaRecord, token: Token | None) -> SnapshotDisk:
        now = Token(value=self._point.id, disk_identity=f"{record.protection}/{name}", size=size)
        return SnapshotDisk(name, size, now, self._why_full(now, record, token))

    def _why_full(self, now: Token, record: ReplicaRecord, token: Token | None) -> str | None:
        if token is None:
            return _FIRST
        earlier = [point for point in record.points if point.id == token.value]
        if token.disk_identity != now.disk_identity or not earlier:
            return _OTHER
        name = now.disk_identity.partition("/")[2]
        below = [disk.image for disk in earlier[0].disks if disk.name == name]
        chain = _chain(self._servers[name].image)
        if token.size != now.size or not below or below[0] not in chain:
            return _NEW_DISK
        self._layers[name] = chain.index(below[0])
        return None

    @property
    def point_id(self) -> str:
        """Which point it is."""
        return self._point.id

    def changed(self, disk: str) -> Iterator[Extent]:
        """Yield the whole disk, or what lies in images above that of the last restore point's."""
        with closing(self.reader(disk)) as client:
            if disk not in self._layers:
                yield from client.extents(0, client.size)
            else:
                yield from merged(_in_uppermost(client, self._layers[disk]))

    def reader(self, disk: str) -> NbdClient:
        """Open the disk as it was at the point."""
        return self._servers[disk].connect()

    def guest_io(self) -> None:
        """Give nothing: no guest runs here."""

    def check(self) -> None:
        """Raise when the point is gone, which it cannot be while it is held."""
        if all(point.id != self._point.id for point in read_record(self._folder).points):
            raise SourceLost(
                f"The replica's point {self._point.id} was removed while it was read",
                meaning="This restore point was given up; older ones are not touched",
                hint="Run the backup again",
            )

    def commit(self) -> None:
        """Keep the point for the next increment into this repository."""
        hold_for_repository(self._folder, self._point.id, self._repository)

    def release(self) -> None:
        """Stop serving it, and let go of the point."""
        self._serving.close()
        hold, self._hold = self._hold, None
        if hold is not None:
            os.close(hold)


def _chain(image: Path) -> list[str]:
    """Name an image and all below it, the uppermost first."""
    command = ["qemu-img", "info", "-U", "--backing-chain", "--output=json", "-f", "qcow2", str(image)]
    return [Path(one["filename"]).name for one in json.loads(run_tool(command, image))]


def _in_uppermost(client: NbdClient, layers: int) -> Iterator[Extent]:
    position = 0
    while position < client.size:
        status = client.block_status(position, next_step(position, client.size))
        for length, allocation, depth in paired(status[BASE_ALLOCATION], status[_DEPTH]):
            if 1 <= depth <= layers:
                kind = ExtentKind.ZERO if allocation & Allocation.ZERO else ExtentKind.DATA
                yield Extent(position, length, kind)
            position += length
