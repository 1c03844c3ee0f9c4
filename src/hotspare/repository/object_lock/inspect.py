"""Finding out what is not locked as it should be: every object that is needed is asked for."""

from contextlib import closing
from datetime import datetime

from hotspare.block.pipeline import ordered_map
from hotspare.cancellation import Cancellation
from hotspare.errors import ObjectNotFound, RepositoryDamaged
from hotspare.repository.gc.mark import Marks
from hotspare.repository.object_lock.deleted import deleted_points
from hotspare.repository.object_lock.genuine import contents
from hotspare.repository.object_lock.keeper import LockKeeper, packs_of
from hotspare.repository.point import RestorePoint, point_name
from hotspare.repository.repository import Repository
from hotspare.repository.survey import Problem
from hotspare.storage.backend import ObjectVersion

_REQUESTS_AT_ONCE = 16


def needed_names(repository: Repository, points: list[RestorePoint], cancellation: Cancellation) -> list[str]:
    """Give the names of all locked objects that restore points need, but for what every restore does.

    Raises:
        RepositoryDamaged: a point needs what is not there.
    """
    index = repository.index()
    marks = Marks(index, repository.reader(), repository.config.chunk_size, cancellation)
    for point in points:
        marks.add_point(point)
    return [*packs_of(index, marks), *(point_name(repository.keyring, point) for point in points)]


def lock_problems(repository: Repository, cancellation: Cancellation) -> list[Problem]:
    """Tell what is needed and not locked for as long as is promised, was replaced or deleted."""
    keeper = repository.lock_keeper
    if keeper is None:
        return []
    points = repository.points(lambda _name, _error: None)
    try:
        names = needed_names(repository, points, cancellation)
    except RepositoryDamaged:
        # What is missing is said elsewhere; of the rest nobody knows who needs it.
        names = [pack.name for pack in repository.index().packs]
        names += [point_name(repository.keyring, point) for point in points]
    problems = [
        Problem(object=name, detail="was deleted, but not by Hotspare; its lock keeps it", points=())
        for name in sorted(deleted_points(keeper.backend, repository.keyring))
    ]
    wanted = [*keeper.always_needed(), *names]

    def look(_worker: int, item: tuple[str, list[ObjectVersion]]) -> tuple[str, str]:
        return item[0], _defect(keeper, *item)

    work = ordered_map(look, keeper.versions_of(wanted), range(_REQUESTS_AT_ONCE))
    with closing(work) as looked_at:
        for name, detail in looked_at:
            cancellation.check()
            if detail:
                problems.append(Problem(object=name, detail=detail, points=()))
    return problems


def _defect(keeper: LockKeeper, name: str, versions: list[ObjectVersion]) -> str:
    """Say what is wrong with the locks of one object; nothing where it is not there at all."""
    stored = keeper.stored_version(name, versions)
    if stored is None:
        return "was replaced, and what was stored is gone" if contents(versions) else ""
    if versions[0].marker:
        return "was deleted, but not by Hotspare; its lock keeps it"
    newest = contents(versions)[-1]
    if newest != stored and _content(keeper, newest) != _content(keeper, stored):
        return "was replaced; what was stored is below, and its lock keeps it"
    try:
        dates = [keeper.backend.locks.locked_until(name, one.version) for one in (stored, newest)]
    except ObjectNotFound:
        return ""
    return _too_short(keeper, [date for date in dates if date is not None])


def _too_short(keeper: LockKeeper, dates: list[datetime]) -> str:
    if not dates:
        return "is not locked"
    until = max(dates)
    if until - keeper.backend.now() < keeper.promised:
        return f"is locked until {until.isoformat(timespec='seconds')} only, for less than is promised"
    return ""


def _content(keeper: LockKeeper, one: ObjectVersion) -> bytes:
    return keeper.backend.locks.get_version(one.name, one.version)
