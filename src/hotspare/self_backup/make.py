"""Making a self-backup: collected, stored as a restore point, and older ones thinned out."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from hotspare import __version__
from hotspare.access.audit import AuditLog
from hotspare.access.database import AccessDatabase
from hotspare.backup.content import store_content
from hotspare.errors import AuditBroken, HotspareError, PermissionRefused, PointKept, RepositoryDamaged
from hotspare.platforms.platform import Consistency, Machine, PowerState
from hotspare.policy.retention import DatedPoint, Retention, judge_points
from hotspare.repository.point import SELF_BACKUP, PointDisk, RestorePoint, new_point_id
from hotspare.repository.repository import Repository
from hotspare.repository.writer import RepositoryWriter
from hotspare.self_backup.collect import Item, configuration_items, database_items, fingerprint
from hotspare.self_backup.manifest import Anchor, Manifest, NotKept, Place, Places, manifest_of

RETENTION = Retention(last=3, daily=7, weekly=4, monthly=12)
"""Of self-backups: days, weeks and months are those of UTC."""
_STAGING = ".self-backup"
_INSTALLATION = "installation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What of a self-backup is not in files of this host."""

    host: str
    settings: dict[str, str] = field(default_factory=dict)
    envelopes: Sequence[tuple[str, bytes]] = ()
    """Path and content of key slots, ``<id of the repository>/keys/…``."""
    orders: Sequence[dict[str, Any]] = ()
    not_kept: Sequence[NotKept] = ()
    remarks: Sequence[str] = ()


class Made(NamedTuple):
    """A new self-backup."""

    point: RestorePoint
    manifest: Manifest
    forgotten: tuple[str, ...]
    """Ids of older ones that retention did not keep."""


def make_self_backup(repository: Repository, places: Places, beside: Beside) -> Made:
    """Store what this host's control plane is, and forget what retention does not keep of earlier ones.

    Waits for another self-backup of this host that goes on.

    Raises:
        PermissionRefused: a file may not be read, or the repository not be written to.
        NoSpace, StorageError: the repository could not take it.
        RunExpelled: a collector of garbage had given it up.
        HotspareError: a database cannot be copied.
    """
    started_at = datetime.now(UTC)
    with (
        _alone(places.state) as staging,
        closing(AccessDatabase(places.state)) as access,
        repository.writer() as writer,
    ):
        machine_id = machine_id_of(installation_of(access))
        unreadable: list[str] = []
        earlier = repository.machine_points(
            machine_id, lambda name, _error: unreadable.append(name.rpartition("/")[2])
        )
        # Before the databases are copied, so that the copy surely has the entry that is noted.
        anchor, problem = _anchor(access, earlier)
        configuration = list(configuration_items(places))
        items = [*configuration, *database_items(places, staging)]
        items += [Item.of(Place.ENVELOPES, path, content) for path, content in beside.envelopes]
        manifest = Manifest(
            installation=installation_of(access),
            host=beside.host,
            program=__version__,
            files=tuple(item.file for item in items),
            fingerprint=fingerprint(configuration, access),
            settings=dict(beside.settings),
            audit=anchor,
            audit_problem=problem,
            orders=tuple(beside.orders),
            not_kept=tuple(beside.not_kept),
            remarks=tuple(beside.remarks),
        )
        disks = _store(repository, writer, items, earlier[-1] if earlier else None)
        writer.flush()
        newest = max(["", *unreadable, *(point.id for point in earlier)])
        point = _point(manifest, disks, new_point_id(started_at, after=newest), started_at, writer.session_id)
        writer.publish(point)
    return Made(point, manifest, _thin(repository, [*earlier, point]))


def installation_of(access: AccessDatabase) -> str:
    """Give the id of this control plane, made at first use; it comes back with a rebuild."""
    with access.transaction():
        known = access.setting(_INSTALLATION, "")
        if not known:
            known = secrets.token_hex(8)
            access.set(_INSTALLATION, known)
    return known


def machine_id_of(installation: str) -> str:
    """Give the id of the "machine" that a control plane is."""
    return f"{SELF_BACKUP}:{installation}"


def current_fingerprint(places: Places) -> str:
    """Give the fingerprint that a self-backup would have now. Raises as ``make_self_backup``."""
    with closing(AccessDatabase(places.state)) as access:
        return fingerprint(configuration_items(places), access)


def last_self_backup(repository: Repository, places: Places) -> RestorePoint | None:
    """Give the newest self-backup of this host that can be read; None without one."""
    with closing(AccessDatabase(places.state)) as access:
        machine_id = machine_id_of(installation_of(access))
    points = repository.machine_points(machine_id, lambda _name, _error: None)
    return points[-1] if points else None


@contextmanager
def _alone(state: Path) -> Iterator[Path]:
    """Give an empty folder for copies, which nobody else of this host uses meanwhile."""
    staging = state / _STAGING
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(state / f"{_STAGING}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PermissionRefused(
            f"The state folder {state} cannot be written: {error.strerror}",
            meaning="There is no new self-backup",
            hint="Name a folder that this user may write with HOTSPARE_STATE_FOLDER",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(staging, ignore_errors=True)  # what a killed one has left
        staging.mkdir(mode=0o700)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


def _anchor(access: AccessDatabase, earlier: Sequence[RestorePoint]) -> tuple[Anchor | None, str]:
    """Follow the audit record, which has to go on from what the last self-backup saw of it."""
    try:
        number, last = AuditLog(access).verify(_known(earlier))
    except AuditBroken as error:
        return None, error.what
    return (Anchor(number=number, hash=last) if number else None), ""


def _known(earlier: Sequence[RestorePoint]) -> tuple[int, str] | None:
    for point in reversed(earlier):
        try:
            audit = manifest_of(point).audit
        except HotspareError:
            continue
        if audit is not None:
            return audit.number, audit.hash
    return None


def _store(
    repository: Repository, writer: RepositoryWriter, items: Sequence[Item], parent: RestorePoint | None
) -> tuple[PointDisk, ...]:
    before = {disk.name: disk for disk in parent.disks} if parent else {}
    disks = []
    for item in items:
        if not item.file.size:
            continue
        earlier = before.get(item.file.disk)
        stored = store_content(repository, writer, item.file.disk, item.content, earlier)
        disks.append(
            PointDisk(
                **msgspec.structs.asdict(stored),
                mode="full",
                bytes_processed=item.file.size,
                bytes_read=item.file.size,
            )
        )
    return tuple(disks)


def _point(
    manifest: Manifest, disks: tuple[PointDisk, ...], point_id: str, started_at: datetime, session: str
) -> RestorePoint:
    machine = Machine(
        id=machine_id_of(manifest.installation),
        name=f"hotspare@{manifest.host}",
        platform=SELF_BACKUP,
        state=PowerState.RUNNING,
        native=msgspec.json.encode(manifest).decode(),
    )
    return RestorePoint(
        id=point_id,
        machine_id=machine.id,
        machine_name=machine.name,
        platform=SELF_BACKUP,
        started_at=started_at,
        finished_at=datetime.now(UTC),
        consistency=Consistency.APPLICATION.value,
        disks=disks,
        machine=msgspec.to_builtins(machine),
        warnings=manifest.remarks,
        session=session,
    )


def _thin(repository: Repository, points: Sequence[RestorePoint]) -> tuple[str, ...]:
    """Forget what retention does not keep; where the store takes nothing away, all stay."""
    dated = [DatedPoint(point.id, point.finished_at) for point in points]
    verdicts = judge_points(dated, RETENTION, ZoneInfo("UTC"), datetime.now(UTC))
    doomed = {verdict.point.id for verdict in verdicts if not verdict.kept}
    forgotten = []
    for point in points:
        if point.id in doomed:
            try:
                repository.forget(point)
            except PermissionRefused:
                break
            except (PointKept, RepositoryDamaged):
                continue
            forgotten.append(point.id)
    return tuple(forgotten)
