"""``hotspare files restore``: files to a folder, into a tar archive, or into a running machine."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

from cyclopts import Parameter

from hotspare import events
from hotspare.cancellation import Cancellation, cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.files_options import AS_KNOWN, Reading
from hotspare.cli.history import History
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.progress import shown_progress
from hotspare.cli.session import Session
from hotspare.documents.file import plain
from hotspare.errors import StorageError, TargetExists, UsageError
from hotspare.guest.files.by_path import FilesByPath
from hotspare.platforms.guest_files import GuestFilesPlatform
from hotspare.repository.point import RestorePoint
from hotspare.repository.select import find_point
from hotspare.restore.files.into_guest import GuestOptions, restore_into_guest
from hotspare.restore.files.outcome import Restored
from hotspare.restore.files.selection import Amount, Selection
from hotspare.restore.files.to_folder import FolderOptions, restore_to_folder
from hotspare.restore.files.to_tar import restore_to_tar
from hotspare.units import format_bytes

_WARNINGS_MAX = 50


def restore(
    point: str,
    /,
    *paths: str,
    to: str | None = None,
    tar: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    into_guest: Switch = False,
    machine: str | None = None,
    platform: Annotated[str | None, Parameter(name="--platform")] = None,
    full_paths: Switch = False,
    no_streams: Switch = False,
    overwrite: Switch = False,
    dry_run: Switch = False,
    reading: Reading = AS_KNOWN,
    options: Options = DEFAULTS,
) -> None:
    """Restore files and folders from a restore point, without restoring the machine.

    Nothing that is there is overwritten without --overwrite.

    Args:
        point: Id of a restore point or the beginning of one; or a machine's name, for its newest.
        paths: As the machine knows them (/etc/hosts), or in a volume (vda1:/etc). With a slash at its end,
        what
            is in a folder, without the folder.
        to: The folder they go to; with --into-guest, a folder of the guest.
        tar: The archive to write; - for standard output.
        into_guest: Write them into the running machine, through its guest agent; without --to, to where
        they were.
        machine: With --into-guest: another machine than that of the restore point.
        platform: With --into-guest: URI of its platform; else HOTSPARE_PLATFORM, else qemu:///system.
        full_paths: Keep whole paths below the target, rather than last names.
        no_streams: Leave out alternate data streams (NTFS), which become files NAME:STREAM otherwise.
        overwrite: Replace what is there; files of the same size and time are taken for the same, as rsync
        does.
        dry_run: Only say how much it would be.
        reading: See below.
        options: See below.
    """
    target = _Target(to, tar, into_guest, machine, full_paths, no_streams, overwrite)
    target.refuse_nonsense(paths)
    with Session(options, platform=platform) as session, cancelled_by_signals() as cancellation:
        repository = session.repository(cached=True)
        found = find_point(repository, point)
        with reading.opener(session, repository)(found) as files:
            selection = Selection(files, paths, full_paths)
            if dry_run:
                _print_plan(session, found, selection.measure(cancellation), target)
                return
            history = History(session, repository.backend.url)
            with (
                history.run("restore", found.machine_name, found.platform) as run,
                shown_progress(session.options.progress_form, cancellation) as listener,
            ):
                run.point = found.id
                done = _restore(session, found, selection, target, run.watching(listener), cancellation)
                _print_result(session, found, files, target, done)
                done.refuse_failures()


@dataclass(frozen=True, slots=True)
class _Target:
    to: str | None
    tar: str | None
    into_guest: bool
    machine: str | None
    full_paths: bool
    no_streams: bool
    overwrite: bool

    def refuse_nonsense(self, paths: tuple[str, ...]) -> None:
        """Raise ``UsageError`` when the options do not go together."""
        if not paths:
            raise UsageError(
                "No file is named", meaning="Nothing was restored", hint="Name some after the point"
            )
        if self.tar is not None and (self.to or self.into_guest or self.overwrite):
            raise UsageError(
                "--tar goes neither with --to, --into-guest nor --overwrite", meaning="Nothing was restored"
            )
        if not (self.to or self.tar or self.into_guest):
            raise UsageError(
                "It is not said where the files go",
                meaning="Nothing was restored",
                hint="Give --to FOLDER, --tar FILE or --into-guest",
            )
        if self.machine and not self.into_guest:
            raise UsageError("--machine goes with --into-guest only", meaning="Nothing was restored")

    @property
    def words(self) -> str:
        """Where it goes, for people."""
        if self.into_guest:
            return f"the guest, {self.to}" if self.to else "the guest, where they were"
        return self.to or (self.tar if self.tar != "-" else "standard output") or ""


def _restore(
    session: Session,
    point: RestorePoint,
    selection: Selection,
    target: _Target,
    listener: events.Listener,
    cancellation: Cancellation,
) -> Restored:
    name = point.machine_name
    listener(events.PhaseStarted(name, "list-files"))
    amount = selection.measure(cancellation)
    listener(events.DiskStarted(name, "files", amount.bytes, amount.bytes, "restore"))

    def report(handled: int) -> None:
        listener(events.Progress(name, "files", handled, handled))

    done = _restored(session, point, selection, target, report, cancellation)
    listener(events.DiskFinished(name, "files"))
    return done


def _restored(
    session: Session,
    point: RestorePoint,
    selection: Selection,
    target: _Target,
    report: Callable[[int], None],
    cancellation: Cancellation,
) -> Restored:
    if target.into_guest:
        platform = session.platform()
        if not isinstance(platform, GuestFilesPlatform):
            raise UsageError(
                f"At {platform.uri} no files can be written into running machines",
                meaning="Nothing was restored",
                hint="Restore them with --to FOLDER or --tar FILE",
            )
        with platform.guest_files(target.machine or point.machine_id) as guest:
            guest_options = GuestOptions(target.to, target.overwrite)
            return restore_into_guest(selection, guest, guest_options, report, cancellation)
    if target.tar is not None:
        with _archive(target.tar) as stream:
            return restore_to_tar(selection, stream, report, cancellation, streams=not target.no_streams)
    folder_options = FolderOptions(target.overwrite, streams=not target.no_streams)
    return restore_to_folder(selection, Path(target.to or "."), folder_options, report, cancellation)


def _archive(name: str) -> AbstractContextManager[IO[bytes]]:
    if name == "-":
        if sys.stdout.isatty():
            raise UsageError("An archive on a terminal helps nobody", meaning="Nothing was restored")
        return nullcontext(sys.stdout.buffer)
    try:
        # Only for its owner: there may be anything in it, also secrets of the guest.
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise TargetExists(
            f"{name} exists already",
            meaning="It was left alone and nothing was restored",
            hint="Choose another name",
        ) from error
    except OSError as error:
        raise StorageError(
            f"{name} cannot be made: {error.strerror}", meaning="Nothing was restored"
        ) from error
    return os.fdopen(descriptor, "wb")


def _print_plan(session: Session, point: RestorePoint, amount: Amount, target: _Target) -> None:
    if session.as_json:
        fields = {"point": point.id, "entries": amount.entries, "bytes": amount.bytes}
        output.print_document(output.document("files-restore-plan", **fields))
        return
    output.print_text(
        f"Would restore {amount.entries} files and folders, {format_bytes(amount.bytes)}, to {target.words}."
    )


def _print_result(
    session: Session, point: RestorePoint, files: FilesByPath, target: _Target, done: Restored
) -> None:
    for sentence in (*files.all_remarks, *done.warnings, *done.problems[:_WARNINGS_MAX]):
        output.warn(sentence)
    if target.tar == "-":
        return  # standard output is the archive
    if session.as_json:
        fields = {
            "point": point.id,
            "entries": done.entries,
            "bytes": done.bytes,
            "skipped": done.skipped,
            "failed": done.failed,
            "problems": [plain(sentence) for sentence in done.problems],
            "warnings": [plain(sentence) for sentence in done.warnings],
        }
        output.print_document(output.document("files-restored", **fields))
        return
    skipped = f" ({done.skipped} were there already)" if done.skipped else ""
    output.print_text(
        f"Restored {done.entries} files and folders{skipped}, {format_bytes(done.bytes)}, to {target.words}."
    )
