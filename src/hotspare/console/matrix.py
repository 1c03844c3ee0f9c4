"""Machine by day: how the backups of each machine ended on each of the last days."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from hotspare.api.estate import Estate
from hotspare.catalog.rows import DayOutcome, Outcome
from hotspare.fleet.standing import MachineStanding

DAYS = 30
_GRAVEST_FIRST: tuple[Outcome, ...] = (
    "running",
    "failed",
    "lost",
    "missed",
    "interrupted",
    "cancelled",
    "ok",
)
_LOOKS = {
    "running": ("running", "▸"),
    "failed": ("failed", "✕"),
    "lost": ("failed", "✕"),
    "missed": ("missed", "○"),
    "interrupted": ("warning", "!"),
    "cancelled": ("warning", "!"),
    "ok": ("ok", "✓"),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One day of one machine."""

    day: date
    look: str
    """``ok``, ``warning``, ``failed``, ``running``, ``missed`` or ``none``."""
    sign: str
    words: str
    """``2 ok, 1 failed``."""


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """The days of one machine, the oldest first."""

    standing: MachineStanding
    cells: Sequence[Cell]


def days_until(today: date) -> list[date]:
    """Give the days that a matrix has, the oldest first."""
    return [today - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]


def matrix_of(estate: Estate, standings: Sequence[MachineStanding], today: date) -> list[MatrixRow]:
    """Make the rows of some machines, from this host's history; days are those of UTC."""
    days = days_until(today)
    since = datetime.combine(days[0], time(), UTC)
    seen = estate.ask(
        lambda it: [it.day_outcomes(one.platform, {one.line.name, one.line.id}, since) for one in standings]
    )
    return [MatrixRow(one, _cells(days, outcomes)) for one, outcomes in zip(standings, seen, strict=True)]


def _cells(days: Sequence[date], outcomes: Sequence[DayOutcome]) -> list[Cell]:
    by_day: dict[date, dict[Outcome, int]] = {}
    for one in outcomes:
        counts = by_day.setdefault(one.day, {})
        counts[one.outcome] = counts.get(one.outcome, 0) + one.count
    return [_cell(day, by_day.get(day, {})) for day in days]


def _cell(day: date, counts: Mapping[Outcome, int]) -> Cell:
    if not counts:
        return Cell(day, "none", "·", "nothing ran")
    gravest = next(kind for kind in _GRAVEST_FIRST if kind in counts)
    words = ", ".join(f"{counts[kind]} {kind}" for kind in _GRAVEST_FIRST if kind in counts)
    look, sign = _LOOKS[gravest]
    return Cell(day, look, sign, words)
