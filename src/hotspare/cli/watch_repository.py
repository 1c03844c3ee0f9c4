"""What the watchdog asks a repository itself, whatever the catalog of this host says."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from hotspare.cli.options import Options
from hotspare.cli.session import Session
from hotspare.errors import HotspareError, ObjectNotFound, RepositoryDamaged
from hotspare.repository.format import BOOT
from hotspare.repository.gc.state import read_expulsions
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.repository.tested import BootRecord, read_boot
from hotspare.storage.backend import Backend

Counts = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Protected:
    """What a repository has of one machine."""

    newest: RestorePoint | None
    """The newest restore point that can be read and counts."""
    unreadable: int
    """Newer ones that cannot be read."""
    tried: BootRecord | None
    """How the last trial of any of its points went; None also when nobody wanted to know."""


@dataclass(frozen=True, slots=True)
class Space:
    """How full a repository's file system is."""

    free: int
    size: int

    def nearly_full(self, percent: float) -> bool:
        """Tell whether less than so many percent are free."""
        return self.free * 100 < self.size * percent


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """What a repository answered."""

    url: str
    machines: dict[str, Protected]
    """By the machine's id."""
    space: Space | None
    """None where the store does not tell, as S3."""

    def newest_at(self, machine: str) -> datetime | None:
        """Tell when the newest good point of a machine was finished."""
        found = self.machines[machine].newest
        return found.finished_at if found else None


def ask_repository(
    options: Options, url: str, machines: Collection[str], tried: Collection[str]
) -> RepositoryState:
    """Open a repository and look for the newest good restore point of some machines.

    Args:
        options: of the command.
        url: of the repository.
        machines: their ids.
        tried: ids of those whose last trial is wanted as well.

    Raises:
        HotspareError: it cannot be opened or read.
    """
    with Session(options) as session:
        repository = session.repository(url, cached=True)
        counts = read_expulsions(repository.backend, repository.keyring).counts
        trials = {item.name.removeprefix(BOOT) for item in repository.backend.list(BOOT)} if tried else set()
        found = {}
        for machine in machines:
            names = _newest_first(repository, machine)
            newest, unreadable = _newest_good(repository, names, counts)
            record = _last_trial(repository, names, trials) if machine in tried else None
            found[machine] = Protected(newest, unreadable, record)
        return RepositoryState(repository.backend.url, found, _space(repository.backend))


def _newest_first(repository: Repository, machine: str) -> list[str]:
    names = (item.name for item in repository.backend.list(repository.machine_folder(machine)))
    return sorted(names, reverse=True)


def _newest_good(repository: Repository, names: list[str], counts: Counts) -> tuple[RestorePoint | None, int]:
    unreadable = 0
    for name in names:
        try:
            point = repository.load_point(name)
        except ObjectNotFound:
            continue  # forgotten since it was listed
        except RepositoryDamaged:
            unreadable += 1
            continue
        if counts(name, point.session):
            return point, unreadable
    return None, unreadable


def _last_trial(repository: Repository, names: list[str], trials: set[str]) -> BootRecord | None:
    points = [point for name in names if (point := name.rpartition("/")[2]) in trials]
    records = []
    for point in points:
        try:
            records.append(read_boot(repository.backend, repository.keyring, point))
        except RepositoryDamaged:
            continue  # then it is not known how that one went
    return max((record for record in records if record), key=lambda record: record.at, default=None)


def _space(backend: Backend) -> Space | None:
    """Ask the store how full it is; what keeps it from telling does not keep us from the rest."""
    try:
        ask = backend.capabilities.space
        found = ask() if ask else None
    except HotspareError:
        return None
    return Space(found.free, found.total) if found else None
