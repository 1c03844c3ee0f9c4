"""Backing up one machine: the order here is what keeps the promise.

    parent -> freeze and snapshot -> transfer -> flush -> publish the point -> advance the tokens

A failure before the point is published leaves the repository without the point and the platform's
tokens where they were: the next run starts from the same place.
"""

from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

import msgspec

from hotspare import events
from hotspare.backup.claim import UNDISPUTED, Claim
from hotspare.backup.content import CONTINUOUS, store_content
from hotspare.backup.earlier import place_after_earlier, tokens_of
from hotspare.backup.file_index import index_snapshot
from hotspare.backup.inside import file_system_of, look_inside
from hotspare.backup.options import BackupOptions
from hotspare.backup.paced_reading import ReadInto, paced_reading
from hotspare.backup.plan import TransferPlan, plan_transfer
from hotspare.backup.stages import StageClock
from hotspare.backup.tracking import TrackingCheck, check_tracking, warning_of, why_full
from hotspare.backup.transfer import TransferCounts, transfer_disk
from hotspare.backup.unused import Unused
from hotspare.block.device import BlockReader
from hotspare.block.ranges import NOTHING, Ranges
from hotspare.cancellation import Cancellation
from hotspare.errors import RepositoryDamaged, StorageError
from hotspare.guest.unused.machine import MachineUnused
from hotspare.platforms.platform import (
    Platform,
    Snapshot,
    SnapshotDisk,
    SnapshotRequest,
)
from hotspare.repository.disk_map import DiskMap
from hotspare.repository.file_index import EXTRA as FILE_INDEX
from hotspare.repository.left_out import encode_ranges, extra_name, left_out_of
from hotspare.repository.point import (
    NO_STATE,
    PointContent,
    PointDisk,
    PointExtra,
    PointState,
    RestorePoint,
)
from hotspare.repository.repository import Repository
from hotspare.repository.writer import RepositoryWriter

_HELD_BACK_SECONDS = 1.0
"""Waiting for less than that is not worth a word."""
Kind = TypeVar("Kind", bound=PointContent)


def backup_machine(
    repository: Repository,
    platform: Platform,
    name: str,
    options: BackupOptions,
    listener: events.Listener,
    cancellation: Cancellation,
    claim: Claim = UNDISPUTED,
) -> RestorePoint:
    """Make a restore point of one machine and give it.

    Raises:
        MachineNotFound: the platform has no such machine.
        SourceLost: the machine stopped, or its disk cannot be read.
        ConsistencyNotReached: the level that is required, or a hook that must not fail.
        NoSpace: the repository or the scratch space is full.
        Interrupted: ``cancellation`` was requested.
        RunExpelled: it was given up meanwhile, by a collector of garbage or by who took it over.
    """
    machine = platform.inspect(name)
    started_at = datetime.now(UTC)
    listener(events.PhaseStarted(machine.name, "plan"))
    # Only a parent that is looked for while the writer is open is protected from collectors of garbage.
    with ExitStack() as stack:
        writer = stack.enter_context(repository.writer())
        claim.begun(writer.session_id)
        earlier, point_id = place_after_earlier(repository, machine, started_at, listener)
        request = _request(repository, point_id, earlier, options)
        cancellation.check()
        listener(events.PhaseStarted(machine.name, "snapshot"))
        snapshot = stack.enter_context(platform.open_snapshot(machine, request, cancellation))
        warnings = _warnings(repository, snapshot, listener)
        unused = MachineUnused()
        if options.skip_unused and repository.keeps_extras:
            unused = look_inside(snapshot, listener)
        listener(events.PhaseStarted(machine.name, "transfer"))
        at_work = repository, writer, StageClock(writer.waits), snapshot
        run = _MachineRun(*at_work, earlier, options, unused, listener, cancellation)
        content = run.back_up_all(), run.store_state()
        listener(events.PhaseStarted(machine.name, "commit"))
        writer.flush()
        run.look()
        point = run.point(point_id, started_at, options.known_as or platform.uri, warnings, *content)
        claim.before_commit()
        writer.publish(point)
        snapshot.commit()
    return point


def _request(
    repository: Repository, point_id: str, earlier: list[RestorePoint], options: BackupOptions
) -> SnapshotRequest:
    return SnapshotRequest(
        point_id=point_id,
        repository_id=repository.id,
        since=tokens_of(earlier[-1]) if earlier and not options.full else {},
        consistency=options.consistency,
        require_consistency=options.require_consistency,
        hooks=options.hooks,
        disks=options.disks,
    )


def _warnings(repository: Repository, snapshot: Snapshot, listener: events.Listener) -> tuple[str, ...]:
    state_is_lost = snapshot.state and not repository.keeps_state
    warnings = (*snapshot.warnings, *([NO_STATE] if state_is_lost else []))
    for warning in warnings:
        listener(events.Warned(snapshot.machine.name, warning))
    return warnings


class _Parent(NamedTuple):
    """What an increment of one disk is built on."""

    map: DiskMap | None = None
    left_out: Ranges = NOTHING
    """What the map has zeroes of, whatever was on the disk."""
    full_because: str | None = None
    """Why there is no map."""


class _Way(NamedTuple):
    """How one disk is read."""

    plan: TransferPlan
    parent: DiskMap | None
    """What everything that is not in the plan is taken from; None reads in full."""
    full_because: str | None
    tracking: TrackingCheck
    unused: Unused


@dataclass(frozen=True, slots=True)
class _MachineRun:
    repository: Repository
    writer: RepositoryWriter
    stages: StageClock
    snapshot: Snapshot
    earlier: list[RestorePoint]
    """The machine's points, oldest first; the last is the parent."""
    options: BackupOptions
    unused: MachineUnused
    listener: events.Listener
    cancellation: Cancellation
    warnings: list[str] = field(default_factory=list)
    """What the user should know, beside what the snapshot says."""
    extras: list[PointExtra] = field(default_factory=list)

    @property
    def parent(self) -> RestorePoint | None:
        return self.earlier[-1] if self.earlier else None

    def point(
        self,
        point_id: str,
        started_at: datetime,
        platform: str,
        warnings: tuple[str, ...],
        disks: tuple[PointDisk, ...],
        state: tuple[PointState, ...],
    ) -> RestorePoint:
        """Describe what was made."""
        machine = self.snapshot.machine
        return RestorePoint(
            id=point_id,
            machine_id=machine.id,
            machine_name=machine.name,
            platform=platform,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            consistency=self.snapshot.consistency.value,
            frozen_seconds=self.snapshot.frozen_seconds,
            warnings=(*warnings, *self.warnings),
            disks=disks,
            state=state,
            extras=tuple(self.extras),
            file_systems=tuple(file_system_of(one) for one in self.unused.volumes),
            machine=msgspec.to_builtins(machine),
            parent=self.parent.id if self.parent else None,
            session=self.writer.session_id,
        )

    def back_up_all(self) -> tuple[PointDisk, ...]:
        """Back up all disks, no faster than the guest can stand, and say so if that took time."""
        factor, limit = self.options.latency_factor, self.options.read_limit
        with paced_reading(self.snapshot.guest_io, factor, limit, self.cancellation) as (
            read_into,
            held_back,
        ):
            disks = tuple(self._back_up(disk, read_into) for disk in self.snapshot.disks)
        if held_back.seconds >= _HELD_BACK_SECONDS:
            machine = self.snapshot.machine.name
            self.listener(events.HeldBack(machine, held_back.seconds, held_back.mean, held_back.worst))
        self._store_file_index()
        self._store_extra(CONTINUOUS, self.options.continuous.encode())
        return disks

    def _back_up(self, disk: SnapshotDisk, read_into: ReadInto) -> PointDisk:
        machine = self.snapshot.machine.name
        chunk_size = self.repository.config.chunk_size
        reader = self.snapshot.reader(disk.name)
        try:
            way = self._way(disk, reader)
            plan, mode = way.plan, "full" if way.full_because else "increment"
            self.listener(
                events.DiskStarted(
                    machine, disk.name, disk.size, plan.bytes_to_process, mode, way.full_because
                )
            )

            def report(counts: TransferCounts) -> None:
                self.listener(
                    events.Progress(
                        machine, disk.name, counts.processed, counts.read, counts.new, counts.stored
                    )
                )

            root, counts = transfer_disk(
                reader,
                self.writer,
                plan,
                way.parent,
                chunk_size,
                self.look,
                report,
                alike=None if way.parent else self._earlier_map(disk),
                read_into=read_into,
                unused=way.unused.now,
                stages=self.stages,
            )
        finally:
            reader.close()
        self.listener(events.DiskFinished(machine, disk.name))
        left_out = way.unused.after(plan, chunk_size)
        self._store_extra(extra_name(disk.name), encode_ranges(left_out))
        return PointDisk(
            name=disk.name,
            size=disk.size,
            root=root,
            mode=mode,
            full_because=way.full_because,
            tracking_compared=way.tracking.compared,
            tracking_wrong=way.tracking.wrong,
            token=msgspec.to_builtins(disk.token) if disk.token else None,
            bytes_processed=counts.processed,
            bytes_read=counts.read,
            bytes_new=counts.new,
            bytes_stored=counts.stored,
            bytes_unused=left_out.total,
        )

    def store_state(self) -> tuple[PointState, ...]:
        """Store what the machine keeps outside of its disks; it is small, and read already."""
        if not self.repository.keeps_state:
            return ()
        earlier = {one.name: one for one in (self.parent.state if self.parent else ())}
        return tuple(
            self._store(PointState, state.name, state.content, earlier.get(state.name))
            for state in self.snapshot.state
        )

    def _store_file_index(self) -> None:
        """Index the names of files, if that is wanted; what cannot be indexed is said."""
        if not (self.options.index_files and self.repository.keeps_extras):
            return
        self.listener(events.PhaseStarted(self.snapshot.machine.name, "index-files"))
        content, remarks = index_snapshot(self.snapshot, self.repository.config.chunk_size, self.check)
        self._store_extra(FILE_INDEX, content)
        self.warnings.extend(remarks)
        for remark in remarks:
            self.listener(events.Warned(self.snapshot.machine.name, remark))

    def _store_extra(self, name: str, content: bytes) -> None:
        if content and self.repository.keeps_extras:
            earlier = self.parent.find_extra(name) if self.parent else None
            self.extras.append(self._store(PointExtra, name, content, earlier))

    def _store(self, kind: type[Kind], name: str, content: bytes, earlier: PointContent | None) -> Kind:
        stored = store_content(self.repository, self.writer, name, content, earlier)
        return kind(**msgspec.structs.asdict(stored))

    def _way(self, disk: SnapshotDisk, reader: BlockReader) -> _Way:
        """Decide what to read, and have a doubt about it."""
        parent, before, full_because = self._parent_map(disk)
        unused = Unused(self.unused.of(disk.name), before)
        chunk_size = self.repository.config.chunk_size
        # An increment without its parent's map would lose everything that did not change.
        lost_parent = disk.full_because is None and parent is None
        extents = reader.extents(0, disk.size) if lost_parent else self.snapshot.changed(disk.name)
        plan = plan_transfer(unused.extents(extents, disk.size, chunk_size), disk.size, chunk_size)
        if parent is None:
            return _Way(plan, None, full_because, TrackingCheck(), unused)
        found = check_tracking(
            reader,
            plan,
            parent,
            chunk_size,
            self.repository.keyring.chunk_id,
            percent=self.options.check_tracking,
            check=self.check,
            left_out=before,
        )
        if not found.wrong:
            return _Way(plan, parent, None, found, unused)
        self.warnings.append(warning_of(disk.name, found, self.earlier))
        self.listener(events.Warned(self.snapshot.machine.name, self.warnings[-1]))
        unused = Unused(unused.now)
        whole = unused.extents(reader.extents(0, disk.size), disk.size, chunk_size)
        return _Way(plan_transfer(whole, disk.size, chunk_size), None, why_full(found), found, unused)

    def look(self) -> None:
        """Tell what the time goes into, and ``check``."""
        self.listener(events.StagesTimed(self.snapshot.machine.name, *self.stages.stages))
        self.check()

    def check(self) -> None:
        """Raise when the user wants to stop, or the snapshot is not good any more."""
        self.cancellation.check()
        self.snapshot.check()

    def _earlier_map(self, disk: SnapshotDisk) -> DiskMap | None:
        """Give the map of the disk in the parent point, to compare with: whatever it lacks costs space."""
        for earlier in self.parent.disks if self.parent else ():
            if (earlier.name, earlier.size) == (disk.name, disk.size):
                with suppress(RepositoryDamaged, StorageError):
                    return self.repository.disk(earlier).map
        return None

    def _parent_map(self, disk: SnapshotDisk) -> _Parent:
        """Give what an increment is built on, or the reason for a full."""
        if self.options.full:
            return _Parent(full_because="a full backup was asked for")
        if disk.full_because is not None:
            return _Parent(full_because=disk.full_because)
        of_parent = [one for one in (self.parent.disks if self.parent else ()) if one.name == disk.name]
        if self.parent is None or not of_parent or of_parent[0].size != disk.size:
            return _Parent(full_because="the parent restore point has no such disk of this size")
        try:
            left_out = left_out_of(self.repository, self.parent, of_parent[0])
            disk_map = self.repository.disk(of_parent[0]).map
            self.repository.require_pages(disk_map)
            if self.repository.misses_chunks(disk_map):
                return _Parent(
                    full_because="chunks of the parent restore point are damaged, and are stored again"
                )
            self.writer.keep_inherited(disk_map, self.repository.reader())
        except RepositoryDamaged as error:
            return _Parent(full_because=f"the parent restore point cannot be read: {error.what}")
        return _Parent(disk_map, left_out)
