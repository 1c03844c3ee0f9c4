"""What a policy meets on this host: its platforms, their machines, its repository, and how machines stand."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hotspare.catalog.catalog import Catalog
from hotspare.catalog.rows import PointRow
from hotspare.errors import MachineNotFound, UsageError
from hotspare.fleet.work import Work
from hotspare.platforms.platform import Machine, Platform
from hotspare.platforms.registry import plain_uri
from hotspare.policy.low_peak import LowPeak, learn_low_peak
from hotspare.policy.planning import Standing
from hotspare.policy.policy import Policy
from hotspare.policy.selection import KnownMachine
from hotspare.policy.throughput import LOOKED_AT, PastRun
from hotspare.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class Chosen:
    """A machine that a policy selects."""

    machine: Machine
    because: str

    @property
    def known(self) -> KnownMachine:
        """What selections know of it."""
        return known(self.machine)


def known(machine: Machine) -> KnownMachine:
    """Give what selections know of a machine."""
    return KnownMachine(machine.id, machine.name, machine.platform, machine.marks.tags)


class Fleet:
    """Platforms and repositories of one command, each opened once."""

    def __init__(self, session: Work) -> None:
        self.session = session
        self.catalog: Catalog = session.catalog()
        self._platforms: dict[str, Platform] = {}
        self._machines: dict[str, list[Machine]] = {}
        self._repositories: dict[str, Repository] = {}
        self._newest: dict[tuple[str, str], dict[str, PointRow]] = {}

    def look_again(self) -> None:
        """Have the platforms asked for their machines again, and the catalog for their points."""
        self._machines.clear()
        self._newest.clear()

    def platform(self, uri: str) -> Platform:
        """Connect to a platform. Raises what ``Session.platform_at`` does."""
        if uri not in self._platforms:
            self._platforms[uri] = self.session.platform_at(uri)
        return self._platforms[uri]

    def platforms_of(self, policy: Policy) -> tuple[str, ...]:
        """Give the URIs that a policy means, each once."""
        uris = policy.select.platforms or (self.session.settings.platform,)
        return tuple(dict.fromkeys(plain_uri(uri) for uri in uris))

    def machines_of(self, policy: Policy) -> list[Chosen]:
        """Give the machines that a policy selects, each with the reason.

        Raises:
            PlatformUnavailable: one of its platforms does not answer.
        """
        return [
            Chosen(machine, policy.select.reason(machine.name, machine.marks.tags))
            for machine, obstacle in self._judged(policy)
            if obstacle is None
        ]

    def others_of(self, policy: Policy) -> list[Chosen]:
        """Give the other machines of its platforms, each with the reason. Raises as ``machines_of``."""
        return [Chosen(machine, obstacle) for machine, obstacle in self._judged(policy) if obstacle]

    def _judged(self, policy: Policy) -> Iterator[tuple[Machine, str | None]]:
        for uri in self.platforms_of(policy):
            if uri not in self._machines:
                self._machines[uri] = self.platform(uri).machines()
            for machine in self._machines[uri]:
                yield machine, policy.select.obstacle(machine.name, machine.marks.tags)

    def selected(self, policy: Policy, reference: str, platform: str | None = None) -> Machine:
        """Find one of the machines that a policy selects, by its name or id.

        Raises:
            MachineNotFound: it selects none of that name.
            UsageError: it selects several, on different platforms, and none of these is named.
            PlatformUnavailable: one of its platforms does not answer.
        """
        wanted = plain_uri(platform) if platform else None
        found = [
            one.machine
            for one in self.machines_of(policy)
            if reference in {one.machine.name, one.machine.id} and wanted in {None, one.machine.platform}
        ]
        if not found:
            raise MachineNotFound(
                f"The policy {policy.name} selects no machine '{reference}'",
                meaning="Nothing was asked for",
                hint=f"See 'hotspare policy preview {policy.name}'",
            )
        if len(found) > 1:
            raise UsageError(
                f"{len(found)} platforms have a machine '{reference}'",
                meaning="Nothing was asked for",
                hint="Say which with --platform",
            )
        return found[0]

    def selects(self, policy: Policy, machine: Machine) -> bool:
        """Tell whether a policy selects a machine, without asking any platform."""
        obstacle = policy.select.obstacle(machine.name, machine.marks.tags)
        return obstacle is None and machine.platform in self.platforms_of(policy)

    def repository_url(self, policy: Policy) -> str | None:
        """Give the URL that a policy goes to; None when neither it nor the settings name one."""
        return policy.repository or self.session.settings.repository

    def repository(self, policy: Policy) -> Repository:
        """Open the repository of a policy. Raises what ``Session.repository`` does."""
        url = policy.repository
        if url not in self._repositories:
            self._repositories[url] = self.session.repository(url or None, cached=True)
        return self._repositories[url]

    def standing(self, machine: Machine, repository: str) -> Standing:
        """Tell how a machine stands with a repository, as far as this host's catalog knows.

        Args:
            machine: the machine.
            repository: URL of an opened repository.
        """
        at = (machine.platform, repository)
        if at not in self._newest:  # asked once for all machines of a platform
            self._newest[at] = {point.machine_id: point for point in self.catalog.last_points(*at)}
        point = self._newest[at].get(machine.id)
        runs = self.catalog.good_backups(machine.platform, machine.name, repository, LOOKED_AT)
        return Standing(
            known(machine),
            point.finished_at if point else None,
            [
                PastRun(run.bytes_read, (run.finished_at - run.started_at).total_seconds())
                for run in runs
                if run.finished_at
            ],
        )

    def low_peak(self, policy: Policy, uri: str) -> LowPeak | None:
        """Give the low-peak hours of a host, in the policy's time zone; None where they are not wanted."""
        if policy.schedule.low_peak == "ignore":
            return None
        return learn_low_peak(self.catalog.load(uri), policy.zone)


def age(newest: datetime | None) -> timedelta | None:
    """Tell how old something is, never less than nothing; None stays None."""
    return None if newest is None else max(timedelta(), datetime.now(UTC) - newest)
