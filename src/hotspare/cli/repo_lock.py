"""``hotspare repo extend-locks`` and ``recover``, and what other commands tell about object locks."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.history import History
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.problems import problem_fields, refuse_problems
from hotspare.cli.progress import shown_progress
from hotspare.cli.session import Session
from hotspare.errors import RepositoryDamaged, UsageError
from hotspare.repository.format import POINTS
from hotspare.repository.object_lock.inspect import needed_names
from hotspare.repository.object_lock.recover import RecoverReport, recover_repository
from hotspare.repository.point import RestorePoint, point_name
from hotspare.repository.repository import Repository


def extend_locks(*, dry_run: Switch = False, options: Options = DEFAULTS) -> None:
    """Renew the locks of all that restore points need, in a repository with object lock.

    "repo prune" does so as well. Run one of them at least once in a quarter of the period.

    Args:
        dry_run: Only say how many would be renewed.
        options: See below.
    """
    with (
        Session(options) as session,
        cancelled_by_signals() as cancellation,
        shown_progress(options.progress_form, cancellation),
    ):
        repository = session.repository(cached=True)
        keeper = repository.lock_keeper
        if keeper is None:
            raise UsageError(
                f"The repository at {repository.backend.url} has no object lock",
                meaning="Nothing was done",
                hint="It is chosen when a repository is made: 'hotspare repo create --object-lock DAYS'",
            )
        points = repository.points()
        renewal = keeper.renew(needed_names(repository, points, cancellation), cancellation, dry_run=dry_run)
        if session.as_json:
            fields = {
                "dry_run": dry_run,
                "objects": renewal.objects,
                "renewed": renewal.renewed,
                "locked_until": _utc(renewal.locked_until),
            }
            output.print_document(output.document("locks-extended", **fields))
            return
        verb = "would be renewed" if dry_run else "renewed"
        until = f"; all are locked until {_local(renewal.locked_until)} at least" if not dry_run else ""
        output.print_text(
            f"Locks {verb}: {renewal.renewed} of {renewal.objects}, for {len(points)} restore points{until}."
        )


def recover(*, forgotten: Switch = False, dry_run: Switch = False, options: Options = DEFAULTS) -> None:
    """Bring back what somebody deleted or replaced in a bucket that keeps versions.

    Stop all backups and prunes and change the store's credentials first. Nothing of worth is removed: what
    was put over an object stays below a fresh copy of what was stored.

    Args:
        forgotten: Bring back restore points too that were forgotten with Hotspare, as far as they are there.
        dry_run: Only say what would be brought back.
        options: See below.
    """
    with (
        Session(options) as session,
        cancelled_by_signals() as cancellation,
        shown_progress(options.progress_form, cancellation) as listener,
    ):
        backend = session.backend()
        credential = session.credential(backend.url)
        with History(session, backend.url).run("recover", "all machines", ""):
            report = recover_repository(
                backend, credential, listener, cancellation, forgotten=forgotten, dry_run=dry_run
            )
            _tell_recovered(report, as_json=session.as_json)
            if report.lost and not report.problems:
                raise RepositoryDamaged(
                    f"{len(report.lost)} objects are lost: no version of them is what was stored",
                    meaning="Every restore point is whole, but a way to open the repository may be gone",
                    hint="See 'hotspare key list'",
                )
            if not dry_run:
                refuse_problems(report.problems, as_json=session.as_json)


def _tell_recovered(report: RecoverReport, *, as_json: bool) -> None:
    if as_json:
        fields = {
            "dry_run": report.dry_run,
            "shown": list(report.shown),
            "put_back": list(report.put_back),
            "removed": list(report.removed),
            "lost": list(report.lost),
            "points": list(report.points),
            "reindexed": report.reindexed,
            "locked_until": _utc(report.locked_until),
            "problems": [problem_fields(problem) for problem in report.problems],
        }
        output.print_document(output.document("repository-recovered", **fields))
        return
    would = "would be " if report.dry_run else ""
    output.print_text(f"Hidden objects {would}brought back: {len(report.shown)}.")
    output.print_text(f"Replaced objects {would}put back: {len(report.put_back)}.")
    output.print_text(f"Foreign objects {would}removed: {len(report.removed)}.")
    output.print_text(f"Restore points among them: {', '.join(report.points) or 'none'}.")
    for name in report.lost:
        output.print_text(f"{name}: no version of it is what was stored")
    if report.reindexed:
        output.print_text("The index was made again from the packs.")
    if report.locked_until:
        output.print_text(f"Everything that is needed is locked until {_local(report.locked_until)}.")


def lock_fields(repository: Repository) -> dict[str, Any] | None:
    """Describe the locks of a repository for ``repo info``; None where it has none."""
    if not repository.config.lock_seconds:
        return None
    period = timedelta(seconds=repository.config.lock_seconds)
    return {
        "days": _days(period),
        "promised_days": _days(period / 2),
        "locked_until": _utc(_first_end(repository)),
    }


def lock_in_words(repository: Repository) -> str:
    """Say for how long objects are locked."""
    if not repository.config.lock_seconds:
        return "none"
    period = timedelta(seconds=repository.config.lock_seconds)
    until = _first_end(repository)
    dates = f"; all are locked until {_local(until)} at least" if until else ""
    return f"{_days(period):g} days; restore points stay for {_days(period / 2):g} at any moment{dates}"


def points_locked_until(repository: Repository, points: Iterable[RestorePoint]) -> datetime | None:
    """Tell when the last lock of these restore points ends, as far as it is known."""
    keeper = repository.lock_keeper
    if keeper is None:
        return None
    dates = keeper.ledger().dates
    names = [point_name(repository.keyring, point) for point in points]
    return max((dates[name] for name in names if name in dates), default=None)


def _first_end(repository: Repository) -> datetime | None:
    """Give when the first lock of a restore point or of what all need ends; None where one is not known."""
    keeper = repository.lock_keeper
    if keeper is None:
        return None
    dates = keeper.ledger().dates
    names = [*keeper.always_needed(), *(item.name for item in repository.backend.list(POINTS))]
    return min(dates[name] for name in names) if all(name in dates for name in names) else None


def _days(period: timedelta) -> float:
    return round(period.total_seconds() / 86_400, 2)


def _utc(moment: datetime | None) -> str | None:
    return output.utc_time(moment) if moment else None


def _local(moment: datetime | None) -> str:
    return output.local_time(moment) if moment else "an unknown date"
