"""Whether what a policy promises is kept: how old the newest good restore point of a machine may be."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal

from hotspare.policy.policy import Policy, parse_span

RpoState = Literal["met", "broken", "pending", "unknown"]
"""``pending``: it has no restore point yet, and is not known for as long as the RPO either; ``unknown``: the
platform or the repository does not answer."""
RPO_STATES: tuple[RpoState, ...] = ("met", "broken", "pending", "unknown")
TrialState = Literal["fresh", "old", "never", "failed"]
"""``old``: the last trial is too long ago; ``never``: there was none within that time since it is known."""


@dataclass(frozen=True, slots=True)
class Promise:
    """How a machine stands with what a policy promises."""

    state: RpoState
    until: datetime
    """When it breaks, or broke."""


def rpo_promise(policy: Policy, newest: datetime | None, known_since: datetime, now: datetime) -> Promise:
    """Tell how a machine stands with the RPO of its policy, which has to have one.

    Args:
        policy: see there.
        newest: when its newest good restore point was finished; None when there is none.
        known_since: since when it is selected, as far as is known: for so long it may have none.
        now: the time.
    """
    rpo = timedelta(seconds=policy.rpo_seconds or 0.0)
    # A point from the future was made with a wrong clock; it is no older than now.
    until = min(newest or known_since, now) + rpo
    if now >= until:
        return Promise("broken", until)
    return Promise("met" if newest else "pending", until)


def trial_state(
    policy: Policy, tested_at: datetime | None, known_since: datetime, now: datetime, *, passed: bool
) -> TrialState | None:
    """Tell how a machine stands with the trials that its policy wants; None when it wants none.

    Args:
        policy: see there.
        tested_at: when one of its restore points was last tried; None when none ever was.
        known_since: since when it is selected.
        now: the time.
        passed: whether that went well.
    """
    if not policy.schedule.tested_within:
        return None
    age = timedelta(seconds=parse_span(policy.schedule.tested_within))
    if tested_at is not None and not passed:
        return "failed"
    if min(tested_at or known_since, now) + age > now:
        return "fresh"
    return "old" if tested_at else "never"


def share_kept(
    points: Sequence[float], rpo: float, known_since: float, since: float, until: float
) -> float | None:
    """Tell for which share of a period the newest restore point was not older than was promised.

    Args:
        points: when restore points were finished, in order; all times are seconds since the epoch.
        rpo: the promise, in seconds.
        known_since: since when it is promised: from then on, for so long there may be none.
        since: begin of the period.
        until: its end, or now.

    Returns:
        0 to 1; None when nothing was promised within the period.
    """
    begin = max(since, known_since)
    if until <= begin:
        return None
    first = bisect_right(points, begin)
    marks = [points[first - 1] if first else known_since, *points[first : bisect_left(points, until)], until]
    broken = sum(max(0.0, later - max(earlier + rpo, begin)) for earlier, later in pairwise(marks))
    return 1.0 - broken / (until - begin)
