"""What the server serves: the catalog, repositories, platforms and policies of this host, kept open."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from blake3 import blake3

from hotspare.access.roles import Target
from hotspare.api.space import Spaces
from hotspare.catalog.catalog import Catalog
from hotspare.catalog.policy_files import PolicyFiles
from hotspare.catalog.reporting import ReportRows
from hotspare.catalog.rows import PointRow, RunRow
from hotspare.documents.machine import ListedMachine, listed_machines
from hotspare.errors import HotspareError, NotThere, PointNotFound
from hotspare.fleet.fleet import Fleet
from hotspare.fleet.host import Host, RemoteHost
from hotspare.fleet.period import Period, PeriodName, period_of
from hotspare.fleet.report import Promised, Report, longest_promise, make_report, promises_of
from hotspare.fleet.standing import KnownPolicy
from hotspare.fleet.work import Work
from hotspare.jobs.orders import Order
from hotspare.platforms.offers import Offers
from hotspare.platforms.platform import Machine, Platform
from hotspare.platforms.registry import plain_uri
from hotspare.repository.point import RestorePoint, of_machines, order_of_points
from hotspare.repository.repository import Repository
from hotspare.repository.tested import Tested, read_all_tested
from hotspare.settings import Settings

if TYPE_CHECKING:
    from hotspare.jobs.book import JobBook

Answer = TypeVar("Answer")
_INVENTORY_SECONDS = 30.0
_HISTORY_SECONDS = 2.0
_POINTS_SECONDS = 5.0
_JUST_MADE_SECONDS = 0.5
_REPORT_SECONDS = 60.0
_REPORTS_KEPT = 4


@dataclass(frozen=True, slots=True)
class Inventory:
    """The machines of all platforms, as they were a moment ago."""

    machines: Sequence[tuple[str, ListedMachine]]
    """With the URI of the platform; in the order of platforms, names and ids."""
    problems: Sequence[tuple[str, HotspareError]]
    """Platforms that did not answer."""

    tags: Mapping[tuple[str, str], frozenset[str]]
    """Tags of each machine, by platform and by the machine's name, and by its id."""


class Reported(NamedTuple):
    """What a report is made of."""

    period: Period
    rows: ReportRows
    promised: Sequence[Promised]
    whole: Report
    """For who sees everything."""


_Asked = tuple[PeriodName, datetime | None, datetime | None]
_Machines = dict[str, list[Machine]]
"""By the platform's URI."""
_Problems = list[tuple[str, HotspareError]]


class Estate:
    """All of it. Safe for several threads."""

    def __init__(self, begin: Callable[[], AbstractContextManager[Work]]) -> None:
        """``begin`` gives what commands work with; it is kept until ``close``."""
        self._begin = begin
        self._opened = ExitStack()
        self._work = self._opened.enter_context(begin())
        self._lock = threading.RLock()
        self._repositories: dict[str, Repository] = {}
        self._points: dict[str, tuple[float, list[RestorePoint]]] = {}
        self._tested: dict[str, tuple[float, dict[str, Tested]]] = {}
        self._around: tuple[float, _Machines, _Problems] | None = None
        """What the platforms said, and when."""
        self._inventory: tuple[float, int, Inventory] | None = None
        """The same with what the catalog knows: when it was asked, and at which version of it."""
        self._jobs: JobBook | None = None
        self.spaces = Spaces()
        """How full repositories' stores are."""
        self._report_lock = threading.Lock()
        self._reported: dict[_Asked, tuple[float, Reported]] = {}
        """Those asked for last come last."""
        # A catalog belongs to the thread that opened it, and opening it takes long.
        self._clerk = ThreadPoolExecutor(1, "catalog")
        self._clerks = ExitStack()
        self._catalog: Catalog | None = None

    @property
    def settings(self) -> Settings:
        """What is set for the server."""
        return self._work.settings

    def ask(self, question: Callable[[Catalog], Answer]) -> Answer:
        """Ask the catalog. Raises what the question raises."""

        def in_its_thread() -> Answer:
            if self._catalog is None:
                self._catalog = self._clerks.enter_context(self._begin()).catalog()
            return question(self._catalog)

        return self._clerk.submit(in_its_thread).result()

    def jobs(self) -> "JobBook":
        """Give the jobs. Raises ``JobDatabaseUnavailable``, also before a server has begun to run jobs."""
        from hotspare.jobs.book import JobBook  # noqa: PLC0415 - its libraries take long to import

        with self._lock:
            if self._jobs is None:
                self._jobs = JobBook(self.settings.job_database)
            return self._jobs

    def policies(self) -> PolicyFiles:
        """Give the policies."""
        return self._work.policies()

    @contextmanager
    def fleet(self) -> Iterator[Fleet]:
        """Give what policies meet here, for one thread; repositories are those that are open already."""
        with self._begin() as work:
            yield Fleet(_WithOpened(work, self))

    def platforms(self) -> list[str]:
        """Give the URIs of the platforms of the settings and of policies."""
        named = [uri for policy in self.policies().all().values() for uri in policy.select.platforms]
        return sorted({plain_uri(uri) for uri in (self.settings.platform, *named)})

    def repositories(self) -> dict[str, str]:
        """Give the URLs of the repositories of the settings and of policies, by their ids here."""
        urls = [policy.repository for policy in self.policies().all().values()]
        return {repository_key(url): url for url in (self.settings.repository, *urls) if url}

    def repository(self, key: str | None = None) -> Repository:
        """Give a repository, opened once; without ``key``, the one that is set.

        Raises:
            NotThere: there is none of that id, or none is set.
            HotspareError: it cannot be opened.
        """
        return self.opened(self.url(key))

    def url(self, key: str | None = None) -> str:
        """Give the URL of a repository as settings or policies have it. Raises ``NotThere`` as above."""
        url = self.settings.repository if key is None else self.repositories().get(key)
        if url is None:
            raise NotThere(
                f"The server has no repository '{key}'" if key else "The server has no repository set",
                hint="See /api/v1/repositories",
            )
        return url

    def opened(self, url: str | None = None) -> Repository:
        """Give the repository at a URL, else the one that is set, opened once."""
        key = url or self.settings.repository or ""
        with self._lock:
            if key not in self._repositories:
                self._repositories[key] = self._work.repository(key or None)
            return self._repositories[key]

    def points(self, repository: Repository, seconds: float = _POINTS_SECONDS) -> list[RestorePoint]:
        """Give the restore points of a repository, the oldest first; what cannot be read is left out.

        Args:
            repository: one that this has opened.
            seconds: how old the list may be.
        """
        url = repository.backend.url
        with self._lock:
            at, points = self._points.get(url, (-_POINTS_SECONDS, []))
            if time.monotonic() - at < seconds:
                return points
            points = of_machines(repository.points(lambda _name, _error: None))
            self._points[url] = (time.monotonic(), sorted(points, key=order_of_points))
            return self._points[url][1]

    def points_of(self, repository: Repository, machine: str | None) -> list[RestorePoint]:
        """Give points among which those of a machine are: its own alone where a known id names it."""
        if machine is None or all(line.id != machine for _, line in self.inventory().machines):
            return self.points(repository)
        own = repository.machine_points(machine, lambda _name, _error: None)
        return sorted(own, key=order_of_points)

    def tested(self, repository: Repository) -> dict[str, Tested]:
        """Give what is known of a repository's restore points from trying them, by their ids."""
        url = repository.backend.url
        with self._lock:
            at, tested = self._tested.get(url, (-_POINTS_SECONDS, {}))
            if time.monotonic() - at >= _POINTS_SECONDS:
                tested = read_all_tested(repository.backend, repository.keyring)
                self._tested[url] = (time.monotonic(), tested)
            return tested

    def point(self, repository: Repository, number: str) -> RestorePoint:
        """Find a restore point by its whole id. Raises ``PointNotFound``."""
        for seconds in (_POINTS_SECONDS, _JUST_MADE_SECONDS):
            # A job may have made it a moment ago.
            for point in self.points(repository, seconds):
                if point.id == number:
                    return point
        raise PointNotFound(
            f"The repository has no restore point '{number}'",
            meaning="Nothing was changed",
            hint="See /api/v1/points",
        )

    def look_again(self) -> None:
        """Have points and machines looked at anew when they are next asked for: something was done."""
        with self._lock:
            self._points.clear()
            self._tested.clear()
            self._around = self._inventory = None
        with self._report_lock:
            self._reported.clear()

    def inventory(self) -> Inventory:
        """Give the machines of all platforms, not older than half a minute; what runs made, than seconds."""
        with self._lock:
            now = time.monotonic()
            if self._around is None or now - self._around[0] > _INVENTORY_SECONDS:
                self._around = (now, *self._look_around())
                self._inventory = None
            if self._inventory is None or now - self._inventory[0] > _HISTORY_SECONDS:
                version = self.ask(lambda it: it.version())
                if self._inventory is None or self._inventory[1] != version:
                    self._inventory = (now, version, self._with_history(*self._around[1:]))
            return self._inventory[2]

    def reported(self, name: PeriodName, since: datetime | None, until: datetime | None) -> Reported:
        """Give what a report is made of, up to a minute old, for adding it up takes long.

        Args:
            name: how long the period is, where its begin is not given.
            since: its begin.
            until: its end; None for now.

        Raises:
            UsageError: it ends before it begins, or begins in the future.
        """
        asked = name, since, until
        with self._report_lock:
            at, found = self._reported.pop(asked, (-_REPORT_SECONDS, None))
            if found is None or time.monotonic() - at > _REPORT_SECONDS:
                at, found = time.monotonic(), self._report_on(period_of(*asked, datetime.now(UTC)))
            self._reported[asked] = at, found
            while len(self._reported) > _REPORTS_KEPT:
                del self._reported[next(iter(self._reported))]
            return found

    def _report_on(self, period: Period) -> Reported:
        files = self.policies()
        policies = {name: KnownPolicy(one, files.changed_at(name)) for name, one in files.all().items()}
        machines = [line.machine for _, line in self.inventory().machines if line.machine]
        promised = promises_of(policies, machines, self.settings.platform, self.settings.repository)
        back = longest_promise(promised)
        rows = self.ask(lambda it: it.report_rows(period.since, period.until, back))
        return Reported(period, rows, promised, make_report(period, rows, promised))

    def on_platform(self, uri: str, question: Callable[[Platform], Answer]) -> Answer:
        """Ask a platform, over a connection of its own. Raises what the question raises."""
        with self._begin() as work:
            return question(work.platform_at(uri))

    def offers(self, uri: str) -> Offers:
        """Say what a machine can be given that is restored to a platform. Raises as ``Host.machines``."""
        with self._begin() as work:
            return work.host_at(uri).offers()

    def on_other_host(self, uri: str, question: Callable[[RemoteHost], Answer]) -> Answer | None:
        """Ask the host of a platform, if it is another one than this; else None. Raises as the question."""
        with self._begin() as work:
            host = work.other_host_at(uri)
            return question(host) if host is not None else None

    def close(self) -> None:
        """Let go of everything."""
        self._clerk.submit(self._clerks.close).result()
        self._clerk.shutdown()
        self.spaces.close()
        if self._jobs is not None:
            self._jobs.close()
        self._opened.close()

    def _look_around(self) -> tuple[_Machines, _Problems]:
        found: _Machines = {}
        problems: _Problems = []
        with self._begin() as work:
            hosts: dict[str, Host] = {}
            for uri in self.platforms():  # all are begun before the first is waited for
                try:
                    hosts[uri] = work.host_at(uri)
                except HotspareError as error:
                    problems.append((uri, error))
            for uri, host in hosts.items():
                try:
                    found[uri] = host.machines()
                except HotspareError as error:
                    problems.append((uri, error))
        return found, problems

    def _with_history(self, machines: _Machines, problems: _Problems) -> Inventory:
        found = [
            (uri, line)
            for uri, there in machines.items()
            for line in listed_machines(there, *self.ask(partial(_last_of, uri)))
        ]
        tags = {(uri, key): tags_of(line) for uri, line in found for key in (line.name, line.id)}
        return Inventory(found, problems, tags)


class _WithOpened:
    """Fulfils ``Work``: opening a repository takes long, and the estate has it open."""

    def __init__(self, work: Work, estate: Estate) -> None:
        self.settings = work.settings
        self.catalog = work.catalog
        self.platform_at = work.platform_at
        self.host_at = work.host_at
        self.other_host_at = work.other_host_at
        self.policies = work.policies
        self._estate = estate

    def repository(self, url: str | None = None, *, cached: bool = False) -> Repository:
        """See ``Work``."""
        del cached
        return self._estate.opened(url)


def _last_of(
    uri: str, catalog: Catalog
) -> tuple[dict[str, PointRow], dict[str, RunRow], dict[str, PointRow]]:
    points = {point.machine_id: point for point in catalog.last_points(uri, None)}
    tests = {point.machine_id: point for point in catalog.last_tests(uri, None)}
    return points, catalog.last_backups(uri), tests


def repository_key(url: str) -> str:
    """Give a name for a repository's URL that can be a part of another URL."""
    return blake3(url.encode()).hexdigest(8)


def tags_of(line: ListedMachine) -> frozenset[str]:
    """Give the tags of a listed machine."""
    return frozenset(line.machine.marks.tags) if line.machine else frozenset()


def target_of_machine(uri: str, line: ListedMachine) -> Target:
    """Say to what scopes a machine belongs."""
    return Target(platform=uri, tags=tags_of(line))


def target_of_point(url: str, point: RestorePoint) -> Target:
    """Say to what scopes a restore point belongs."""
    tags = point.machine.get("marks", {}).get("tags", ())
    return Target(repository=url, platform=point.platform, tags=frozenset(tags))


def target_of_order(estate: Estate, order: Order) -> Target:
    """Say to what scopes a job belongs."""
    repository = order.definition.get("repository") or _repository_of(estate, order.policy)
    tags = estate.inventory().tags.get((order.platform, order.machine_id))
    return Target(repository=repository, platform=order.platform, tags=tags)


def _repository_of(estate: Estate, policy: str) -> str | None:
    try:
        return estate.policies().get(policy).repository or estate.settings.repository
    except HotspareError:
        return None  # it is gone, or cannot be read: who is restricted to a repository does not see it
