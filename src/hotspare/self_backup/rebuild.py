"""A control plane made again of a self-backup: first all is staged, then each file is put in its place.

A rebuild that was killed is begun again and goes on: what it has put in place already is known by the digests
that it noted before. Nothing of somebody else is written over unless that is asked for, and then it is kept
beside, under another name.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from blake3 import blake3

from hotspare.access.audit import AuditLog
from hotspare.access.database import FILE_NAME as ACCESS
from hotspare.access.database import AccessDatabase
from hotspare.block.file import failure_of, make_name_durable
from hotspare.catalog.catalog import FILE_NAME as CATALOG
from hotspare.catalog.opening import make_folder
from hotspare.errors import AuditBroken, Conflict, RepositoryDamaged, TargetExists
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.self_backup.manifest import KeptFile, Manifest, Place, Places, manifest_of
from hotspare.units import MIB
from hotspare.whole_file import replace_file

_STAGING = ".self-rebuild"
_JOURNAL = "journal.json"
_PIECE = 4 * MIB
_ORDER = (Place.ENVELOPES, Place.SETTINGS, Place.CONFIGURATION, Place.POLICIES, Place.STATE)
"""Who may do what comes last of all: before that nobody can log in."""

Action = Literal["write", "there", "replace", "conflict"]


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done with one file.

    ``there``: it is what the self-backup has already. ``replace``: something else is there, and is put aside.
    ``conflict``: something else is there, and nothing is done.
    """

    file: KeptFile
    path: Path
    action: Action


class Rebuilt(NamedTuple):
    """What came of it."""

    put_aside: tuple[Path, ...]
    audit: tuple[int, str] | None
    """Number and hash of the last entry of the record, which says that it was rebuilt; None without users."""
    audit_problem: str
    """How the record is broken; empty when it is whole."""


def plan_rebuild(manifest: Manifest, places: Places, *, force: bool) -> list[Step]:
    """Compare a self-backup with what is on this host; in the order in which things are put in place."""
    ours = _read_journal(places)
    ordered = sorted(manifest.files, key=lambda file: (_ORDER.index(file.place), file.path == ACCESS))
    return [_step(file, places.path(file.place, file.path), ours, force=force) for file in ordered]


def rebuild(
    repository: Repository,
    point: RestorePoint,
    places: Places,
    steps: Sequence[Step],
    host: str,
    finish_catalog: Callable[[Path], None],
) -> Rebuilt:
    """Put in place what is to be written; ``finish_rebuild`` has to follow.

    Args:
        repository: where the self-backup is.
        point: the self-backup.
        places: the folders of this host.
        steps: as ``plan_rebuild`` gave them.
        host: name of this host, for the record.
        finish_catalog: brings the catalog in a folder up to date, before it is put in place.

    Raises:
        TargetExists: there is a conflict; nothing was changed.
        Conflict: a server uses a database that would be replaced; nothing was changed.
        RepositoryDamaged: a file is not what was kept; nothing was changed.
        NoSpace, PermissionRefused: something cannot be written.
    """
    refuse_conflicts(steps)
    todo = [step for step in steps if step.action in {"write", "replace"}]
    _refuse_in_use(todo)
    make_folder(places.state)
    for step in todo:
        _stage(repository, point, step)
    staging = places.state / _STAGING
    audit, problem = None, ""
    # Before they are put in place: a second try would take what was changed there for somebody else's.
    if any(step.file.path == CATALOG for step in todo):
        finish_catalog(staging)
    if any(step.file.path == ACCESS for step in todo):
        audit, problem = _go_on_with_record(staging, point, manifest_of(point), host)
    _note_ours(places, todo)
    put_aside = [path for step in todo for path in _put_in_place(step)]
    return Rebuilt(tuple(put_aside), audit, problem)


def finish_rebuild(places: Places, steps: Sequence[Step]) -> None:
    """Let go of what a second try would go by, once it was told that all is done."""
    for folder in {_staged(step.path).parent for step in steps} | {places.state / _STAGING}:
        shutil.rmtree(folder, ignore_errors=True)


def refuse_conflicts(steps: Sequence[Step]) -> None:
    """Raise ``TargetExists`` when something of somebody else is in the way."""
    conflicts = [str(step.path) for step in steps if step.action == "conflict"]
    if conflicts:
        more = f" and {len(conflicts) - 5} more" if len(conflicts) > 5 else ""
        raise TargetExists(
            f"This host has a control plane of its own already: {', '.join(conflicts[:5])}{more}",
            meaning="Nothing was changed",
            hint="See what is different with --dry-run; --force puts what is there aside and goes on",
        )


def _step(file: KeptFile, path: Path, ours: dict[str, str], *, force: bool) -> Step:
    if not path.exists():
        return Step(file, path, "write")
    if _digest(path) in {file.digest, ours.get(str(path))}:
        return Step(file, path, "there")
    if not path.stat().st_size or (path.suffix == ".sqlite" and _has_nothing(path)):
        return Step(file, path, "write")
    return Step(file, path, "replace" if force else "conflict")


def _has_nothing(database: Path) -> bool:
    """Tell whether a database is one that a command has just begun: with no history, and nobody in it."""
    tables = {CATALOG: ("runs", "load_samples"), ACCESS: ("users", "audit")}[database.name]
    try:
        with closing(sqlite3.connect(database)) as connection:
            return not any(
                connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608 - named above
                for table in tables
            )
    except sqlite3.Error:
        return False


def _refuse_in_use(todo: Sequence[Step]) -> None:
    """Keep from replacing a database below a server, which would go on with what was put aside."""
    databases = {str(step.path.resolve()) for step in todo if step.path.suffix == ".sqlite"}
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            used = str(descriptor.readlink())
        except OSError:
            continue  # the process is gone, or not ours to look at
        if used in databases:
            raise Conflict(
                f"{used} is in use by process {descriptor.parts[2]}",
                meaning="Nothing was changed",
                hint="Stop the server of this host (systemctl stop hotspare), and try again",
            )


def _digest(path: Path) -> str:
    try:
        hasher = blake3()
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                hasher.update(piece)
        return hasher.hexdigest()
    except OSError as error:
        raise failure_of(path, "read", error) from error


def _staged(path: Path) -> Path:
    """Tell where a file waits: in the same file system, so that it is put in place at once or not at all."""
    return path.parent / _STAGING / path.name


def _stage(repository: Repository, point: RestorePoint, step: Step) -> None:
    staged = _staged(step.path)
    hasher = blake3()
    with _explained(staged):
        private = step.file.place in {Place.STATE, Place.ENVELOPES}
        step.path.parent.mkdir(mode=0o700 if private else 0o755, parents=True, exist_ok=True)
        staged.parent.mkdir(mode=0o700, exist_ok=True)
        staged.unlink(missing_ok=True)  # of a rebuild that was killed
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for piece in content_of(repository, point, step.file):
                hasher.update(piece)
                file.write(piece)
            file.flush()
            os.fchmod(file.fileno(), step.file.mode)
            os.fsync(file.fileno())
    if hasher.hexdigest() != step.file.digest:
        raise RepositoryDamaged(
            f"{step.file.disk} of the self-backup {point.id} is not what was kept",
            meaning="Nothing was changed",
            hint="Run 'hotspare verify', and name another self-backup: hotspare self list",
        )


def content_of(repository: Repository, point: RestorePoint, file: KeptFile) -> Iterator[bytes]:
    """Yield the content of a file of a self-backup. Raises ``RepositoryDamaged``."""
    if not file.size:
        return
    disk = next((one for one in point.disks if one.name == file.disk), None)
    if disk is None or disk.size != file.size:
        raise RepositoryDamaged(
            f"{file.disk} is listed in the self-backup {point.id} and is not there",
            meaning="Nothing was changed",
            hint="Name another self-backup: hotspare self list",
        )
    reader = repository.disk(disk)
    for offset in range(0, disk.size, _PIECE):
        piece = bytearray(min(_PIECE, disk.size - offset))
        reader.read_into(offset, memoryview(piece))
        yield bytes(piece)


def _go_on_with_record(
    folder: Path, point: RestorePoint, manifest: Manifest, host: str
) -> tuple[tuple[int, str] | None, str]:
    """Follow the record that comes back, drop logins, and say in the record that it was rebuilt."""
    known = (manifest.audit.number, manifest.audit.hash) if manifest.audit else None
    with closing(AccessDatabase(folder)) as access:
        log = AuditLog(access)
        problem = manifest.audit_problem
        try:
            log.verify(known)
        except AuditBroken as error:
            problem = error.what
        access.change("DELETE FROM tokens WHERE kind = 'login'")
        detail: dict[str, Any] = {"self_backup": point.id, "of": manifest.host}
        detail["made_at"] = point.finished_at.isoformat(timespec="seconds")
        outcome = AuditBroken.code if problem else "ok"
        if problem:
            detail["problem"] = problem
        try:
            entry = log.add("", "self rebuild", host, outcome=outcome, detail=detail)
        except AuditBroken as error:
            return None, error.what  # its last entry is none that could be gone on from
    return (entry.number, entry.hash), problem


def _read_journal(places: Places) -> dict[str, str]:
    """Give the digests of what a rebuild that was killed may have put in place, by path."""
    try:
        return msgspec.json.decode((places.state / _STAGING / _JOURNAL).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}


def _note_ours(places: Places, todo: Sequence[Step]) -> None:
    ours = _read_journal(places) | {str(step.path): _digest(_staged(step.path)) for step in todo}
    journal = places.state / _STAGING / _JOURNAL
    with _explained(journal):
        journal.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(journal, msgspec.json.encode(ours))


def _put_in_place(step: Step) -> list[Path]:
    """Rename a staged file over its place; gives where what was there is now."""
    put_aside = []
    with _explained(step.path):
        if step.action == "replace":
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
            aside = step.path.with_name(f"{step.path.name}.before-rebuild-{stamp}")
            _settle(step.path)
            os.link(step.path, aside)
            put_aside.append(aside)
        if step.path.suffix == ".sqlite":
            # What belongs to another file must not be taken for a part of this one.
            for suffix in ("-wal", "-shm", "-journal"):
                step.path.with_name(step.path.name + suffix).unlink(missing_ok=True)
        _staged(step.path).replace(step.path)
        make_name_durable(step.path)
    return put_aside


def _settle(path: Path) -> None:
    """Bring what a database has in files beside it into the file itself, before it is put aside."""
    if path.suffix == ".sqlite":
        with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        failure = failure_of(path, "write", error)
        failure.meaning = "The control plane is not whole yet; what was there is as it was, or put aside"
        failure.hint = "Mend that and run the same command again: it goes on"
        raise failure from error
