"""Restoring a restore point as a machine: a new one, or in the place of what the machine is now."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import msgspec

from hotspare import events
from hotspare.block.copy import copy_disk
from hotspare.block.device import BlockDisk
from hotspare.block.extent import ExtentKind
from hotspare.block.ranges import NOTHING
from hotspare.cancellation import Cancellation
from hotspare.errors import NoSpace, RepositoryDamaged, StorageError, UsageError
from hotspare.platforms.placement import TargetPlan
from hotspare.platforms.platform import Machine, StateFile, Target
from hotspare.repository.left_out import left_out_of
from hotspare.repository.point import PointDisk, RestorePoint
from hotspare.repository.repository import Repository
from hotspare.restore.differential import Written, write_differences
from hotspare.units import format_bytes


class RestoredMachine(NamedTuple):
    """What was made, and what that took."""

    machine: Machine
    written: Written


def machine_of(point: RestorePoint) -> Machine:
    """Give the description of the machine that a restore point is of.

    Raises ``UsageError`` for a self-backup, which is of none.
    """
    if point.is_self_backup:
        raise UsageError(
            f"{point.id} is a self-backup of Hotspare, and no machine",
            meaning="Nothing was done",
            hint=f"Rebuild a server with 'hotspare self rebuild {point.id}'",
        )
    return msgspec.convert(point.machine, Machine)


def restore_machine(
    repository: Repository,
    point: RestorePoint,
    name: str,
    create: Callable[[Machine], Target],
    listener: events.Listener,
    cancellation: Cancellation,
    before_commit: Callable[[], None] = lambda: None,
) -> RestoredMachine:
    """Make a machine, powered off, from a restore point.

    On an error, and on cancellation, everything that was made of it is removed; when the repository cannot
    be reached any more, its disks stay, hidden, and the next restore like this one goes on with them.

    Args:
        repository: where the point is.
        point: what to restore.
        name: of the machine to be, for the listener.
        create: starts to make it; see ``Platform.create_target``.
        listener: told of the progress.
        cancellation: looked at before each piece.
        before_commit: returns once the machine may be made known to its platform; what it raises ends all.

    Raises:
        TargetExists: the name or a file is taken.
        RepositoryDamaged: a chunk cannot be read back.
        NoSpace: the target's file system is full.
        StorageError: the repository cannot be reached any more.
        Interrupted: ``cancellation`` was requested.
    """
    listener(events.PhaseStarted(name, "create"))
    target = create(machine_of(point))
    total = Written(0, 0)
    try:
        listener(events.PhaseStarted(name, "transfer"))
        _add_state(repository, point, target, name, listener)
        for disk in point.disks:
            total += _write_machine_disk(repository, point, disk, target, name, listener, cancellation)
        listener(events.PhaseStarted(name, "commit"))
        cancellation.check()
        before_commit()
        return RestoredMachine(target.finalize(), total)
    except StorageError as error:
        target.discard(keep_partial=True)
        raise kept_for_later(error) from error
    finally:
        target.discard()


def kept_for_later(error: StorageError) -> StorageError:
    """Give the error of a restore whose repository went away: what was written is not lost."""
    return type(error)(
        error.what,
        meaning="What was restored so far is kept beside its place",
        hint="Run the same command again: it goes on from there",
        may_pass=error.may_pass,
    )


def _add_state(
    repository: Repository, point: RestorePoint, target: Target, name: str, listener: events.Listener
) -> None:
    """Give the new machine its state outside of disks; where it cannot have it, that is a warning."""
    for state in point.state:
        content = bytearray(state.size)
        repository.disk(state).read_into(0, memoryview(content))
        problem = target.add_state(StateFile(name=state.name, content=bytes(content)))
        if problem is not None:
            listener(events.Warned(name, problem))


def _write_machine_disk(
    repository: Repository,
    point: RestorePoint,
    disk: PointDisk,
    target: Target,
    name: str,
    listener: events.Listener,
    cancellation: Cancellation,
) -> Written:
    writer = target.writer(disk.name)
    try:
        blank = target.is_blank(disk.name)
        return write_disk(repository, point, disk, writer, name, listener, cancellation, blank=blank)
    finally:
        writer.close()


def write_disk(
    repository: Repository,
    point: RestorePoint,
    disk: PointDisk,
    target: BlockDisk,
    machine: str,
    listener: events.Listener,
    cancellation: Cancellation,
    *,
    blank: bool,
    compare: bool = True,
) -> Written:
    """Write one disk of a restore point and make it durable. Raises as ``restore_machine``.

    Args:
        repository: where the point is.
        point: that the disk is of.
        disk: which disk.
        target: at least as large.
        machine: name for the listener.
        listener: told of the progress.
        cancellation: looked at before each piece.
        blank: the target reads as zeroes.
        compare: where it does not, write only what differs. What no file system needed when the point was
            made stays as it is.
    """
    listener(events.DiskStarted(machine, disk.name, disk.size, disk.size, "restore"))
    source = repository.disk(disk)
    if compare and not blank:

        def report(handled: int, done: Written) -> None:
            listener(events.Progress(machine, disk.name, handled, done.compared, done.written))

        left_out = NOTHING
        with suppress(RepositoryDamaged):  # then it is written over
            left_out = left_out_of(repository, point, disk)
        written = write_differences(
            repository,
            source,
            target,
            left_out=left_out,
            on_progress=report,
            cancellation=cancellation,
        )
    else:
        read = 0

        def note(handled: int, bytes_read: int) -> None:
            nonlocal read
            read = bytes_read
            listener(events.Progress(machine, disk.name, handled, bytes_read, bytes_read))

        copy_disk(source, target, target_is_blank=blank, on_progress=note, cancellation=cancellation)
        written = Written(0, read if blank else disk.size)
    listener(events.DiskFinished(machine, disk.name))
    return written


def plan_with_data(repository: Repository, point: RestorePoint, plan: TargetPlan) -> TargetPlan:
    """Fill in how many bytes each disk of a plan has. Raises ``RepositoryDamaged``."""
    data = {disk.name: _data_bytes(repository, disk) for disk in point.disks}
    return replace(plan, disks=tuple(replace(disk, data=data.get(disk.name)) for disk in plan.disks))


def _data_bytes(repository: Repository, disk: PointDisk) -> int:
    extents = repository.disk(disk).extents(0, disk.size)
    return sum(extent.length for extent in extents if extent.kind is ExtentKind.DATA)


def refuse_no_space(plan: TargetPlan) -> None:
    """Raise ``NoSpace`` when the data of all disks cannot fit where they would go."""
    for file_system in {disk.file_system for disk in plan.disks}:
        there = [disk for disk in plan.disks if disk.file_system == file_system]
        needed = sum(disk.data or 0 for disk in there)
        if needed > there[0].free:
            raise NoSpace(
                f"{', '.join(disk.path for disk in there)} need {format_bytes(needed)}, but only"
                f" {format_bytes(there[0].free)} are free there",
                meaning="Nothing was written",
                hint="Make room, or choose another place with --folder, --pool or --place",
            )
