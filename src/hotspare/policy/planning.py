"""From a policy and what is known of a machine to a request for admission, and to a timetable for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf

from hotspare.policy.admission import Request
from hotspare.policy.calendar import next_few, next_of_all
from hotspare.policy.interval import Interval, merged, without
from hotspare.policy.limits import Resource
from hotspare.policy.low_peak import LowPeak
from hotspare.policy.openings import Openings
from hotspare.policy.policy import Policy
from hotspare.policy.selection import KnownMachine
from hotspare.policy.throughput import PastRun, estimate
from hotspare.policy.window import OpenTimes, both_open

_AHEAD = timedelta(days=8)
"""How far openings are worked out for a request; whoever waits longer is asked for again."""
EARLY = 0.6
"""A policy without a calendar is due when this share of its RPO has passed: so it can wait for a window."""
_SET_BACK = timedelta(hours=2)
"""What a clock may be set back without anything being due again."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A machine, and how it stands with one repository."""

    machine: KnownMachine
    newest: datetime | None
    """When its newest restore point there was finished; None when there is none."""
    runs: Sequence[PastRun] = ()
    """Its runs that succeeded, the newest first."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One time at which a policy is due."""

    due: datetime
    opens: datetime | None
    """When its first machine may begin; None when no window opens within a year."""
    closes: datetime | None
    """When that window closes; None when it does not within the next week."""


def due_since(policy: Policy, since: datetime, now: datetime) -> datetime | None:
    """Give when a policy became due after ``since``; None when it is not due yet, or is not enabled.

    However often it was due meanwhile (the host was off): that is one run. After a clock was set back a
    little, nothing is due twice. A ``since`` further in the future was noted by a clock that was wrong: it
    counts as long ago, for it must not keep anybody from a backup until that day comes.
    """
    if not policy.runs_by_itself:
        return None
    if since > now + _SET_BACK:
        since = _long_before(now)
    if policy.by_rpo_alone:
        due: datetime | None = since + timedelta(seconds=EARLY * (policy.rpo_seconds or 0.0))
    else:
        due = next_of_all(policy.calendars, since)
    return due if due is not None and due <= now else None


def never_ran_since(policy: Policy, changed_at: datetime) -> datetime:
    """Give since when a machine counts that the policy, which was last changed then, has never backed up.

    By a calendar it waits for the next time; by the RPO alone it is due at once, for its promise is broken.
    """
    return _long_before(changed_at) if policy.by_rpo_alone else changed_at


def _long_before(moment: datetime) -> datetime:
    return moment - timedelta(days=366)


def timetable(policy: Policy, low_peak: LowPeak | None, now: datetime, count: int) -> list[PlannedRun]:
    """Give the next times at which a policy is due, and when runs may begin then."""
    planned = []
    for due in next_few(policy.calendars, now, count):
        opened = next((one for one in opening_intervals(policy, low_peak, due) if one.end > due), None)
        if opened is None:
            opened = policy.open_times.next_from(due)
        far = opened is None or opened.end >= due + _AHEAD
        planned.append(
            PlannedRun(
                due, max(due, opened.start) if opened else None, None if far or not opened else opened.end
            )
        )
    return planned


def opening_intervals(policy: Policy, low_peak: LowPeak | None, now: datetime) -> list[Interval]:
    """Give when runs of a policy may begin, from a week ago until ``_AHEAD``.

    Where the policy uses low-peak hours of the host, it is those within its windows; but the windows alone
    where the two have nothing in common.
    """
    start, end = now - timedelta(days=7), now + _AHEAD
    opened = policy.open_times.between(start, end)
    if policy.schedule.low_peak != "use" or low_peak is None or not low_peak.windows:
        return opened
    quiet = OpenTimes(policy.zone, low_peak.windows).between(start, end)
    return both_open(opened, quiet)


@dataclass(frozen=True, slots=True)
class Hours:
    """When runs of a policy may begin on a host, for a while from now on."""

    openings: Openings
    blackouts: Openings


def hours_of(policy: Policy, low_peak: LowPeak | None, now: datetime) -> Hours:
    """Work out the hours of a policy on a host once, for all its machines there."""
    span = Interval(now - timedelta(days=7), now + _AHEAD)
    lit = OpenTimes(policy.zone, (), policy.open_times.blackouts).between(*span)
    return Hours(
        Openings.of(opening_intervals(policy, low_peak, now)), Openings.of(merged(without([span], lit)))
    )


def request_for(
    policy: Policy,
    standing: Standing,
    resources: frozenset[Resource],
    low_peak: LowPeak | None,
    now: datetime,
    hours: Hours | None = None,
) -> Request:
    """Give what is asked of admission for a machine that is due now.

    Args:
        policy: by which it is due.
        standing: how it stands with the policy's repository.
        resources: what its run takes part of.
        low_peak: what was learnt of its host.
        now: the time.
        hours: those of ``hours_of``, where they were worked out already.
    """
    expected = estimate(standing.runs)
    hours = hours or hours_of(policy, low_peak, now)
    machine = standing.machine
    return Request(
        id=f"{policy.name}/{machine.platform}/{machine.id}",
        host=machine.platform,
        resources=resources,
        asked_at=now.timestamp(),
        deadline=_deadline(policy, standing.newest, now),
        expected=expected.seconds,
        rate=expected.rate,
        priority=policy.priority,
        openings=hours.openings,
        may_break_openings=policy.schedule.break_windows_for_rpo,
        blackouts=hours.blackouts,
    )


def _deadline(policy: Policy, newest: datetime | None, now: datetime) -> float:
    if policy.rpo_seconds is None:
        return inf
    if newest is None:
        return -inf
    # A point from the future was made with a wrong clock; it is no older than now.
    return min(newest, now).timestamp() + policy.rpo_seconds
