"""``hotspare verify --scan``: give a malware scanner the files of restore points."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cyclopts import Group, Parameter

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.cli import output
from hotspare.cli.files_options import AS_KNOWN
from hotspare.cli.history import History
from hotspare.cli.options import Switch
from hotspare.cli.session import Session
from hotspare.cli.tested import print_scan
from hotspare.documents.tested import scan_fields
from hotspare.errors import PermissionRefused, Suspicious, UsageError
from hotspare.repository.point import RestorePoint, order_of_points
from hotspare.repository.repository import Repository
from hotspare.repository.tested import ScanRecord, put_scan, read_scan
from hotspare.restore.scan import Scanner, last_clean, scan_point

_GROUP = Group("Looking for malware (--scan, --yara)", sort_key=-1)


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """Whether and how files are scanned."""

    scan: str | None = None
    """Command of a scanner that gets a folder of files, as 'clamscan -r -i'; it ends with 0, or with 1 when
    it has found something. Only what changed since the machine's last clean restore point is scanned."""
    yara: Path | None = None
    """A file of YARA rules, for the program yara."""
    scan_all: Switch = False
    """Scan all files, as after an update of the scanner's knowledge."""

    def scanner(self) -> Scanner | None:
        """Give the scanner that is wanted. Raises ``UsageError``."""
        if self.scan is not None and self.yara is not None:
            raise UsageError("--scan and --yara exclude each other", meaning="Nothing was scanned")
        if self.scan_all and self.scan is None and self.yara is None:
            raise UsageError("--scan-all goes with --scan or --yara", meaning="Nothing was scanned")
        if self.scan is not None:
            return Scanner.of_command(self.scan)
        return Scanner.of_yara(self.yara) if self.yara is not None else None


NO_SCAN = ScanOptions()


def scan_points(
    session: Session,
    repository: Repository,
    points: Sequence[RestorePoint],
    scanner: Scanner,
    listener: events.Listener,
    cancellation: Cancellation,
    *,
    everything: bool,
) -> None:
    """Scan points, the oldest first, note what was found, and tell.

    Raises:
        Suspicious: the scanner did not like a file.
        HotspareError: it failed; points before were scanned.
    """
    history = History(session, repository.backend.url)
    opener = AS_KNOWN.opener(session, repository)
    backend, keyring = repository.backend, repository.keyring
    done: dict[str, tuple[RestorePoint, ScanRecord]] = {}

    def known(point_id: str) -> ScanRecord | None:
        return done[point_id][1] if point_id in done else read_scan(backend, keyring, point_id)

    try:
        for point in sorted(points, key=order_of_points):
            with suppress(Suspicious), history.run("scan", point.machine_name, "") as run:
                run.point = point.id
                since = None if everything else last_clean(_older(repository, point), known, scanner)
                folder = session.settings.state_folder / "scan"
                record = scan_point(opener, point, since, scanner, folder, listener, cancellation)
                done[point.id] = point, record
                try:
                    put_scan(backend, keyring, point.id, record)
                except PermissionRefused as error:
                    what = f"The result is not kept with the restore point: {error.what}"
                    listener(events.Warned(point.machine_name, what))
                _refuse_suspicious(point, record)
    finally:
        _tell(session, list(done.values()))
    for point, record in done.values():
        _refuse_suspicious(point, record)


def _older(repository: Repository, point: RestorePoint) -> list[RestorePoint]:
    of_machine = repository.machine_points(point.machine_id, lambda _name, _error: None)
    return [one for one in of_machine if order_of_points(one) < order_of_points(point)]


def _refuse_suspicious(point: RestorePoint, record: ScanRecord) -> None:
    if record.verdict == "suspicious":
        first = record.findings[0]
        raise Suspicious(
            f"{point.machine_name}, restore point {point.id}: {first.path or 'a file'}: {first.said}"
            + (f", and {len(record.findings) - 1} more" if len(record.findings) > 1 else ""),
            meaning="The restore point is as it was",
            hint="Compare it with an older one: hotspare point diff; restore from one that is clean",
        )


def _tell(session: Session, done: Sequence[tuple[RestorePoint, ScanRecord]]) -> None:
    if session.as_json:
        results = [
            {"point": point.id, "machine": point.machine_name, "scan": scan_fields(record)}
            for point, record in done
        ]
        output.print_document(output.document("scans", results=results))
        return
    for point, record in done:
        output.print_text(f"{point.machine_name}: restore point {point.id}")
        print_scan(record)
