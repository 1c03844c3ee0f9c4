"""How each machine stands, in one word and with the reason: what people look at first.

Pure: from a list of machines with their newest point and run, the policies, and what goes on now.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from hotspare.documents.machine import ListedMachine
from hotspare.platforms.registry import plain_uri
from hotspare.policy.calendar import next_of_all
from hotspare.policy.planning import opening_intervals
from hotspare.policy.policy import Policy
from hotspare.units import format_duration

StandingName = Literal[
    "ok", "warning", "failed", "running", "missed", "never-run", "disabled", "stale", "gone"
]
_GRACE = timedelta(hours=1)
"""What is due begins within this time, unless a window is closed: others may go first."""
_LOOKED_BACK = (timedelta(hours=3), timedelta(days=2), timedelta(days=40))


@dataclass(frozen=True, slots=True)
class KnownPolicy:
    """A policy, and since when it is as it is."""

    policy: Policy
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class MachineStanding:
    """A machine, and how it stands."""

    platform: str
    line: ListedMachine
    name: StandingName
    because: str
    policies: tuple[str, ...]
    """Names of those that select it and run by themselves."""
    disabled_policies: tuple[str, ...]
    rpo_seconds: float | None
    """The shortest of their promises; None without one."""
    rpo_broken: bool

    @property
    def protected(self) -> bool:
        """Whether a policy keeps it backed up, and there is something to restore."""
        return bool(self.policies) and self.line.last is not None


@dataclass(frozen=True, slots=True)
class _Applied:
    """What of a policy is the same for all machines, worked out once."""

    policy: Policy
    platforms: frozenset[str]
    should_have_begun: datetime | None
    """The newest time, long enough ago, at which its runs were due and could begin; None without one."""


def stand(
    machines: Iterable[tuple[str, ListedMachine]],
    policies: Mapping[str, KnownPolicy],
    default_platform: str,
    now: datetime,
) -> list[MachineStanding]:
    """Tell how machines stand.

    Args:
        machines: each with its platform's URI.
        policies: all, by name.
        default_platform: URI of the one that a policy means which names none.
        now: the time.
    """
    applied = [
        _Applied(
            one.policy,
            frozenset(plain_uri(uri) for uri in one.policy.select.platforms or (default_platform,)),
            _should_have_begun(one, now),
        )
        for one in policies.values()
    ]
    return [_stand(uri, line, applied, now) for uri, line in machines]


def while_running(standings: Iterable[MachineStanding], busy: Set[tuple[str, str]]) -> list[MachineStanding]:
    """Give the same, but of machines that are backed up now, that they are.

    Args:
        standings: of machines.
        busy: platform, and name or id of each machine that is backed up now.
    """
    return [
        replace(one, name="running", because=f"it is backed up now; before that: {one.because}")
        if busy & {(one.platform, one.line.name), (one.platform, one.line.id)}
        else one
        for one in standings
    ]


def _stand(uri: str, line: ListedMachine, policies: Sequence[_Applied], now: datetime) -> MachineStanding:
    tags = line.machine.marks.tags if line.machine else ()
    selecting = [
        one
        for one in policies
        if line.machine and uri in one.platforms and one.policy.select.obstacle(line.name, tags) is None
    ]
    active = [one for one in selecting if one.policy.runs_by_itself]
    promises = [one.policy.rpo_seconds for one in active if one.policy.rpo_seconds is not None]
    rpo = min(promises, default=None)
    old = None if line.last is None else max(timedelta(), now - line.last.finished_at)
    broken = rpo is not None and (old is None or old.total_seconds() > rpo)
    name, because = next(_verdicts(line, active, selecting, rpo, old))
    return MachineStanding(
        platform=uri,
        line=line,
        name=name,
        because=because,
        policies=tuple(one.policy.name for one in active),
        disabled_policies=tuple(one.policy.name for one in selecting if not one.policy.enabled),
        rpo_seconds=rpo,
        rpo_broken=broken,
    )


def _verdicts(
    line: ListedMachine,
    active: Sequence[_Applied],
    selecting: Sequence[_Applied],
    rpo: float | None,
    old: timedelta | None,
) -> Iterator[tuple[StandingName, str]]:
    """Yield all that is true of a machine, each with its reason, the gravest first."""
    run, test = line.run, line.test
    if line.machine is None:
        yield "gone", "its platform has it no more; its restore points are there"
    if run is not None and run.outcome in {"failed", "lost"}:
        yield "failed", run.error or "the last backup went away without a word"
    if missed := _missed(line, active):
        yield "missed", missed
    if old is None:
        yield ("never-run", "there is no restore point yet") if active else _unprotected(selecting)
        return
    if rpo is not None and old.total_seconds() > rpo:
        promised = format_duration(rpo)
        yield "stale", f"the newest restore point is {_age(old)} old; {promised} are promised"
    if test is not None and test.boot_passed is False:
        yield "warning", "the restore point that was tried last did not pass"
    if run is not None and run.outcome in {"interrupted", "cancelled"}:
        yield "warning", f"the last backup was {run.outcome}"
    if not active:
        name, because = _unprotected(selecting)
        yield "disabled" if name == "disabled" else "warning", f"{because}; it has restore points"
    yield "ok", f"the newest restore point is {_age(old)} old"


def _unprotected(selecting: Sequence[_Applied]) -> tuple[StandingName, str]:
    if any(not one.policy.enabled for one in selecting):
        return "disabled", "the policies that select it are disabled"
    if selecting:
        return "never-run", "the policies that select it run by hand only"
    return "never-run", "no policy selects it"


def _missed(line: ListedMachine, active: Sequence[_Applied]) -> str:
    last = line.run.started_at if line.run else None
    for one in active:
        due = one.should_have_begun
        # Without any run it is new, or its policy is: that is said by another word.
        if due is not None and last is not None and last < due:
            return f"{one.policy.name} was due on {due:%Y-%m-%d at %H:%M} UTC, and nothing ran"
    return ""


def _should_have_begun(known: KnownPolicy, now: datetime) -> datetime | None:
    policy = known.policy
    if not (policy.enabled and policy.schedule.when):
        return None
    latest = now - _GRACE
    for span in _LOOKED_BACK:
        due = _last_due(policy, latest - span, latest)
        if due is None:
            continue
        opened = next((one for one in opening_intervals(policy, None, due) if one.end > due), None)
        begins = max(due, opened.start) if opened else None
        return begins if begins is not None and known.changed_at < begins <= latest else None
    return None


def _last_due(policy: Policy, since: datetime, until: datetime) -> datetime | None:
    found = None
    due = next_of_all(policy.calendars, since)
    while due is not None and due <= until:
        found = due
        due = next_of_all(policy.calendars, due)
    return found


def _age(old: timedelta) -> str:
    days = old.days
    return f"{days} days" if days > 1 else format_duration(old.total_seconds())
