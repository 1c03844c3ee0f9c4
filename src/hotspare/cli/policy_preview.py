"""``hotspare policy preview``: what a policy selects, when it is due, what its retention would forget."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt

from hotspare.cli import output
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.output import utc_time
from hotspare.cli.policy_fleet import Chosen, Fleet, age
from hotspare.cli.policy_retention import Judged, judge, judged_fields, print_judged
from hotspare.cli.session import Session
from hotspare.policy.low_peak import LowPeak
from hotspare.policy.planning import EARLY, PlannedRun, Standing, timetable
from hotspare.policy.policy import Policy
from hotspare.units import format_duration


@dataclass(frozen=True, slots=True)
class _Preview:
    policy: Policy
    chosen: list[Chosen]
    others: list[Chosen]
    standings: dict[str, Standing]
    """By machine id."""
    low_peaks: dict[str, LowPeak]
    """By platform."""
    planned: dict[str, list[PlannedRun]]
    """By platform: their low-peak hours differ."""
    judged: list[Judged]

    def breaks_rpo(self, one: Chosen) -> bool:
        """Tell whether a machine's promise is broken now."""
        promised = self.policy.rpo_seconds
        old = age(self.standings[one.machine.id].newest)
        return promised is not None and (old is None or old.total_seconds() > promised)


def preview(
    name: str,
    /,
    *,
    next_: Annotated[NonNegativeInt, Parameter(name="--next")] = 5,
    no_retention: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    options: Options = DEFAULTS,
) -> None:
    """Show which machines a policy selects, when it is due, and what its retention would forget.

    Nothing is changed. How old restore points are comes from this host's catalog, for the machines; from the
    repository, for retention.

    Args:
        name: Name of the policy.
        next_: How many times at which it is due are shown.
        no_retention: Do not open the repository, and judge no restore points.
        options: See below.
    """
    with Session(options) as session:
        found = _look(Fleet(session), session.policies().get(name), next_, retention=not no_retention)
        if session.as_json:
            output.print_document(output.document("policy-preview", **_fields(found)))
        else:
            _print(found)


def _look(fleet: Fleet, policy: Policy, count: int, *, retention: bool) -> _Preview:
    chosen, others = fleet.machines_of(policy)
    url = fleet.repository(policy).backend.url if retention else (fleet.repository_url(policy) or "")
    low_peaks = {
        uri: found for uri in fleet.platforms_of(policy) if (found := fleet.low_peak(policy, uri)) is not None
    }
    return _Preview(
        policy,
        chosen,
        others,
        {one.machine.id: fleet.standing(one.machine, url) for one in chosen},
        low_peaks,
        {
            uri: timetable(policy, low_peaks.get(uri), datetime.now(UTC), count)
            for uri in fleet.platforms_of(policy)
        },
        judge(fleet, policy, chosen) if retention else [],
    )


def _fields(found: _Preview) -> dict[str, Any]:
    return {
        "policy": found.policy.name,
        "enabled": found.policy.enabled,
        "machines": [
            {
                "machine": one.machine.name,
                "machine_id": one.machine.id,
                "platform": one.machine.platform,
                "because": one.because,
                "newest_point_at": utc_time(newest)
                if (newest := found.standings[one.machine.id].newest)
                else None,
                "rpo_broken": found.breaks_rpo(one),
            }
            for one in found.chosen
        ],
        "left_out": [
            {"machine": one.machine.name, "platform": one.machine.platform, "because": one.because}
            for one in found.others
        ],
        "due": [
            {
                "platform": uri,
                "at": utc_time(one.due),
                "opens": utc_time(one.opens) if one.opens else None,
                "closes": utc_time(one.closes) if one.closes else None,
            }
            for uri, planned in found.planned.items()
            for one in planned
        ],
        "low_peak": [low_peak_fields(uri, one) for uri, one in found.low_peaks.items()],
        "retention": judged_fields(found.judged),
    }


def low_peak_fields(uri: str, low_peak: LowPeak) -> dict[str, Any]:
    """Describe what was learnt of a host in a JSON document."""
    return {
        "platform": uri,
        "windows": [str(window) for window in low_peak.windows],
        "because": low_peak.because,
    }


def print_low_peak(uri: str, low_peak: LowPeak) -> None:
    """Say what was learnt of a host."""
    windows = ", ".join(str(window) for window in low_peak.windows) or "none"
    output.print_text(f"Low-peak hours of {uri}: {windows} ({low_peak.because}).")


def _print(found: _Preview) -> None:
    policy = found.policy
    enabled = "" if policy.enabled else ", which is not enabled"
    output.print_text(
        f"The policy {policy.name}{enabled} selects {len(found.chosen)} of"
        f" {len(found.chosen) + len(found.others)} machines:"
    )
    rows = [
        (one.machine.name, one.machine.platform, one.because, *_age_cells(found, one)) for one in found.chosen
    ]
    output.print_table(("MACHINE", "PLATFORM", "BECAUSE", "NEWEST POINT", "RPO"), rows, indent="  ")
    for one in found.others:
        output.print_text(f"  left out: {one.machine.name}, {one.because}")
    for uri, planned in found.planned.items():
        _print_due(policy, uri, planned)
    for uri, low_peak in found.low_peaks.items():
        print_low_peak(uri, low_peak)
    if found.judged:
        gone = sum(not one.reasons for one in found.judged)
        output.print_text(
            f"Of {len(found.judged)} restore points, {len(found.judged) - gone} are kept and {gone} would be"
            " forgotten:"
        )
        print_judged(found.judged, forgotten="(would be forgotten)")


def _age_cells(found: _Preview, one: Chosen) -> tuple[str, str]:
    old = age(found.standings[one.machine.id].newest)
    promised = "-" if found.policy.rpo_seconds is None else "broken" if found.breaks_rpo(one) else "kept"
    return ("none" if old is None else f"{format_duration(old.total_seconds())} old", promised)


def _print_due(policy: Policy, uri: str, planned: Sequence[PlannedRun]) -> None:
    if policy.by_rpo_alone:
        share = f"{EARLY:.0%} of its RPO of {policy.schedule.rpo}"
        output.print_text(f"A machine of {uri} is due when {share} have passed since its last run.")
        return
    if not policy.schedule.when:
        output.print_text("It is never due: it is run by hand.")
        return
    output.print_text(f"Due at {uri}, in the time of {policy.schedule.time_zone}:")
    for one in planned:
        local = f"{one.due.astimezone(policy.zone):%a %Y-%m-%d %H:%M %Z}"
        output.print_text(f"  {local}: {_when(policy, one)}")


def _when(policy: Policy, one: PlannedRun) -> str:
    if one.opens is None:
        return "no window opens within a year"
    begins = "begins then" if one.opens == one.due else f"begins {one.opens.astimezone(policy.zone):%a %H:%M}"
    if one.closes is None:
        return begins
    return f"{begins}; the window closes {one.closes.astimezone(policy.zone):%a %H:%M}"
