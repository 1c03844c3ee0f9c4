"""Finding the restore points that a person means."""

from collections.abc import Sequence

from hotspare.errors import PointNotFound, RepositoryDamaged, UsageError
from hotspare.repository.point import RestorePoint, of_machines
from hotspare.repository.repository import Repository

LATEST = "@latest"


def find_point(repository: Repository, reference: str) -> RestorePoint:
    """Give the point with that id, the only one whose id begins so, or the newest of that machine.

    Args:
        repository: where to look.
        reference: ``20261123-021500-k3fz7``, a unique beginning of an id, ``web01`` or ``web01@latest``.

    Raises:
        PointNotFound: nothing fits.
        UsageError: several points fit.
        RepositoryDamaged: the newest point of the machine cannot be read; an older one is not given for it.
    """
    return find_points(repository, [reference])[0]


def find_points(repository: Repository, references: Sequence[str]) -> list[RestorePoint]:
    """Give the points that references name, each point once; the repository's points are read once.

    Raises as ``find_point``.
    """
    damaged: list[str] = []
    points = repository.points(lambda name, _error: damaged.append(name))
    found = [_find(repository, reference, points, damaged) for reference in references]
    return list({point.id: point for point in found}.values())


def _find(
    repository: Repository, reference: str, points: Sequence[RestorePoint], damaged: Sequence[str]
) -> RestorePoint:
    exact = [point for point in points if point.id == reference]
    if exact:
        return exact[0]
    machine = reference.removesuffix(LATEST)
    of_machine = [one for one in of_machines(points) if machine in (one.machine_name, one.machine_id)]
    if of_machine:
        _refuse_damaged_newest(repository, of_machine[-1], damaged)
        return of_machine[-1]
    begins = [point for point in points if point.id.startswith(reference)] if reference else []
    if len(begins) > 1:
        ids = ", ".join(point.id for point in begins[:5])
        raise UsageError(
            f"'{reference}' fits {len(begins)} restore points: {ids}", hint="Give more of the id"
        )
    if not begins:
        unreadable = f"; {len(damaged)} restore points cannot be read" if damaged else ""
        raise PointNotFound(
            f"The repository has no restore point or machine '{reference}'{unreadable}",
            meaning="Nothing was changed",
            hint="See 'hotspare point list'",
        )
    return begins[0]


def _refuse_damaged_newest(repository: Repository, newest: RestorePoint, damaged: Sequence[str]) -> None:
    folder = repository.machine_folder(newest.machine_id)
    newer = [name for name in damaged if name.startswith(folder) and name > folder + newest.id]
    if newer:
        lost = newer[-1].rpartition("/")[2]
        raise RepositoryDamaged(
            f"The newest restore point of {newest.machine_name}, {lost}, cannot be read",
            meaning="Nothing was restored or changed, as an older one is not what was asked for",
            hint=f"Name the newest one that can be read: {newest.id}",
        )
