"""A report on a period: how backups went, whether promises were kept, what is protected and what it takes.

Pure: from what the catalog has added up, and what policies promise. What a machine is called differs: runs
are recorded by the name or the id that was asked for, restore points have both.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hotspare.catalog.reporting import PointTotals, ReportRows, RunTotals, Trial
from hotspare.fleet.period import Period
from hotspare.fleet.standing import KnownPolicy
from hotspare.platforms.platform import Machine
from hotspare.platforms.registry import plain_uri
from hotspare.policy.promise import share_kept
from hotspare.storage.registry import plain_url

Visible = Callable[[str, str, frozenset[str]], bool]
"""Whether somebody sees what is on a platform, in a repository, of a machine with these tags."""


@dataclass(frozen=True, slots=True)
class Promised:
    """What a policy promises for a machine that it selects."""

    machine: Machine
    policy: str
    rpo: float | None
    """Seconds; None for no promise."""
    repository: str
    """URL, as an opened repository has it."""
    changed_at: datetime
    """Since when the policy is as it is."""


@dataclass(slots=True, kw_only=True)
class Amounts:
    """What is added up, of one machine or of many. Bytes where it says so."""

    machines: int = 0
    runs_ok: int = 0
    runs_warned: int = 0
    """They made a restore point, and the user was told something."""
    runs_failed: int = 0
    """Those too whose process went away without a word."""
    runs_missed: int = 0
    """Due, and never begun."""
    runs_stopped: int = 0
    """Interrupted or cancelled."""
    bytes_read: int = 0
    bytes_stored: int = 0
    """By runs of the period."""
    protected_bytes: int = 0
    """Of the disks in each machine's newest restore point."""
    points: int = 0
    points_bytes: int = 0
    """What making the points took that are there."""
    points_unmeasured: int = 0
    """Points whose bytes are not known, as an older version noted them down."""
    shares: list[float] = field(default_factory=list)
    """Of each machine and promise, for which share of the time it was kept."""

    @property
    def rpo_kept(self) -> float | None:
        """The mean of the shares; None where nothing is promised."""
        return sum(self.shares) / len(self.shares) if self.shares else None

    def add_runs(self, totals: RunTotals) -> None:
        """Add runs."""
        kind = _KINDS.get(totals.outcome)
        if kind is None:
            return
        kind = "warned" if kind == "ok" and totals.warned else kind
        setattr(self, f"runs_{kind}", getattr(self, f"runs_{kind}") + totals.count)
        self.bytes_read += totals.bytes_read
        self.bytes_stored += totals.bytes_stored

    def add_usage(self, usage: "Amounts") -> None:
        """Add a machine with what is protected of it, and not its runs."""
        self.machines += usage.machines
        self.protected_bytes += usage.protected_bytes
        self.points += usage.points
        self.points_bytes += usage.points_bytes
        self.points_unmeasured += usage.points_unmeasured

    def add(self, other: "Amounts") -> None:
        """Add all of it."""
        self.add_usage(other)
        for name in (*_RUNS, "bytes_read", "bytes_stored"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.shares += other.shares


_KINDS = {
    "ok": "ok",
    "failed": "failed",
    "lost": "failed",
    "missed": "missed",
    "interrupted": "stopped",
    "cancelled": "stopped",
}
_RUNS = ("runs_ok", "runs_warned", "runs_failed", "runs_missed", "runs_stopped")


@dataclass(slots=True)
class MachineLine:
    """One machine."""

    platform: str
    id: str
    """Empty when only runs are known of it, and no restore point."""
    name: str
    tags: frozenset[str] = frozenset()
    policies: set[str | None] = field(default_factory=set)
    """Names of those that select it, or backed it up within the period; None when nobody asked them to."""
    trial: Trial | None = None
    amounts: Amounts = field(default_factory=lambda: Amounts(machines=1))


@dataclass(slots=True)
class PolicyLine:
    """One policy."""

    name: str | None
    """None for runs that no policy asked for."""
    rpo: float | None = None
    amounts: Amounts = field(default_factory=Amounts)


@dataclass(frozen=True, slots=True)
class Report:
    """All of it."""

    period: Period
    totals: Amounts
    machines: Sequence[MachineLine]
    """By name."""
    policies: Sequence[PolicyLine]
    """By name; what no policy asked for comes last."""
    tags: Sequence[tuple[str | None, Amounts]]
    """By tag; a machine counts for each of its tags, and those without any come last."""


def promises_of(
    policies: Mapping[str, KnownPolicy],
    machines: Iterable[Machine],
    default_platform: str,
    default_repository: str | None,
) -> list[Promised]:
    """Give what the enabled policies promise for the machines that there are."""
    by_platform: dict[str, list[Machine]] = defaultdict(list)
    for machine in machines:
        by_platform[machine.platform].append(machine)
    found = []
    for one in policies.values():
        policy = one.policy
        if not policy.enabled:
            continue
        repository = plain_url(policy.repository or default_repository or "")
        for uri in {plain_uri(uri) for uri in policy.select.platforms or (default_platform,)}:
            found += [
                Promised(machine, policy.name, policy.rpo_seconds, repository, one.changed_at)
                for machine in by_platform[uri]
                if policy.select.obstacle(machine.name, machine.marks.tags) is None
            ]
    return found


def longest_promise(promised: Iterable[Promised]) -> timedelta:
    """Tell how long before a period a restore point still matters."""
    return timedelta(seconds=max((one.rpo or 0.0 for one in promised), default=0.0))


def make_report(
    period: Period, rows: ReportRows, promised: Sequence[Promised], visible: Visible = lambda *_: True
) -> Report:
    """Put a report together, of what somebody sees."""
    return _Making(period, rows, promised, visible).report()


class _Making:
    def __init__(
        self, period: Period, rows: ReportRows, promised: Sequence[Promised], visible: Visible
    ) -> None:
        self._period = period
        self._rows = rows
        self._promised = promised
        self._visible = visible
        self._lines: dict[tuple[str, str], MachineLine] = {}
        """By platform, and both by name and by id."""
        self._policies: dict[str | None, PolicyLine] = {}
        self._kept: list[tuple[MachineLine, Promised]] = []
        """Promises that are to be kept, of what is seen."""

    def report(self) -> Report:
        self._take_promised()
        # The newest first: a name belongs to who had it last.
        for points in sorted(self._rows.points, key=lambda one: one.newest_at, reverse=True):
            self._take_points(points)
        for trial in self._rows.trials:
            if line := self._lines.get((trial.platform, trial.machine_id)):
                line.trial = trial
        for runs in self._rows.runs:
            self._take_runs(runs)
        self._take_shares()
        lines = list({id(line): line for line in self._lines.values()}.values())
        totals = Amounts()
        for line in lines:
            totals.add(line.amounts)
            for name in line.policies:
                self._policy(name).amounts.add_usage(line.amounts)
        return Report(
            self._period,
            totals,
            sorted(lines, key=lambda line: (line.name, line.platform, line.id)),
            sorted(self._policies.values(), key=lambda line: (line.name is None, line.name or "")),
            _by_tag(lines),
        )

    def _take_promised(self) -> None:
        for one in self._promised:
            machine = one.machine
            tags = frozenset(machine.marks.tags)
            if self._visible(machine.platform, one.repository, tags):
                line = self._line(machine.platform, machine.id, machine.name)
                line.tags = tags
                line.policies.add(one.policy)
                self._policy(one.policy).rpo = one.rpo
                self._kept.append((line, one))

    def _take_points(self, points: PointTotals) -> None:
        known = self._lines.get((points.platform, points.machine_id))
        tags = known.tags if known else frozenset(points.tags)
        if not self._visible(points.platform, points.repository, tags):
            return
        line = self._line(points.platform, points.machine_id, points.machine_name)
        line.tags = tags
        amounts = line.amounts
        amounts.protected_bytes = amounts.protected_bytes or points.newest_size or 0
        amounts.points += points.count
        amounts.points_bytes += points.bytes_stored
        amounts.points_unmeasured += points.unmeasured

    def _take_runs(self, totals: RunTotals) -> None:
        known = self._lines.get((totals.platform, totals.machine))
        if not self._visible(totals.platform, totals.repository, known.tags if known else frozenset()):
            return
        line = known or self._line(totals.platform, "", totals.machine)
        line.amounts.add_runs(totals)
        line.policies.add(totals.policy)
        self._policy(totals.policy).amounts.add_runs(totals)

    def _take_shares(self) -> None:
        ends: dict[tuple[int, str], list[float]] = defaultdict(list)
        for (platform, machine, repository), some in self._rows.successes.items():
            if line := self._lines.get((platform, machine)):
                ends[id(line), repository] += some
        first: dict[tuple[int, str], float] = {}
        for known in self._rows.known:
            if line := self._lines.get((known.platform, known.machine)):
                key = id(line), known.policy
                first[key] = min(known.since, first.get(key, known.since))
        since, until = self._period.since.timestamp(), self._period.until.timestamp()
        for line, one in self._kept:
            if one.rpo is None:
                continue
            known_since = first.get((id(line), one.policy), one.changed_at.timestamp())
            points = sorted(ends[id(line), one.repository])
            share = share_kept(points, one.rpo, known_since, since, until)
            if share is not None:
                line.amounts.shares.append(share)
                self._policy(one.policy).amounts.shares.append(share)

    def _line(self, platform: str, number: str, name: str) -> MachineLine:
        key = platform, number or name
        if key not in self._lines:
            self._lines[key] = MachineLine(platform, number, name)
            self._lines.setdefault((platform, name), self._lines[key])
        return self._lines[key]

    def _policy(self, name: str | None) -> PolicyLine:
        return self._policies.setdefault(name, PolicyLine(name))


def _by_tag(lines: Iterable[MachineLine]) -> list[tuple[str | None, Amounts]]:
    found: dict[str | None, Amounts] = defaultdict(Amounts)
    for line in lines:
        for tag in line.tags or (None,):
            found[tag].add(line.amounts)
    return sorted(found.items(), key=lambda item: (item[0] is None, item[0] or ""))
