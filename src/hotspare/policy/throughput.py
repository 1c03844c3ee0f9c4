"""How fast a machine's data comes, and how long its next run will take, by its last runs."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LOOKED_AT = 7
"""Runs that count, the newest."""
_UNKNOWN_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run that succeeded."""

    bytes_read: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is expected of the next run."""

    rate: float
    """Bytes per second; 0 when nothing is known."""
    seconds: float
    """Rather too long than too short: so it is decided what fits into a window."""


def estimate(runs: Sequence[PastRun]) -> Estimate:
    """Estimate from a machine's runs, the newest first. Medians, so that one strange night does not count."""
    counting = [run for run in runs[:LOOKED_AT] if run.seconds > 0]
    if not counting:
        return Estimate(0.0, _UNKNOWN_SECONDS)
    return Estimate(
        statistics.median(run.bytes_read / run.seconds for run in counting),
        1.25 * statistics.median(run.seconds for run in counting),
    )
