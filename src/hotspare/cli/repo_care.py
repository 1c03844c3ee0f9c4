"""``hotspare repo check``, ``repair`` and ``copy``: keeping what is stored whole, and in two places."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.history import History
from hotspare.cli.options import DEFAULTS, Options, Repeatable, Switch
from hotspare.cli.problems import problem_fields, refuse_problems
from hotspare.cli.progress import shown_progress
from hotspare.cli.quantities import parse_moment
from hotspare.cli.session import Session
from hotspare.cli.telling import damage_told
from hotspare.errors import RepositoryDamaged, UsageError
from hotspare.repository.check import CheckReport, check_structure
from hotspare.repository.copy import CopyReport, copy_points
from hotspare.repository.copy_plan import select_points
from hotspare.repository.object_lock.inspect import lock_problems
from hotspare.repository.point import RestorePoint
from hotspare.repository.repair import RepairReport, repair_repository
from hotspare.repository.repository import Repository
from hotspare.repository.scrub import ScrubReport, scrub_store
from hotspare.repository.select import find_point
from hotspare.units import format_bytes


def check(*, packs: Switch = False, no_key: Switch = False, options: Options = DEFAULTS) -> None:
    """Check that everything which restore points need is there and whole, without reading disk data.

    With --packs every pack is read and compared with its name, which needs no key. "hotspare verify"
    deciphers the data as well.

    Args:
        packs: Read all packs, parity and index segments, and compare each with its hash.
        no_key: With --packs: do not open the repository, so that no passphrase is needed.
        options: See below.
    """
    if no_key and not packs:
        raise UsageError("--no-key goes with --packs only", meaning="Nothing was checked")
    with (
        Session(options) as session,
        cancelled_by_signals() as cancellation,
        shown_progress(options.progress_form, cancellation) as listener,
    ):
        if packs:
            backend = session.backend() if no_key else session.repository().backend
            with _recorded(session, backend.url, "repo check --packs"):
                _tell_scrubbed(scrub_store(backend, listener, cancellation), as_json=session.as_json)
            return
        repository = session.repository()
        with _recorded(session, repository.backend.url, "repo check"):
            report = check_structure(repository, listener, cancellation)
            report.problems.extend(lock_problems(repository, cancellation))
            _tell_checked(report, as_json=session.as_json)
            refuse_problems(report.problems, as_json=session.as_json)


@contextmanager
def _recorded(session: Session, url: str, manner: str) -> Iterator[None]:
    """Have the history know of a check, and people of the damage that it finds."""
    with (
        History(session, url).run("check", "all machines", ""),
        damage_told(session, url, manner),
    ):
        yield


def _tell_checked(report: CheckReport, *, as_json: bool) -> None:
    if as_json:
        fields = {
            "points": report.points,
            "packs": report.packs,
            "chunks": report.chunks,
            "bytes": report.bytes,
            "void": report.void,
            "problems": [problem_fields(problem) for problem in report.problems],
        }
        output.print_document(output.document("repository-check", **fields))
    else:
        output.print_text(
            f"Checked {report.points} restore points, {report.packs} packs with {report.chunks} chunks,"
            f" {format_bytes(report.bytes)}."
        )
        if report.void:
            output.print_text(
                f"Not counted, and removed by the next prune: {', '.join(report.void)}."
                " Their runs did not succeed, or they were forgotten."
            )


def repair(*, dry_run: Switch = False, options: Options = DEFAULTS) -> None:
    """Read all packs, and repair what is damaged.

    What parity can give back is put back. What it cannot is not counted on any more: the next backup that
    reads the same data stores it again, which heals every restore point that needs it. Nothing is removed.

    Args:
        dry_run: Only say what would be done.
        options: See below.
    """
    with Session(options) as session:
        repository = session.repository()
        history = History(session, repository.backend.url)
        with (
            history.run("repair", "all machines", ""),
            cancelled_by_signals() as cancellation,
            shown_progress(options.progress_form, cancellation) as listener,
        ):
            report = repair_repository(repository, listener, cancellation, dry_run=dry_run)
            _tell_repaired(report, dry_run=dry_run, as_json=session.as_json)
            refuse_problems(report.problems, as_json=session.as_json)


def copy(
    *,
    to: str,
    machine: Repeatable = (),
    tag: Repeatable = (),
    since: str | None = None,
    point: Repeatable = (),
    dry_run: Switch = False,
    options: Options = DEFAULTS,
) -> None:
    """Copy restore points into another repository: only what it lacks, every chunk checked on the way.

    The other repository's passphrase comes from HOTSPARE_TO_PASSPHRASE, HOTSPARE_TO_PASSPHRASE_FILE or
    HOTSPARE_TO_PASSPHRASE_COMMAND, or is asked for. A copy that was stopped goes on where it was. It is
    quickest into a repository that was made with "repo create --like".

    Args:
        to: The other repository, as file:///FOLDER or a folder.
        machine: Only points of the machine with this name or id; may be given again.
        tag: Only points whose machine had this tag when they were made (see "machine tag"); given again,
            those with one of the tags.
        since: Only points that were finished since this date or time.
        point: Only this point, by its id or the beginning of it; may be given again.
        dry_run: Only say which points would be copied.
        options: See below.
    """
    if point and (machine or tag or since):
        raise UsageError("--point does not go with --machine, --tag or --since", meaning="Nothing was copied")
    moment = parse_moment(since) if since else None
    with Session(options) as session:
        source = session.repository()
        if point:
            chosen = _named(source, point)
        else:
            readable = source.points(lambda _name, error: output.warn(str(error)))
            chosen = select_points(readable, machine, moment, tag)
        target = session.repository_at(to, "TO")
        if dry_run:
            there = {each.id for each in target.points(lambda _name, _error: None)}
            report = CopyReport(
                copied=tuple(each for each in chosen if each.id not in there),
                there=tuple(each.id for each in chosen if each.id in there),
                bytes_read=0,
                bytes_stored=0,
            )
        else:
            report = _copy(session, source, target, chosen)
        _tell_copied(report, target.backend.url, dry_run=dry_run, as_json=session.as_json)


def _copy(session: Session, source: Repository, target: Repository, chosen: list[RestorePoint]) -> CopyReport:
    history = History(session, source.backend.url)
    subject = ", ".join(sorted({point.machine_name for point in chosen})) or "none"
    with (
        history.run("copy", subject, "") as run,
        cancelled_by_signals() as cancellation,
        shown_progress(session.options.progress_form, cancellation) as listener,
    ):
        return copy_points(source, target, chosen, run.watching(listener), cancellation)


def _named(source: Repository, references: Sequence[str]) -> list[RestorePoint]:
    found = [find_point(source, reference) for reference in references]
    return list({point.id: point for point in found}.values())


def _tell_copied(report: CopyReport, target: str, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        fields: dict[str, Any] = {
            "dry_run": dry_run,
            "target": target,
            "copied": [point.id for point in report.copied],
            "there": list(report.there),
            "bytes_read": report.bytes_read,
            "bytes_stored": report.bytes_stored,
        }
        output.print_document(output.document("repository-copy", **fields))
        return
    verb = "Would copy" if dry_run else "Copied"
    for point in report.copied:
        output.print_text(f"{verb} {point.id} of {point.machine_name}.")
    sent = f", {format_bytes(report.bytes_stored)} stored" if not dry_run else ""
    output.print_text(
        f"{verb} {len(report.copied)} restore points to {target}{sent};"
        f" {len(report.there)} were there already."
    )


def _tell_scrubbed(report: ScrubReport, *, as_json: bool) -> None:
    if as_json:
        fields = {
            "packs": report.packs,
            "segments": report.segments,
            "parities": report.parities,
            "bytes": report.bytes,
            "damaged": [
                {"object": name, "detail": detail, "repairable": name in report.repairable}
                for name, detail in report.damaged.items()
            ],
        }
        output.print_document(output.document("repository-packs", **fields))
    else:
        output.print_text(
            f"Read {report.packs} packs, {report.segments} index segments and {report.parities} parity"
            f" objects, {format_bytes(report.bytes)}."
        )
        for name, detail in report.damaged.items():
            more = "; parity can repair it" if name in report.repairable else ""
            output.print_text(f"{name}: {detail}{more}")
    if report.damaged:
        raise RepositoryDamaged(
            f"{len(report.damaged)} objects are not what was written",
            meaning=f"Parity can repair {len(report.repairable)} of them",
            hint="Run 'hotspare repo repair', which also says which restore points are hit by the rest",
        )
    if not as_json:
        output.print_text("No problem was found.")


def _tell_repaired(report: RepairReport, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        fields = {
            "dry_run": dry_run,
            "packs": report.packs,
            "bytes": report.bytes,
            "healed": list(report.healed),
            "parity_renewed": list(report.parity_renewed),
            "dropped": [{"object": name, "chunks": count} for name, count in report.dropped.items()],
            "problems": [problem_fields(problem) for problem in report.problems],
        }
        output.print_document(output.document("repository-repair", **fields))
        return
    would = "would be " if dry_run else ""
    output.print_text(f"Read {report.packs} packs, {format_bytes(report.bytes)}.")
    for name in report.healed:
        output.print_text(f"{name}: {would}repaired from parity")
    for name in report.parity_renewed:
        output.print_text(f"{name}: its parity {would}made anew")
    for name, count in report.dropped.items():
        output.print_text(
            f"{name}: {count} chunks {would}not counted on any more; the next backup stores them"
        )
