"""``hotspare self rebuild``: a server on an empty host, from the repository alone."""

import socket
import tomllib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from hotspare.access.database import AccessDatabase
from hotspare.catalog.catalog import FILE_NAME as CATALOG
from hotspare.catalog.catalog import Catalog
from hotspare.catalog.opening import make_folder
from hotspare.catalog.rows import RunRow
from hotspare.cli import output
from hotspare.cli.history import point_row
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.self import chosen, print_not_kept, self_backups
from hotspare.cli.self_sources import places_of, put_orders_back
from hotspare.cli.session import Session
from hotspare.errors import AuditBroken, HotspareError
from hotspare.repository.point import RestorePoint, of_machines, order_of_points
from hotspare.repository.repository import Repository
from hotspare.repository.tested import read_all_tested
from hotspare.self_backup.manifest import Manifest, Place, Places, manifest_of
from hotspare.self_backup.rebuild import (
    Rebuilt,
    Step,
    content_of,
    finish_rebuild,
    plan_rebuild,
    refuse_conflicts,
)
from hotspare.self_backup.rebuild import rebuild as rebuild_files
from hotspare.settings import Settings

_WORDS = {
    "write": ("would come back", "came back"),
    "there": ("is there already", "was there already"),
    "replace": (
        "would come back; what is there would be put aside",
        "came back; what was there is put aside",
    ),
    "conflict": ("something else is there", "something else is there"),
}


def rebuild(
    point: str | None = None,
    /,
    *,
    dry_run: Switch = False,
    force: Switch = False,
    options: Options = DEFAULTS,
) -> None:
    """Make a lost server again: settings, policies, history, users, audit record and certificate.

    All that is needed is the repository and what opens it: a passphrase, or the recovery key of its recovery
    kit. Stop a server of this host before. A rebuild that was killed is finished by the same command.
    Without any self-backup, the history is made of the restore points, as far as they tell it.

    Args:
        point: Id of a self-backup or the beginning of it; else the newest.
        dry_run: Only say what would be put where.
        force: Put aside what is there already, and go on.
        options: See below.
    """
    with Session(options) as session:
        make_folder(session.settings.state_folder)  # for its owner only, before the index is put into it
        repository = session.repository()
        kept = self_backups(repository)
        if kept or point:
            found = chosen(kept, point)
            _Rebuild(session, repository, found).run(dry_run=dry_run, force=force)
        else:
            _from_points_alone(session, repository, dry_run=dry_run)


class _Rebuild:
    """A rebuild from one self-backup."""

    def __init__(self, session: Session, repository: Repository, point: RestorePoint) -> None:
        self._session = session
        self._repository = repository
        self._point = point
        self._manifest = manifest_of(point)
        kept_settings = _kept_settings(repository, point, self._manifest)
        self._places = _places_after(session.settings, kept_settings)
        self._job_database = session.settings.job_database
        if session.settings.origins["job_database"] == "default":
            usual = f"sqlite:///{self._places.state}/jobs.sqlite"
            self._job_database = kept_settings.get("job_database", usual)

    def run(self, *, dry_run: bool, force: bool) -> None:
        """Do it, and tell. Raises ``AuditBroken`` at the end, when all is done and the record is broken."""
        steps = plan_rebuild(self._manifest, self._places, force=force)
        done = Rebuilt((), None, self._manifest.audit_problem)
        orders = len(self._manifest.orders)
        if not dry_run:
            refuse_conflicts(steps)
            done = rebuild_files(
                self._repository, self._point, self._places, steps, socket.gethostname(), self._finish_catalog
            )
            if not (self._places.state / CATALOG).exists():
                self._finish_catalog(self._places.state)
            orders = put_orders_back(self._manifest, self._job_database)
        self._tell(steps, done, orders, dry_run=dry_run)
        if not dry_run:
            finish_rebuild(self._places, steps)
        if done.audit_problem and not dry_run:
            raise AuditBroken(
                f"The audit record that came back is broken: {done.audit_problem}",
                meaning="All came back; somebody had tampered with that record before, or it was damaged",
                hint="Compare it with earlier self-backups (hotspare self list) and the log of the system",
            )

    def _finish_catalog(self, folder: Path) -> None:
        points = of_machines(self._repository.points(lambda _name, error: output.warn(error.what)))
        fill_from_points(folder, self._repository, points)

    def _tell(self, steps: Sequence[Step], done: Rebuilt, orders: int, *, dry_run: bool) -> None:
        manifest = self._manifest
        if self._session.as_json:
            files = [
                {"place": one.file.place.value, "path": str(one.path), "action": one.action} for one in steps
            ]
            _print_rebuilt(
                dry_run=dry_run,
                self_backup=self._point.id,
                of=manifest.host,
                made_at=output.utc_time(self._point.finished_at),
                files=files,
                put_aside=[str(path) for path in done.put_aside],
                orders=orders,
                audit_number=done.audit[0] if done.audit else None,
                audit_hash=done.audit[1] if done.audit else None,
                audit_problem=done.audit_problem or None,
                not_kept=[{"what": one.what, "remedy": one.remedy} for one in manifest.not_kept],
                settings=[{"variable": name, "value": value} for name, value in manifest.settings.items()],
            )
            return
        made = output.local_time(self._point.finished_at)
        output.print_text(f"Self-backup {self._point.id} of {manifest.host}, made {made}:")
        for step in steps:
            output.print_text(f"  {step.path}: {_WORDS[step.action][0 if dry_run else 1]}")
        for path in done.put_aside:
            output.print_text(f"Put aside: {path}")
        if orders:
            verb = "would wait" if dry_run else "wait"
            output.print_text(f"Backups that somebody had asked for and that {verb} again: {orders}")
        if done.audit:
            output.print_text(
                f"The audit record goes on. Note its last entry: {done.audit[0]}:{done.audit[1]}"
            )
        print_not_kept(manifest)
        output.print_text(
            f"Users, roles and tokens are those of {made}: look whether somebody is back who should not be"
            " (hotspare user list). Everybody has to log in again."
        )
        if not dry_run:
            output.print_text("Next: hotspare doctor; hotspare policy list; systemctl enable --now hotspare")


def fill_from_points(folder: Path, repository: Repository, points: Sequence[RestorePoint]) -> int:
    """Note in a catalog what a repository's restore points tell; gives how many runs were added.

    Each point whose backup is not in the history becomes a run that succeeded.
    """
    url = repository.backend.url
    tested = read_all_tested(repository.backend, repository.keyring)
    with closing(Catalog.open(folder, output.warn)) as catalog:
        rows = [point_row(url, one, tested[one.id].boot if one.id in tested else None) for one in points]
        catalog.replace_points(url, rows)
        known = catalog.known_points()
        missing = [one for one in sorted(points, key=order_of_points) if one.id not in known]
        for one in missing:
            catalog.add_run(_run_of(one, url))
    return len(missing)


def _from_points_alone(session: Session, repository: Repository, *, dry_run: bool) -> None:
    points = of_machines(repository.points(lambda _name, error: output.warn(error.what)))
    state = session.settings.state_folder
    runs = len(points)
    if not dry_run:
        runs = fill_from_points(state, repository, points)
        with closing(AccessDatabase(state)) as access:
            _record(access, runs)
    if session.as_json:
        files = [{"place": Place.STATE.value, "path": str(state / CATALOG), "action": "write"}]
        _print_rebuilt(dry_run=dry_run, files=files)
        return
    verb = "would come back" if dry_run else "came back"
    machines = len({point.machine_id for point in points})
    output.print_text(
        f"The repository has no self-backup. Of its restore points {verb}: {runs} successful backups of"
        f" {machines} machines, in the history of {state / CATALOG}."
    )
    output.print_text(
        "What they do not tell is lost: settings, policies, users, the audit record, the certificate, and"
        " runs that failed. Make policies anew (hotspare policy add); the first start of the server makes a"
        " certificate and asks for the first user. 'hotspare self backup' keeps all of it from then on."
    )


def _record(access: AccessDatabase, runs: int) -> None:
    from hotspare.access.audit import AuditLog  # noqa: PLC0415 - only here

    detail: dict[str, Any] = {"self_backup": None, "runs": runs}
    AuditLog(access).add("", "self rebuild", socket.gethostname(), detail=detail)


def _print_rebuilt(**fields: object) -> None:
    usual: dict[str, object] = {
        "self_backup": None,
        "of": None,
        "made_at": None,
        "put_aside": [],
        "orders": 0,
        "audit_number": None,
        "audit_hash": None,
        "audit_problem": None,
        "not_kept": [],
        "settings": [],
    }
    output.print_document(output.document("self-rebuilt", **usual | fields))


def _kept_settings(repository: Repository, point: RestorePoint, manifest: Manifest) -> dict[str, str]:
    """Give what the configuration file that comes back says; it decides where other things belong."""
    for file in manifest.files:
        if file.place is Place.SETTINGS:
            try:
                table = tomllib.loads(b"".join(content_of(repository, point, file)).decode())
            except (ValueError, HotspareError) as error:
                output.warn(f"The settings that come back cannot be read: {error}")
                return {}
            return {key: value for key, value in table.items() if isinstance(value, str)}
    return {}


def _places_after(settings: Settings, kept: dict[str, str]) -> Places:
    """Give the folders as they will be: what a flag, a variable or a file of this host says comes first."""
    places = places_of(settings)

    def folder(key: str, now: Path) -> Path:
        said = kept.get(key) if settings.origins[key] == "default" else None
        return Path(said).expanduser() if said else now

    policies = folder("policy_folder", places.policies)
    return places._replace(policies=policies, state=folder("state_folder", places.state))


def _run_of(point: RestorePoint, url: str) -> RunRow:
    return RunRow(
        id=0,
        kind="backup",
        machine=point.machine_name,
        platform=point.platform,
        repository=url,
        started_at=point.started_at,
        finished_at=point.finished_at,
        outcome="ok",
        error_code=None,
        error=None,
        point=point.id,
        bytes_read=sum(disk.bytes_read for disk in point.disks),
        bytes_stored=sum(disk.bytes_stored for disk in point.disks),
        held_back_seconds=None,
        latency_factor=None,
    )
