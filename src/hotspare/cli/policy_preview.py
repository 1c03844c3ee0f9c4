"""``hotspare policy preview``: what a policy selects, when it is due, what its retention would forget."""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt

from hotspare.cli import output
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.policy_retention import print_judged
from hotspare.cli.session import Session
from hotspare.fleet.fleet import Chosen, Fleet, age
from hotspare.fleet.preview import Preview, look, preview_fields
from hotspare.policy.low_peak import LowPeak
from hotspare.policy.planning import EARLY, PlannedRun
from hotspare.policy.policy import Policy
from hotspare.units import format_duration


def preview(
    name: str,
    /,
    *,
    next_: Annotated[NonNegativeInt, Parameter(name="--next")] = 5,
    no_retention: Switch = False,
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
        policy = session.policies().get(name)
        found = look(Fleet(session), policy, next_, retention=not no_retention, warn=output.warn)
        if session.as_json:
            output.print_document(output.document("policy-preview", **preview_fields(found)))
        else:
            _print(found)


def print_low_peak(uri: str, low_peak: LowPeak) -> None:
    """Say what was learnt of a host."""
    windows = ", ".join(str(window) for window in low_peak.windows) or "none"
    output.print_text(f"Low-peak hours of {uri}: {windows} ({low_peak.because}).")


def _print(found: Preview) -> None:
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
    for uri, error in found.silent.items():
        output.warn(f"Machines of {uri} are not known now. {error}")
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


def _age_cells(found: Preview, one: Chosen) -> tuple[str, str]:
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
