"""What a policy meets on this host: its platforms, their machines, its repository, and how machines stand."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hotspare.catalog.catalog import Catalog
from hotspare.catalog.rows import PointRow
from hotspare.errors import HotspareError, MachineNotFound, PlatformUnavailable, UsageError
from hotspare.fleet.host import Host
from hotspare.fleet.work import Work
from hotspare.platforms.platform import Machine
from hotspare.platforms.registry import plain_uri
from hotspare.policy.low_peak import LowPeak, learn_low_peak
from hotspare.policy.planning import Standing
from hotspare.policy.policy import Policy
from hotspare.policy.selection import KnownMachine
from hotspare.policy.throughput import LOOKED_AT, PastRun
from hotspare.repository.repository import Repository

_ASKED_AT_ONCE = 16
"""Platforms."""


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
        self._hosts: dict[str, Host] = {}
        self._machines: dict[str, list[Machine]] = {}
        self._silent: dict[str, HotspareError] = {}
        """Platforms that did not answer: each policy that means them would wait again."""
        self._repositories: dict[str, Repository] = {}
        self._newest: dict[tuple[str, str], dict[str, PointRow]] = {}

    def look_again(self) -> None:
        """Have the hosts asked for their machines again, and the catalog for their points."""
        self._machines.clear()
        for uri in self._silent:  # what was restarted has to be connected to again
            self._hosts.pop(uri, None)
        self._silent.clear()
        self._newest.clear()

    def host(self, uri: str) -> Host:
        """Give a platform, of this host or another. Raises what ``Work.host_at`` does."""
        if uri not in self._hosts:
            self._hosts[uri] = self.session.host_at(uri)
        return self._hosts[uri]

    def machine(self, uri: str, reference: str) -> Machine:
        """Find a machine by its name or id; what its platform said of it just now is enough.

        Raises:
            MachineNotFound: there is none.
            PlatformUnavailable: its platform does not answer.
        """
        found = [one for one in self._machines.get(uri, ()) if reference in {one.id, one.name}]
        if len(found) == 1:
            return found[0]
        try:
            return self.host(uri).inspect(reference)
        except PlatformUnavailable:
            self._hosts.pop(uri, None)  # what is restarted has to be connected to again
            raise

    def platforms_of(self, policy: Policy) -> tuple[str, ...]:
        """Give the URIs that a policy means, each once."""
        uris = policy.select.platforms or (self.session.settings.platform,)
        return tuple(dict.fromkeys(plain_uri(uri) for uri in uris))

    def machines_of(self, policy: Policy, silent: dict[str, HotspareError] | None = None) -> list[Chosen]:
        """Give the machines that a policy selects, each with the reason.

        Args:
            policy: see there.
            silent: takes down the platforms that do not answer, by their URIs, each with the reason; their
                machines are not among these then. Without it, all have to answer.

        Raises:
            PlatformUnavailable: one of its platforms does not answer.
        """
        return [
            Chosen(machine, policy.select.reason(machine.name, machine.marks.tags))
            for machine, obstacle in self._judged(policy, silent)
            if obstacle is None
        ]

    def others_of(self, policy: Policy, silent: dict[str, HotspareError] | None = None) -> list[Chosen]:
        """Give the other machines of its platforms, each with the reason; as ``machines_of`` else."""
        return [Chosen(machine, obstacle) for machine, obstacle in self._judged(policy, silent) if obstacle]

    def _judged(
        self, policy: Policy, silent: dict[str, HotspareError] | None
    ) -> Iterator[tuple[Machine, str | None]]:
        uris = self.platforms_of(policy)
        self._ask([uri for uri in uris if uri not in self._machines and uri not in self._silent])
        for uri in uris:
            if uri in self._silent:
                if silent is None:
                    raise self._silent[uri]
                silent[uri] = self._silent[uri]
            for machine in self._machines.get(uri, ()):
                yield machine, policy.select.obstacle(machine.name, machine.marks.tags)

    def _ask(self, uris: Sequence[str]) -> None:
        """Ask platforms for their machines, all at once: some take seconds."""
        hosts: dict[str, Host] = {}
        for uri in uris:
            try:
                hosts[uri] = self.host(uri)
            except HotspareError as error:
                self._silent[uri] = error
        if not hosts:
            return
        with ThreadPoolExecutor(min(_ASKED_AT_ONCE, len(hosts)), "host") as asking:
            asked = {uri: asking.submit(host.machines) for uri, host in hosts.items()}
        for uri, answer in asked.items():
            try:
                self._machines[uri] = answer.result()
            except HotspareError as error:
                self._silent[uri] = error

    def selected(self, policy: Policy, reference: str, platform: str | None = None) -> Machine:
        """Find one of the machines that a policy selects, by its name or id.

        Raises:
            MachineNotFound: it selects none of that name.
            UsageError: it selects several, on different platforms, and none of these is named.
            PlatformUnavailable: one of its platforms does not answer.
        """
        wanted = plain_uri(platform) if platform else None
        silent: dict[str, HotspareError] = {}
        found = [
            one.machine
            for one in self.machines_of(policy, silent)
            if reference in {one.machine.name, one.machine.id} and wanted in {None, one.machine.platform}
        ]
        if not found and (reasons := [error for uri, error in silent.items() if wanted in {None, uri}]):
            raise reasons[0]
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
