"""One look of the watchdog: policies, platforms, repositories, the server, replication, approvals.

None of it goes by the job database, nor by what the catalog says of restore points. What does not answer is
*unknown*, which is a result too, and never taken for good or bad.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from hotspare.access.approvals import Approval, Approvals
from hotspare.access.database import FILE_NAME as ACCESS
from hotspare.access.database import AccessDatabase
from hotspare.catalog.policy_files import PolicyFiles
from hotspare.cli.options import Options
from hotspare.cli.session import Session
from hotspare.cli.watch_asking import Asker
from hotspare.cli.watch_repository import RepositoryState, ask_repository
from hotspare.errors import ConfigError, HotspareError
from hotspare.jobs.heartbeat import is_silent, last_beat
from hotspare.platforms.platform import Machine
from hotspare.platforms.registry import plain_uri
from hotspare.policy.policy import Policy
from hotspare.policy.promise import RpoState, TrialState, rpo_promise, trial_state
from hotspare.replication.link.client import LocalClient
from hotspare.replication.link.wire import NOTHING
from hotspare.replication.model import Status
from hotspare.replication.protections import STATUS
from hotspare.settings import Settings

NO_BACKUP = "no-backup"
"""A machine with this tag is not protected on purpose."""
KnownSince = Callable[[Iterable[str]], Mapping[str, datetime]]
"""Gives since when machines are known, by ``machine_key``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedMachine:
    """How a machine stands with a policy that selects it."""

    machine: Machine
    policy: Policy
    repository: str
    """URL."""
    rpo: RpoState | None
    """None where the policy has no RPO."""
    until: datetime | None
    """When the RPO breaks, or broke."""
    newest: datetime | None
    """When its newest good restore point was finished."""
    unreadable: int
    """Newer restore points that cannot be read."""
    trial: TrialState | None
    """None where the policy does not say how often it is to be tried."""
    tried_at: datetime | None
    tried_words: str
    """How the last trial went, where that failed."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that did not answer."""

    what: str
    """``platform``, ``repository``, ``policy``, ``replication``, ``approvals``."""
    name: str
    """URI, URL or name."""
    error: HotspareError


@dataclass(slots=True)
class Look:
    """What was found."""

    at: datetime
    policies: int = 0
    """Those that are enabled and run by themselves."""
    machines: list[WatchedMachine] = field(default_factory=list)
    unprotected: list[Machine] = field(default_factory=list)
    """Selected by no policy that runs by itself."""
    repositories: list[RepositoryState] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)
    server_beat: datetime | None = None
    """When the server of this host last looked at what is due; None when there never was one."""
    replicas: list[Status] = field(default_factory=list)
    approvals: list[Approval] = field(default_factory=list)
    """Those that wait."""

    @property
    def server_silent(self) -> bool:
        """Whether there is a server that has died, was stopped, or is stuck."""
        return self.server_beat is not None and is_silent(self.server_beat, self.at)

    def knows(self, *whats: str) -> bool:
        """Tell whether all such things answered."""
        return not any(one.what in whats for one in self.unknown)


@dataclass(frozen=True, slots=True)
class _Selected:
    machine: Machine
    policy: Policy


def look_around(options: Options, settings: Settings, asker: Asker, known_since: KnownSince) -> Look:
    """Look at everything once. Raises nothing for what does not answer: that is in the result.

    Args:
        options: of the command.
        settings: of the command.
        asker: puts the questions.
        known_since: see there.

    Raises:
        PermissionRefused: the folder of policies may not be read.
    """
    look = Look(datetime.now(UTC), server_beat=last_beat(settings.state_folder))
    files = PolicyFiles(settings.policy_folder)
    policies = _policies(files, look)
    look.policies = len(policies)
    selected = _ask_platforms(options, settings, policies, asker, look)
    watched = [one for one in selected if one.policy.schedule.rpo or one.policy.schedule.tested_within]
    answers = _ask_repositories(options, settings, watched, asker, look)
    since = known_since({machine_key(one.machine) for one in watched})
    for one in watched:
        changed_at = files.changed_at(one.policy.name)
        known = max(changed_at, since.get(machine_key(one.machine), changed_at))
        look.machines.append(_judged(one, answers.get(_url(one.policy, settings)), known, look.at))
    _ask_replication(settings.state_folder / "replication", asker, look)
    _read_approvals(settings.state_folder, look)
    return look


def machine_key(machine: Machine) -> str:
    """Name a machine among those of all platforms."""
    return f"{machine.platform} {machine.id}"


def _policies(files: PolicyFiles, look: Look) -> list[Policy]:
    found = []
    for name in files.names():
        try:
            policy = files.get(name)
        except HotspareError as error:
            look.unknown.append(Unknown("policy", name, error))
            continue
        if policy.runs_by_itself:
            found.append(policy)
    return found


def _platforms_of(policy: Policy, settings: Settings) -> list[str]:
    return [plain_uri(uri) for uri in policy.select.platforms or (settings.platform,)]


def _ask_platforms(
    options: Options, settings: Settings, policies: list[Policy], asker: Asker, look: Look
) -> list[_Selected]:
    """Find who is selected, and who by nobody. Without any policy, no platform is asked."""
    uris = {uri for policy in policies for uri in _platforms_of(policy, settings)}
    if policies:
        uris.add(plain_uri(settings.platform))
    answers, errors = asker.ask_all({f"platform {uri}": partial(_machines, options, uri) for uri in uris})
    for key, error in errors.items():
        look.unknown.append(Unknown("platform", key.removeprefix("platform "), error))
    selected: list[_Selected] = []
    for machine in (machine for machines in answers.values() for machine in machines):
        of_it = [
            policy
            for policy in policies
            if policy.select.obstacle(machine.name, machine.marks.tags) is None
            and machine.platform in _platforms_of(policy, settings)
        ]
        selected += [_Selected(machine, policy) for policy in of_it]
        # A policy that cannot be read may be the one that selects it.
        if not of_it and NO_BACKUP not in machine.marks.tags and look.knows("policy"):
            look.unprotected.append(machine)
    return selected


def _machines(options: Options, uri: str) -> list[Machine]:
    with Session(options) as session:
        return list(session.host_at(uri).machines())


def _url(policy: Policy, settings: Settings) -> str:
    return policy.repository or settings.repository or ""


def _ask_repositories(
    options: Options, settings: Settings, watched: list[_Selected], asker: Asker, look: Look
) -> Mapping[str, RepositoryState]:
    """Ask each repository once; gives the answers by the URL as policies and settings write it."""
    machines: dict[str, set[str]] = defaultdict(set)
    tried: dict[str, set[str]] = defaultdict(set)
    for one in watched:
        url = _url(one.policy, settings)
        machines[url].add(one.machine.id)
        if one.policy.schedule.tested_within:
            tried[url].add(one.machine.id)
    if machines.pop("", None):
        nowhere = ConfigError("Neither the policy nor the settings name a repository")
        look.unknown.append(Unknown("repository", "none", nowhere))
    answers, errors = asker.ask_all(
        {
            f"repository {url}": partial(ask_repository, options, url, ids, tried[url])
            for url, ids in machines.items()
        }
    )
    look.repositories = list(answers.values())
    for key, error in errors.items():
        look.unknown.append(Unknown("repository", key.removeprefix("repository "), error))
    return {key.removeprefix("repository "): state for key, state in answers.items()}


def _judged(one: _Selected, state: RepositoryState | None, known: datetime, now: datetime) -> WatchedMachine:
    found = state.machines[one.machine.id] if state else None
    newest = found.newest.finished_at if found and found.newest else None
    record = found.tried if found else None
    promise = rpo_promise(one.policy, newest, known, now) if found and one.policy.schedule.rpo else None
    rpo: RpoState | None = promise.state if promise else "unknown" if one.policy.schedule.rpo else None
    passed = record.passed if record else False
    tried_at = record.at if record else None
    return WatchedMachine(
        machine=one.machine,
        policy=one.policy,
        repository=state.url if state else "",
        rpo=rpo,
        until=promise.until if promise else None,
        newest=newest,
        unreadable=found.unreadable if found else 0,
        trial=trial_state(one.policy, tried_at, known, now, passed=passed) if found else None,
        tried_at=tried_at,
        tried_words=(record.problem or "a check failed") if record and not passed else "",
    )


def _ask_replication(folder: Path, asker: Asker, look: Look) -> None:
    """Ask this host's agent how its replicas are, where it ever protected a machine."""
    if not any((folder / "protections").glob("*/protection.json")):
        return
    answers, errors = asker.ask_all({"replication": partial(_replicas, folder)})
    look.replicas = answers.get("replication", [])
    look.unknown += [Unknown("replication", "agent", error) for error in errors.values()]


def _replicas(folder: Path) -> list[Status]:
    with LocalClient(folder) as agent:
        return agent.call(STATUS, NOTHING)


def _read_approvals(folder: Path, look: Look) -> None:
    if not (folder / ACCESS).exists():
        return
    try:
        database = AccessDatabase(folder)
        try:
            look.approvals = [one for one in Approvals(database).all() if one.state == "waiting"]
        finally:
            database.close()
    except (HotspareError, sqlite3.Error) as error:
        known = error if isinstance(error, HotspareError) else HotspareError(str(error))
        look.unknown.append(Unknown("approvals", "users", known))
