"""Restoring single disks to files or block devices.

A file is written under another name and takes its own only when it is complete and durable: whatever
was there before is either still there or wholly replaced. A device, and what is restored over as a
differential, is written where it is: broken off, it has to be restored again.
"""

import errno
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hotspare import events
from hotspare.block.device import BlockDisk
from hotspare.block.file import RawFile, failure_of
from hotspare.block.new_images import FORMAT_OF_SUFFIX, NewImage
from hotspare.block.qemu import QemuNbd
from hotspare.block.qemu_lock import UsedByQemuError, WriterLock, is_used_by_qemu
from hotspare.cancellation import Cancellation
from hotspare.errors import NoSpace, PermissionRefused, SourceLost, StorageError, TargetExists, UsageError
from hotspare.repository.point import PointDisk, RestorePoint
from hotspare.repository.repository import Repository
from hotspare.restore.differential import Written
from hotspare.restore.machine import kept_for_later, write_disk
from hotspare.units import format_bytes

_WATCH_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskOptions:
    """What the user may choose."""

    force: bool = False
    """Overwrite what is there."""
    differential: bool = False
    """Write over what is there, and only what differs."""
    format: str | None = None
    """One of ``qemu.FORMATS``; None for what the name's ending says, or raw."""

    def format_of(self, path: Path) -> str:
        """Give the format of what is written to ``path``."""
        if path.is_block_device():
            return self.format or "raw"
        return self.format or FORMAT_OF_SUFFIX.get(path.suffix.lower(), "raw")


def restore_disks(
    repository: Repository,
    point: RestorePoint,
    targets: Mapping[str, Path],
    options: DiskOptions,
    listener: events.Listener,
    cancellation: Cancellation,
) -> dict[str, Written]:
    """Write disks of a restore point to files or devices; give what each took.

    All targets are looked at before the first is written. What a killed restore left of a file is gone on
    with.

    Args:
        repository: where the point is.
        point: whose disks.
        targets: disk name to file or block device.
        options: how.
        listener: told of the progress.
        cancellation: looked at before each piece.

    Raises:
        UsageError: the point has no such disk, or a target cannot be written in this way.
        TargetExists: something is at a path, or it is a device, and overwriting was not asked for.
        NoSpace: a device is too small or the file system full.
        PermissionRefused: it may not be written, or somebody uses it.
        RepositoryDamaged: a chunk cannot be read back.
        StorageError: the repository cannot be reached any more; what was written of a file is kept for later.
        Interrupted: ``cancellation`` was requested.
    """
    disks = [(_disk(point, name), path) for name, path in targets.items()]
    for _, path in disks:
        _check_target(path, options)
    written = {}
    for disk, path in disks:
        with _opened(path, disk, options) as target:
            written[disk.name] = write_disk(
                repository,
                point,
                disk,
                target.disk,
                point.machine_name,
                _watching(path, target.lock, listener),
                cancellation,
                blank=target.blank,
                compare=target.compare,
            )
    return written


@dataclass(frozen=True, slots=True)
class _Opened:
    disk: BlockDisk
    blank: bool
    compare: bool
    lock: WriterLock | None = None


@contextmanager
def _opened(path: Path, disk: PointDisk, options: DiskOptions) -> Iterator[_Opened]:
    if not options.differential and not path.is_block_device():
        with _new_file(path, disk, options) as (image, blank):
            yield _Opened(image, blank, compare=True)
    elif options.format_of(path) == "raw":
        with closing(_locked(path)) as lock, RawFile.open(path, read_only=False) as raw:
            _check_size(path, raw.size, disk, exact=path.is_file())
            yield _Opened(raw, blank=False, compare=options.differential, lock=lock)
            _refuse_started(path, lock)
    else:
        with (
            QemuNbd(path, options.format_of(path), read_only=False) as server,
            closing(server.connect()) as client,
        ):
            _check_size(path, client.size, disk, exact=True)
            yield _Opened(client, blank=False, compare=True)


@contextmanager
def _new_file(path: Path, disk: PointDisk, options: DiskOptions) -> Iterator[tuple[BlockDisk, bool]]:
    image = NewImage(path, options.format_of(path), disk.size, replace=options.force)
    try:
        with closing(image.writer()) as writer:
            yield writer, not image.resumed
        image.publish()
        image.keep()
    except StorageError as error:
        image.discard(keep_partial=True)
        raise kept_for_later(error) from error
    finally:
        image.discard()


def _check_target(path: Path, options: DiskOptions) -> None:
    if path.is_dir():
        raise UsageError(f"{path} is a folder", meaning="Nothing was written", hint="Name a file in it")
    there = path.exists() or path.is_symlink()
    if options.differential and not there:
        raise SourceLost(
            f"There is nothing at {path} to write over",
            meaning="Nothing was written",
            hint="Leave out --differential to make it anew",
        )
    if path.is_block_device():
        if options.format_of(path) != "raw":
            raise UsageError(
                f"{path} is a block device, which gets the plain bytes", hint="Leave out --format"
            )
        _refuse_used_device(path)
    if there and (options.differential or path.is_block_device()):
        _refuse_running_machine(path)
    if there and not (options.force or options.differential):
        what = (
            "is a block device, whose content would be lost" if path.is_block_device() else "exists already"
        )
        raise TargetExists(
            f"{path} {what}",
            meaning="It was left alone and nothing was restored",
            hint="Choose another name, or give --force to overwrite it, or --differential to write over it"
            " only what differs",
        )


def _refuse_used_device(path: Path) -> None:
    """Raise ``PermissionRefused`` for a device that is mounted, or part of a volume group or an array."""
    try:
        # On a device, O_EXCL without O_CREAT fails while the kernel itself uses it; see open(2).
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _used_by_kernel(path) from error
        # opening it for writing will say what is wrong


def _refuse_running_machine(path: Path) -> None:
    with suppress(OSError):  # opening it for writing will say what is wrong
        if is_used_by_qemu(path):
            raise _used_by_qemu(path)


def _locked(path: Path) -> WriterLock:
    """Keep others from what is written in its place: QEMU, and the kernel itself from a device."""
    try:
        return WriterLock(path)
    except UsedByQemuError as error:
        raise _used_by_qemu(path) from error
    except OSError as error:
        raise (
            _used_by_kernel(path) if error.errno == errno.EBUSY else failure_of(path, "lock", error)
        ) from error


def _watching(path: Path, lock: WriterLock | None, listener: events.Listener) -> events.Listener:
    """Stop writing to a device that a machine is started upon; a file's lock prevents that."""
    if lock is None or not path.is_block_device():
        return listener
    last = time.monotonic()

    def watch(event: events.Event) -> None:
        nonlocal last
        if time.monotonic() - last >= _WATCH_SECONDS:
            _refuse_started(path, lock)
            last = time.monotonic()
        listener(event)

    return watch


def _refuse_started(path: Path, lock: WriterLock) -> None:
    try:
        lock.check()
    except UsedByQemuError as error:
        raise PermissionRefused(
            f"QEMU has opened {path} while it was restored, probably for a machine that was started",
            meaning="It is a mixture of what was there and what was restored, and may have been written to",
            hint="Power the machine off and restore the disk again",
        ) from error


def _used_by_kernel(path: Path) -> PermissionRefused:
    return PermissionRefused(
        f"{path} is in use: mounted, or part of a volume group or an array",
        meaning="It was left alone and nothing was restored",
        hint="Choose another device, or let go of this one first (umount)",
    )


def _used_by_qemu(path: Path) -> PermissionRefused:
    return PermissionRefused(
        f"{path} is in use by QEMU, probably a running machine",
        meaning="It was left alone and nothing was restored",
        hint="Power the machine off first, or restore it with --in-place --power-off",
    )


def _check_size(path: Path, size: int, disk: PointDisk, *, exact: bool) -> None:
    if size < disk.size or (exact and size != disk.size):
        raise NoSpace(
            f"{path} has {format_bytes(size)}, but the disk has {format_bytes(disk.size)}",
            meaning="It was left alone and nothing was restored",
            hint="Leave out --differential to make it anew" if exact else "Choose a larger device",
        )


def _disk(point: RestorePoint, name: str) -> PointDisk:
    for disk in point.disks:
        if disk.name == name:
            return disk
    names = ", ".join(disk.name for disk in point.disks) or "none"
    raise UsageError(
        f"Restore point {point.id} has no disk '{name}'",
        meaning="Nothing was written",
        hint=f"Its disks: {names}",
    )
