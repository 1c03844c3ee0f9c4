"""From policies to requests for admission, with what the catalog and the platforms say of the machines."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from hotspare.fleet.fleet import Chosen, Fleet
from hotspare.platforms.pools import pools_of
from hotspare.policy.admission import Request
from hotspare.policy.calendar import next_of_all
from hotspare.policy.limits import resources
from hotspare.policy.planning import due_since, never_ran_since, request_for
from hotspare.policy.policy import Policy

_MISSED_MAX = 1000
"""Times that are counted one by one; a policy of every minute may have been due more often."""


@dataclass(frozen=True, slots=True)
class DueMachine:
    """A machine that a policy is due for."""

    chosen: Chosen
    since: datetime
    """When its last run by the policy began; since when the policy is as it is where there was none."""
    due: datetime
    """The first time after that."""


def those_due(fleet: Fleet, policy: Policy, chosen: Sequence[Chosen], now: datetime) -> list[DueMachine]:
    """Give those machines of a policy that are due."""
    changed_at = fleet.session.policies().changed_at(policy.name)
    never = never_ran_since(policy, changed_at)
    since = []
    for one in chosen:
        run_before = fleet.catalog.last_run_of(policy.name, one.machine.platform, one.machine.name)
        since.append(run_before.started_at if run_before else never)
    if not since or (max(since) <= now and due_since(policy, min(since), now) is None):
        return []  # as at most times: what is not due since the oldest run is not due since any other
    dues = ((one, began, due_since(policy, began, now)) for one, began in zip(chosen, since, strict=True))
    return [DueMachine(one, began, due) for one, began, due in dues if due is not None]


def request_of(fleet: Fleet, policy: Policy, chosen: Chosen, mover: str, now: datetime) -> Request:
    """Give what is asked of admission for one machine. Raises what ``Fleet.repository`` does.

    Args:
        fleet: its platforms and repositories.
        policy: by which it is to be backed up.
        chosen: the machine.
        mover: name of what carries the run out.
        now: the time.
    """
    machine = chosen.machine
    repository = fleet.repository(policy).backend.url
    pools = pools_of(machine)
    taken = resources(host=machine.platform, repository=repository, pools=pools, mover=mover)
    low_peak = fleet.low_peak(policy, machine.platform)
    return request_for(policy, fleet.standing(machine, repository), taken, low_peak, now)


def missed_times(policy: Policy, machine: DueMachine, now: datetime) -> list[datetime]:
    """Give the times at which a machine was due and had no run before the next such time came."""
    times: list[datetime] = []
    due: datetime | None = machine.due
    while due is not None and due <= now and len(times) < _MISSED_MAX:
        times.append(due)
        due = next_of_all(policy.calendars, due)
    return times[:-1]
