"""What a policy selects, when it is due, what its retention would forget: before anything is done."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hotspare.documents.form import error_fields, utc_time
from hotspare.errors import HotspareError
from hotspare.fleet.fleet import Chosen, Fleet, age
from hotspare.fleet.verdicts import Judged, judge, judged_fields
from hotspare.policy.low_peak import LowPeak
from hotspare.policy.planning import PlannedRun, Standing, timetable
from hotspare.policy.policy import Policy


@dataclass(frozen=True, slots=True)
class Preview:
    """What was found."""

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
    silent: dict[str, HotspareError]
    """Platforms that did not answer, by their URIs: what they have is not among the machines."""

    def breaks_rpo(self, one: Chosen) -> bool:
        """Tell whether a machine's promise is broken now."""
        promised = self.policy.rpo_seconds
        old = age(self.standings[one.machine.id].newest)
        return promised is not None and (old is None or old.total_seconds() > promised)


def look(
    fleet: Fleet, policy: Policy, count: int, *, retention: bool, warn: Callable[[str], None]
) -> Preview:
    """Look at what a policy meets, without changing anything; it need not be one that is kept.

    Args:
        fleet: where it meets it.
        policy: of which this is asked.
        count: how many times at which it is due.
        retention: open its repository, and judge restore points.
        warn: told what cannot be read of these.

    Raises:
        PlatformUnavailable: none of its platforms answers.
        HotspareError: its repository cannot be opened.
    """
    silent: dict[str, HotspareError] = {}
    chosen, others = fleet.machines_of(policy, silent), fleet.others_of(policy, silent)
    if silent and not (chosen or others):
        raise next(iter(silent.values()))
    url = fleet.repository(policy).backend.url if retention else (fleet.repository_url(policy) or "")
    low_peaks = {
        uri: found for uri in fleet.platforms_of(policy) if (found := fleet.low_peak(policy, uri)) is not None
    }
    return Preview(
        policy,
        chosen,
        others,
        {one.machine.id: fleet.standing(one.machine, url) for one in chosen},
        low_peaks,
        {
            uri: timetable(policy, low_peaks.get(uri), datetime.now(UTC), count)
            for uri in fleet.platforms_of(policy)
        },
        judge(fleet, policy, chosen, warn) if retention else [],
        silent,
    )


def preview_fields(found: Preview) -> dict[str, Any]:
    """Describe it in a JSON document."""
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
        "low_peak_is": found.policy.schedule.low_peak,
        "low_peak": [low_peak_fields(uri, one) for uri, one in found.low_peaks.items()],
        "retention": judged_fields(found.judged),
        "problems": [{"platform": uri, **error_fields(error)} for uri, error in found.silent.items()],
    }


def low_peak_fields(uri: str, low_peak: LowPeak) -> dict[str, Any]:
    """Describe what was learnt of a host in a JSON document."""
    return {
        "platform": uri,
        "windows": [str(window) for window in low_peak.windows],
        "because": low_peak.because,
        "hours": [round(low_peak.hours[hour], 3) for hour in sorted(low_peak.hours)],
        "low_hours": sorted(low_peak.low_hours),
    }
