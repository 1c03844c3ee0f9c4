"""What retention would do: the verdicts over the points of each machine, by all policies that have a say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hotspare.documents.form import utc_time
from hotspare.errors import HotspareError
from hotspare.fleet.fleet import Chosen, Fleet
from hotspare.policy.policy import Policy
from hotspare.policy.retention import DatedPoint, Verdict, judge_points
from hotspare.repository.format import KEPT
from hotspare.repository.kept import read_kept
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class Judged:
    """One restore point, and why it is kept."""

    point: RestorePoint
    reasons: tuple[str, ...]
    """Empty when it is to be forgotten."""


def judge(
    fleet: Fleet, policy: Policy, chosen: Sequence[Chosen], warn: Callable[[str], None]
) -> list[Judged]:
    """Judge the points of machines that a policy selects, in its repository; of each the oldest first.

    What another policy wants that selects the same machine and goes to the same repository is kept. ``warn``
    is told what cannot be read.
    """
    repository = fleet.repository(policy)
    others = _others(fleet, policy)
    held = _held(repository, warn)
    judged = []
    for one in chosen:
        points = repository.machine_points(one.machine.id, lambda _name, error: warn(error.what))
        dated = [DatedPoint(point.id, point.finished_at, point.id in held) for point in points]
        reasons: dict[str, list[str]] = {point.id: [] for point in points}
        for other in (policy, *others):
            if other is policy or fleet.selects(other, one.machine):
                for verdict in judge_points(dated, other.retention, other.zone, datetime.now(UTC)):
                    prefix = "" if other is policy else f"policy {other.name}: "
                    reasons[verdict.point.id] += [prefix + reason for reason in _own(verdict, other, policy)]
        judged += [Judged(point, tuple(reasons[point.id])) for point in points]
    return judged


def _own(verdict: Verdict, other: Policy, policy: Policy) -> tuple[str, ...]:
    """Leave out, of another policy, what is true of the point whichever policy is asked."""
    if other is policy:
        return verdict.reasons
    return tuple(one for one in verdict.reasons if one not in {"kept by hand", "the newest"})


def _others(fleet: Fleet, policy: Policy) -> list[Policy]:
    """Give the other policies that go to the same repository, enabled or not.

    Raises:
        ConfigError: one cannot be read: it might want to keep what would be forgotten.
    """
    url = fleet.repository_url(policy)
    policies = fleet.session.policies().all().values()
    return [one for one in policies if one.name != policy.name and fleet.repository_url(one) == url]


def _held(repository: Repository, warn: Callable[[str], None]) -> set[str]:
    """Give the ids of points that a user keeps."""
    now = datetime.now(UTC)
    found = set()
    for item in repository.backend.list(KEPT):
        point_id = item.name.removeprefix(KEPT)
        try:
            kept = read_kept(repository.backend, repository.keyring, point_id)
        except HotspareError as error:
            # What cannot be read is held: whoever made it meant to.
            warn(error.what)
            found.add(point_id)
            continue
        if kept is not None and (kept.until is None or kept.until > now):
            found.add(point_id)
    return found


def judged_fields(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Describe verdicts in a JSON document."""
    return [
        {
            "point": one.point.id,
            "machine": one.point.machine_name,
            "finished_at": utc_time(one.point.finished_at),
            "kept": bool(one.reasons),
            "reasons": list(one.reasons),
        }
        for one in judged
    ]
