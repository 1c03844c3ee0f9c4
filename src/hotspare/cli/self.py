"""``hotspare self``: Hotspare's own memory in the repository, and a server made of it again."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hotspare.catalog.rows import RunRow
from hotspare.cli import output
from hotspare.cli.help import OPENING, closing, noun
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.self_sources import beside_files, places_of
from hotspare.cli.session import Session
from hotspare.errors import (
    AuditBroken,
    Conflict,
    HotspareError,
    NoSpace,
    PointNotFound,
    TargetExists,
    UsageError,
)
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.self_backup.make import Made, make_self_backup
from hotspare.self_backup.manifest import Manifest, manifest_of
from hotspare.units import format_bytes

app = noun("self", "Keep Hotspare's own memory in the repository, and rebuild a lost server of it.")


@app.command(
    help_epilogue=closing(["hotspare self backup", "hotspare self backup -o json"], NoSpace, *OPENING)
)
def backup(*, options: Options = DEFAULTS) -> None:
    """Store this host's configuration, policies, history, users and certificate in the repository.

    A server does this by itself: some minutes after something was changed, and once a day. Of earlier ones
    the last 3 stay, and one of each of the last 7 days, 4 weeks and 12 months.

    Args:
        options: See below.
    """
    with Session(options) as session:
        repository = session.repository()
        made = back_up_self(session, repository)
        if session.as_json:
            fields = self_backup_fields(made.point, made.manifest)
            output.print_document(
                output.document("self-backup", self_backup=fields, forgotten=list(made.forgotten))
            )
        else:
            stored = format_bytes(sum(disk.bytes_stored for disk in made.point.disks))
            output.print_text(
                f"Made the self-backup {made.point.id}: {len(made.manifest.files)} files,"
                f" {format_bytes(_size(made.manifest))}, {stored} stored."
            )
        for remark in made.manifest.remarks:
            output.warn(remark)
        if made.manifest.audit_problem:
            output.warn(
                f"The record of what was done is broken: {made.manifest.audit_problem}. It was kept as it is;"
                " see 'hotspare audit verify'"
            )


def back_up_self(session: Session, repository: Repository) -> Made:
    """Make a self-backup, and note it in the history afterwards: the copy of that must not show it half-done.

    Raises as ``make_self_backup``.
    """
    started_at = datetime.now(UTC)
    catalog = session.catalog()
    try:
        made = make_self_backup(repository, places_of(session.settings), beside_files(session, repository))
    except HotspareError as error:
        catalog.add_run(_run(repository, started_at, error=error))
        raise
    catalog.add_run(_run(repository, started_at, point=made.point))
    return made


def _run(
    repository: Repository,
    started_at: datetime,
    *,
    point: RestorePoint | None = None,
    error: HotspareError | None = None,
) -> RunRow:
    disks = point.disks if point else ()
    return RunRow(
        id=0,
        kind="self-backup",
        machine="hotspare",
        platform="",
        repository=repository.backend.url,
        started_at=started_at,
        finished_at=datetime.now(UTC),
        outcome="failed" if error else "ok",
        error_code=error.code if error else None,
        error=error.what if error else None,
        point=point.id if point else None,
        bytes_read=sum(disk.bytes_read for disk in disks),
        bytes_stored=sum(disk.bytes_stored for disk in disks),
        held_back_seconds=None,
        latency_factor=None,
    )


@app.command(
    name="list", help_epilogue=closing(["hotspare self list", "hotspare self list -o json"], *OPENING)
)
def list_self_backups(*, options: Options = DEFAULTS) -> None:
    """List the self-backups in the repository, the oldest first; of all servers that use it.

    Args:
        options: See below.
    """
    with Session(options) as session:
        found = []
        for point in self_backups(session.repository(cached=True)):
            try:
                found.append((point, manifest_of(point)))
            except HotspareError as error:
                output.warn(str(error))
        if session.as_json:
            fields = [self_backup_fields(point, manifest) for point, manifest in found]
            output.print_document(output.document("self-backups", self_backups=fields))
            return
        rows = [
            (
                point.id,
                manifest.host,
                output.local_time(point.finished_at),
                str(len(manifest.files)),
                format_bytes(_size(manifest)),
                format_bytes(sum(disk.bytes_stored for disk in point.disks)),
                manifest.installation,
            )
            for point, manifest in found
        ]
        header = ("SELF-BACKUP", "HOST", "MADE", "FILES", "SIZE", "STORED", "INSTALLATION")
        output.print_table(header, rows, right=("FILES", "SIZE", "STORED"))


@app.command(
    help_epilogue=closing(
        ["hotspare self show", "hotspare self show 20261126-0215 -o json"], PointNotFound, *OPENING
    )
)
def show(point: str | None = None, /, *, options: Options = DEFAULTS) -> None:
    """Show what a self-backup holds, and what it does not.

    Args:
        point: Its id or the beginning of it; else the newest.
        options: See below.
    """
    with Session(options) as session:
        found = chosen(self_backups(session.repository(cached=True)), point)
        manifest = manifest_of(found)
        if session.as_json:
            fields = self_backup_fields(found, manifest)
            output.print_document(output.document("self-backup", self_backup=fields, forgotten=[]))
            return
        output.print_text(f"Self-backup:  {found.id}")
        output.print_text(f"Of:           {manifest.host} (installation {manifest.installation})")
        output.print_text(f"Made:         {output.local_time(found.finished_at)} by {manifest.program}")
        audit = f"{manifest.audit.number}:{manifest.audit.hash}" if manifest.audit else "nothing recorded"
        output.print_text(f"Audit record: {manifest.audit_problem or audit}")
        for file in manifest.files:
            output.print_text(f"  {file.disk}: {format_bytes(file.size)}")
        print_not_kept(manifest)


# What opens catalogs and the job database is imported when it is used.
app.command(
    "hotspare.cli.self_rebuild:rebuild",
    name="rebuild",
    help="Make a lost server again of its newest self-backup, on an empty host.",
    help_epilogue=closing(
        [
            "hotspare self rebuild -r sftp://backup@nas/srv/backup",
            "hotspare self rebuild 20261126-0215 --dry-run -o json",
        ],
        PointNotFound,
        TargetExists,
        Conflict,
        NoSpace,
        AuditBroken,
        *OPENING,
    ),
)


def self_backups(repository: Repository) -> list[RestorePoint]:
    """Give the self-backups of a repository, the oldest first; what cannot be read is said."""
    points = repository.points(lambda _name, error: output.warn(str(error)))
    return [point for point in points if point.is_self_backup]


def chosen(points: Sequence[RestorePoint], reference: str | None) -> RestorePoint:
    """Give the self-backup that is meant: by its id or the beginning of it, else the newest.

    Raises:
        PointNotFound: there is none.
        UsageError: several are meant, or there are several servers' and none is named.
    """
    fitting = [point for point in points if point.id.startswith(reference or "")]
    if not fitting:
        raise PointNotFound(
            f"The repository has no self-backup '{reference}'" if reference else "There is no self-backup",
            meaning="Nothing was changed",
            hint="See 'hotspare self list'",
        )
    of_one = len({point.machine_id for point in fitting}) == 1
    if not of_one or (reference and len(fitting) > 1 and fitting[-1].id != reference):
        newest = {point.machine_id: point for point in fitting}.values() if not of_one else fitting[-5:]
        ids = ", ".join(f"{point.id} of {point.machine_name}" for point in newest)
        raise UsageError(
            f"Several self-backups could be meant: {ids}", meaning="Nothing was changed", hint="Name one"
        )
    return fitting[-1]


def self_backup_fields(point: RestorePoint, manifest: Manifest) -> dict[str, Any]:
    """Describe a self-backup in a JSON document."""
    return {
        "id": point.id,
        "host": manifest.host,
        "installation": manifest.installation,
        "program": manifest.program,
        "finished_at": output.utc_time(point.finished_at),
        "size": _size(manifest),
        "bytes_stored": sum(disk.bytes_stored for disk in point.disks),
        "files": [{"place": one.place.value, "path": one.path, "size": one.size} for one in manifest.files],
        "settings": [{"variable": name, "value": value} for name, value in manifest.settings.items()],
        "orders": len(manifest.orders),
        "audit_number": manifest.audit.number if manifest.audit else None,
        "audit_hash": manifest.audit.hash if manifest.audit else None,
        "audit_problem": manifest.audit_problem or None,
        "not_kept": [{"what": one.what, "remedy": one.remedy} for one in manifest.not_kept],
        "remarks": list(manifest.remarks),
    }


def print_not_kept(manifest: Manifest) -> None:
    """Print what does not come back, and what to do about it."""
    for one in manifest.not_kept:
        output.print_text(f"Not kept: {one.what}. {one.remedy}.")
    for name, value in manifest.settings.items():
        output.print_text(f"Set by {name}, not by a file: {value}")


def _size(manifest: Manifest) -> int:
    return sum(file.size for file in manifest.files)
