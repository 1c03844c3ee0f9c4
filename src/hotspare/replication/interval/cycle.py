"""One cycle: freeze the source's disks for an instant, ship what changed, make it a point of the standby.

    snapshot -> receive -> ship each disk -> the standby's point is durable -> advance the tokens

Broken off anywhere, the standby keeps the point before, and the next cycle ships all that changed since then:
the tokens lie in the standby's points, not here.
"""

import time
from collections.abc import Callable, Iterator, Set
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice

from hotspare import events
from hotspare.block.copy import copy_disk, copy_extents
from hotspare.block.device import BlockDisk, BlockReader
from hotspare.block.extent import Extent, ExtentKind
from hotspare.cancellation import Cancellation
from hotspare.errors import SourceLost
from hotspare.platforms.platform import (
    ALL_DISKS,
    Consistency,
    DiskChoice,
    Machine,
    Snapshot,
    SnapshotDisk,
    SnapshotRequest,
)
from hotspare.platforms.replica.record import ReplicaDisk, ReplicaPoint
from hotspare.replication.compare.bring_alike import CompareCounts, bring_alike
from hotspare.replication.interval.standby import Source, Standby
from hotspare.repository.point import new_point_id
from hotspare.storage.wrappers.throttle import TokenBucket
from hotspare.units import MIB

_FEW = 1024
"""So many changed ranges are copied one after the other, without threads and further connections."""
_PIECE = 1 * MIB
_CHECK_SECONDS = 0.5
"""Between two looks at the snapshot's health."""
_ASK_AGAIN_SECONDS = 10.0
"""How long the standby is asked whether a point was made, when its answer was lost."""


@dataclass(frozen=True, slots=True)
class CycleRequest:
    """What is asked of one cycle."""

    protection: str
    """Id of the protection: the platform tracks changes for each apart."""
    machine: Machine
    """By its id the platform finds it again; everything else is looked at anew."""
    newest: ReplicaPoint | None
    """The standby's newest point; None when it has none."""
    consistency: Consistency | None = Consistency.CRASH
    """The level that is wanted; None for the best that the machine is prepared for."""
    disks: DiskChoice = ALL_DISKS
    bucket: TokenBucket | None = None
    """Holds what is sent to a bandwidth; None for no limit."""


def ship_cycle(
    platform: Source,
    standby: Standby,
    request: CycleRequest,
    listener: events.Listener,
    cancellation: Cancellation,
) -> ReplicaPoint:
    """Ship one cycle and give the standby's new point.

    Raises:
        MachineNotFound: the platform has no such machine any more.
        SourceLost: the machine stopped, or the standby went away.
        NoSpace: the standby, or the scratch space of the source, is full.
        Interrupted: ``cancellation`` was requested.
    """
    taken_at = datetime.now(UTC)
    point_id = new_point_id(taken_at, after=request.newest.id if request.newest else "")
    wanted = SnapshotRequest(
        point_id=point_id,
        repository_id=request.protection,
        since=request.newest.tokens if request.newest else {},
        consistency=request.consistency,
        hooks=[] if request.consistency is Consistency.CRASH else None,
        disks=request.disks,
    )
    with platform.open_snapshot(request.machine, wanted, cancellation) as snapshot:
        blank = standby.receive({disk.name: disk.size for disk in snapshot.disks})
        run = _Cycle(snapshot, standby, blank, listener, cancellation, request.bucket)
        disks = tuple(run.ship(disk) for disk in snapshot.disks)
        run.check()
        point = ReplicaPoint(
            id=point_id,
            taken_at=taken_at,
            finished_at=datetime.now(UTC),
            consistency=snapshot.consistency.value,
            machine=snapshot.machine,
            disks=disks,
            state=tuple(snapshot.state),
            warnings=tuple(snapshot.warnings),
        )
        point = _make_point(standby, point)
        snapshot.commit()
    return point


def _make_point(standby: Standby, point: ReplicaPoint) -> ReplicaPoint:
    """Make the point; when the answer is lost, find out whether it was made.

    Were that not known, the platform's new token would be given up while the standby counts on it.
    """
    try:
        return standby.make_point(point)
    except SourceLost:
        deadline = time.monotonic() + _ASK_AGAIN_SECONDS
        while time.monotonic() < deadline:
            with suppress(SourceLost):
                made = [one for one in standby.points() if one.id == point.id]
                if made:
                    return made[0]
                break
            time.sleep(0.5)
        raise


@dataclass(frozen=True, slots=True)
class _Cycle:
    snapshot: Snapshot
    standby: Standby
    blank: Set[str]
    listener: events.Listener
    cancellation: Cancellation
    bucket: TokenBucket | None = None

    def check(self) -> None:
        """Raise when it is to stop, or the snapshot is not good any more."""
        self.cancellation.check()
        self.snapshot.check()

    def ship(self, disk: SnapshotDisk) -> ReplicaDisk:
        """Make the standby's disk like the snapshot's, in the cheapest way that is safe."""
        machine, why = self.snapshot.machine.name, disk.full_because
        if why is None and disk.name in self.blank:
            why = "the standby has no such disk of this size"
        if why is None:
            sent = self._ship_changed(disk)
        else:
            mode = "full" if disk.name in self.blank else "compare"
            self.listener(events.DiskStarted(machine, disk.name, disk.size, disk.size, mode, why))
            sent = self._ship_whole(disk)
        self.listener(events.DiskFinished(machine, disk.name))
        return ReplicaDisk(
            name=disk.name, size=disk.size, token=disk.token, full_because=why, bytes_sent=sent
        )

    def _ship_changed(self, disk: SnapshotDisk) -> int:
        """Copy what the platform says has changed."""
        changed = self.snapshot.changed(disk.name)
        first = list(islice(changed, _FEW))
        rest = list(islice(changed, 1))
        # Of more than a few the sum is not known without keeping them all.
        total = disk.size if rest else sum(extent.length for extent in first)
        machine = self.snapshot.machine.name
        self.listener(events.DiskStarted(machine, disk.name, disk.size, total, "increment"))
        if not first:
            return 0
        counted = _Counted(self, disk.name)
        with self._both(disk.name) as (source, target):
            if rest:
                copy_extents(source, target, chain(first, rest, changed), after_each=counted.note)
            else:
                _copy_few(source, target, first, counted.note)
        return counted.sent

    def _ship_whole(self, disk: SnapshotDisk) -> int:
        """Fill a disk that is blank; compare any other, of which the standby may have most already."""
        counted = _Counted(self, disk.name)
        with self._both(disk.name) as (source, target):
            if disk.name in self.blank:
                copy_disk(
                    source,
                    target,
                    target_is_blank=True,
                    on_progress=counted.report,
                    cancellation=self.cancellation,
                )
                return counted.sent

            def note(counts: CompareCounts) -> None:
                counted.report(counts.compared, counts.sent)

            with closing(self.standby.hasher(disk.name)) as theirs:
                bring_alike(source, target, theirs, on_progress=note, cancellation=self.cancellation)
        return counted.sent

    @contextmanager
    def _both(self, disk: str) -> Iterator[tuple[BlockReader, BlockDisk]]:
        """Open a disk as it was frozen, and the standby's."""
        with closing(self.snapshot.reader(disk)) as source:
            yield source, self.standby.open_disk(disk)


@dataclass(slots=True)
class _Counted:
    """Tells the listener how far a disk is, and looks at the snapshot's health."""

    cycle: _Cycle
    disk: str
    processed: int = 0
    sent: int = 0
    checked: float = 0.0

    def note(self, piece: Extent) -> None:
        sent = piece.length if piece.kind is ExtentKind.DATA else 0
        self.report(self.processed + piece.length, self.sent + sent)

    def report(self, processed: int, sent: int) -> None:
        if self.cycle.bucket is not None and sent > self.sent:
            self._wait(self.cycle.bucket.charge(sent - self.sent))
        self.processed, self.sent = processed, sent
        self.cycle.cancellation.check()
        now = time.monotonic()
        if now - self.checked > _CHECK_SECONDS:
            self.checked = now
            self.cycle.snapshot.check()
        machine = self.cycle.snapshot.machine.name
        self.cycle.listener(events.Progress(machine, self.disk, processed, sent))

    def _wait(self, seconds: float) -> None:
        """Wait for the bandwidth, and go on looking whether the snapshot is good meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.cycle.cancellation.pause(min(left, _CHECK_SECONDS))
            self.cycle.check()


def _copy_few(
    source: BlockReader, target: BlockDisk, extents: list[Extent], note: Callable[[Extent], None]
) -> None:
    buffer = memoryview(bytearray(_PIECE))
    for piece in _pieces(extents):
        if piece.kind is ExtentKind.ZERO:
            target.write_zeroes(piece.offset, piece.length)
        else:
            data = buffer[: piece.length]
            source.read_into(piece.offset, data)
            target.write(piece.offset, data)
        note(piece)
    target.flush()


def _pieces(extents: list[Extent]) -> Iterator[Extent]:
    for extent in extents:
        step = extent.length if extent.kind is ExtentKind.ZERO else _PIECE
        for at in range(extent.offset, extent.end, step):
            yield Extent(at, min(step, extent.end - at), extent.kind)
