"""``hotspare point forget``: remove restore points."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from hotspare.cli import output
from hotspare.cli.confirmation import Yes, confirm
from hotspare.cli.documents import point_fields
from hotspare.cli.history import History
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.outside_approval import outside_approval
from hotspare.cli.repo_lock import points_locked_until
from hotspare.cli.session import Session
from hotspare.errors import PointNotFound, UsageError
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.repository.select import find_points


def forget(
    *points: str,
    force: Switch = False,
    yes: Yes = False,
    dry_run: Switch = False,
    damaged: Switch = False,
    options: Options = DEFAULTS,
) -> None:
    """Remove restore points. Others are not affected: each is complete in itself.

    The space of what no other point needs is given back by "repo prune".

    Args:
        points: Ids of restore points or beginnings of them; or machines' names, for their newest.
        force: Remove them although they are to be kept ("point keep").
        yes: Do not ask.
        dry_run: Only say which points would be removed.
        damaged: Remove points whose records cannot be read; POINTS are their whole ids, as "repo check"
            shows them.
        options: See below.
    """
    if not points:
        raise UsageError(
            "No restore point is named",
            meaning="Nothing was removed",
            hint='See "hotspare point forget --help"',
        )
    with Session(options) as session:
        repository = session.repository()
        if damaged:
            _forget_damaged(session, repository, points, yes=yes, dry_run=dry_run)
        else:
            found = find_points(repository, points)
            _forget(session, repository, found, force=force, yes=yes, dry_run=dry_run)


def _forget(
    session: Session,
    repository: Repository,
    points: Sequence[RestorePoint],
    *,
    force: bool,
    yes: bool,
    dry_run: bool,
) -> None:
    lines = [
        f"{point.id} of {point.machine_name}, finished {output.local_time(point.finished_at)}"
        for point in points
    ]
    locked_until = None
    if not dry_run:
        if not force:
            for point in points:
                repository.refuse_kept(point)
        _confirm(lines, yes=yes)
        history = History(session, repository.backend.url)
        with _noted(session, lines):
            for point in points:
                repository.forget(point, force=force)
                history.remove_point(point)
        locked_until = points_locked_until(repository, points)
    if session.as_json:
        fields: dict[str, Any] = {
            "points": [point_fields(point) for point in points],
            "dry_run": dry_run,
            "locked_until": output.utc_time(locked_until) if locked_until else None,
        }
        output.print_document(output.document("points-forgotten", **fields))
        return
    verb = "Would forget" if dry_run else "Forgot"
    for line in lines:
        output.print_text(f"{verb} the restore point {line}.")
    if not dry_run:
        output.print_text("The space of what no other point needs is given back by 'hotspare repo prune'.")
    if locked_until:
        output.print_text(
            "It is hidden, and stays in the store until its locks end, those of the records on"
            f" {output.local_time(locked_until)}; 'hotspare repo recover --forgotten' brings it back"
            " until then."
        )


def _forget_damaged(
    session: Session, repository: Repository, points: Sequence[str], *, yes: bool, dry_run: bool
) -> None:
    unreadable: dict[str, list[str]] = {}
    repository.points(lambda name, _error: unreadable.setdefault(name.rpartition("/")[2], []).append(name))
    for point in points:
        if point not in unreadable:
            raise PointNotFound(
                f"The repository has no unreadable restore point '{point}'",
                meaning="Nothing was removed",
                hint="See 'hotspare repo check'; leave out --damaged for a point that can be read",
            )
    if not dry_run:
        _confirm([f"{point}, which cannot be read" for point in points], yes=yes)
        with _noted(session, list(points)):
            for name in (name for point in points for name in unreadable[point]):
                repository.forget_by_name(name)
    if session.as_json:
        fields: dict[str, Any] = {"points": list(points), "dry_run": dry_run}
        output.print_document(output.document("damaged-points-forgotten", **fields))
        return
    verb = "Would forget" if dry_run else "Forgot"
    for point in points:
        output.print_text(f"{verb} the restore point {point}, which cannot be read.")


def _noted(session: Session, points: Sequence[str]) -> AbstractContextManager[None]:
    said = [f"forgets the restore point {point}" for point in points]
    return outside_approval(session, "point forget", ", ".join(points), said)


def _confirm(points: Sequence[str], *, yes: bool) -> None:
    lines = [f"Restore point {point}" for point in points]
    lines.append(f"Forget {'it' if len(points) == 1 else f'these {len(points)}'}?")
    confirm("\n".join(lines), "Nothing was removed", yes=yes)
