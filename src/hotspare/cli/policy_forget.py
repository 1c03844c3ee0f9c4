"""``hotspare policy forget``: have a policy's retention applied."""

from hotspare.cli import output
from hotspare.cli.confirmation import Yes, confirm
from hotspare.cli.history import History
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.policy_retention import print_judged
from hotspare.cli.repo_lock import points_locked_until
from hotspare.cli.session import Session
from hotspare.errors import PointKept
from hotspare.fleet.fleet import Fleet
from hotspare.fleet.verdicts import Judged, judge, judged_fields
from hotspare.repository.repository import Repository


def forget(
    name: str,
    /,
    *,
    yes: Yes = False,
    dry_run: Switch = False,
    options: Options = DEFAULTS,
) -> None:
    """Remove the restore points that a policy's retention does not keep, of the machines it selects now.

    The newest point of each machine stays, and so do those of "point keep", those that another policy with
    the same machine and repository keeps, and all points of machines that are gone. Their space is given back
    by "repo prune".

    Args:
        name: Name of the policy.
        yes: Do not ask.
        dry_run: Only say which points would be removed, and why others stay.
        options: See below.
    """
    with Session(options) as session:
        policy = session.policies().get(name)
        fleet = Fleet(session)
        judged = judge(fleet, policy, fleet.machines_of(policy), output.warn)
        doomed = [one for one in judged if not one.reasons]
        kept_meanwhile: set[str] = set()
        locked_until = None
        if doomed and not dry_run:
            question = f"Forget {len(doomed)} of {len(judged)} restore points by the policy {name}?"
            confirm(question, "Nothing was removed", yes=yes)
            repository = fleet.repository(policy)
            kept_meanwhile = forget_points(repository, doomed, History(session, repository.backend.url))
            gone = [one.point for one in doomed if one.point.id not in kept_meanwhile]
            locked_until = points_locked_until(fleet.repository(policy), gone)
        judged = [
            Judged(one.point, ("kept by hand",)) if one.point.id in kept_meanwhile else one for one in judged
        ]
        if session.as_json:
            until = output.utc_time(locked_until) if locked_until else None
            fields = {"policy": name, "dry_run": dry_run, "locked_until": until}
            output.print_document(output.document("policy-forget", **fields, points=judged_fields(judged)))
            return
        print_judged(judged, forgotten="(would be forgotten)" if dry_run else "(forgotten)")
        gone_count = sum(not one.reasons for one in judged)
        verb = "Would forget" if dry_run else "Forgot"
        output.print_text(f"{verb} {gone_count} of {len(judged)} restore points.")


def forget_points(repository: Repository, doomed: list[Judged], history: History) -> set[str]:
    """Forget points, the oldest first; gives the ids of those that a user has begun to keep meanwhile."""
    kept = set()
    for one in doomed:
        try:
            repository.forget(one.point)
        except PointKept:
            kept.add(one.point.id)
        else:
            history.remove_point(one.point)
    return kept
