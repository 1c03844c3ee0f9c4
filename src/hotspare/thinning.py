"""Which of many points in time stay: "last 10, 1m for 1h, 1h for 1d". Pure.

A rule cuts time into pieces of equal length and lets the first point of each piece stay, until the piece is
older than the rule says. Pieces are counted from a fixed instant, not from now: so it is the same points that
stay however often, and however late, one thins. The newest point always stays.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hotspare.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(\d+)\s*([smhdw])")
_RULE = re.compile(r"(all|\d+\s*[smhdw])\s+for\s+(\d+\s*[smhdw])")
_LAST = re.compile(r"last\s+(\d+)")
_LONGEST = timedelta(days=36500)
_START = datetime(2000, 1, 3, tzinfo=UTC)
"""A Monday: pieces of weeks begin with weeks, and all shorter ones with days, hours and minutes."""
_EXAMPLE = 'Write rules such as "last 10", "all for 5m", "1m for 1h" or "1h for 1d", with commas between them'


@dataclass(frozen=True, slots=True)
class Rule:
    """One point of each piece of ``every`` stays, for at least ``duration``."""

    every: timedelta
    """Zero lets all stay."""
    duration: timedelta

    def __str__(self) -> str:
        every = format_every(self.every) if self.every else "all"
        return f"{every} for {format_every(self.duration)}"


@dataclass(frozen=True, slots=True)
class Thinning:
    """What stays."""

    rules: tuple[Rule, ...] = ()
    last: int = 1
    """So many of the newest stay, whatever the rules say; at least 1."""

    def __str__(self) -> str:
        last = [f"last {self.last}"] if self.last > 1 or not self.rules else []
        return ", ".join([*last, *map(str, self.rules)])

    def kept(self, points: Mapping[str, datetime], now: datetime) -> set[str]:
        """Give the ids of the points that stay.

        Args:
            points: when each was taken, by its id. Ids sort in the order in which the points were made, which
                is not always that of the times: clocks are set back.
            now: points that are later than this stay.
        """
        ordered = sorted(points)
        kept = set(ordered[-self.last :])
        kept.update(one for one in ordered if points[one] > now)
        for rule in self.rules:
            kept.update(_kept_by(rule, ordered, points, now))
        return kept

    def dropped(self, points: Mapping[str, datetime], now: datetime) -> list[str]:
        """Give the ids of those that do not stay, the earliest first."""
        return sorted(points.keys() - self.kept(points, now))


def _kept_by(
    rule: Rule, ordered: Iterable[str], points: Mapping[str, datetime], now: datetime
) -> Iterable[str]:
    if not rule.every:
        yield from (one for one in ordered if now - points[one] <= rule.duration)
        return
    seen = set[int]()
    for one in ordered:
        piece = (points[one] - _START) // rule.every
        # The age is that of the piece's end: the first of its points must not go before the others.
        end = _START + (piece + 1) * rule.every
        if piece not in seen and now - end <= rule.duration:
            yield one
        seen.add(piece)


def parse_thinning(text: str) -> Thinning:
    """Read rules with commas between them: ``last 10, all for 5m, 1m for 1h, 1h for 1d``.

    Raises:
        UsageError: it makes no sense.
    """
    rules: list[Rule] = []
    last = 1
    for part in (one.strip().lower() for one in text.split(",")):
        if found := _LAST.fullmatch(part):
            last = int(found[1])
            if last < 1:
                raise UsageError("The newest point always stays: last 0 is not possible", hint=_EXAMPLE)
            continue
        found = _RULE.fullmatch(part)
        if not found:
            raise UsageError(f"{part!r} is no rule for which points stay", hint=_EXAMPLE)
        every = timedelta() if found[1] == "all" else parse_every(found[1])
        rules.append(Rule(every, parse_every(found[2])))
        if rules[-1].every > rules[-1].duration:
            raise UsageError(f"{part!r} would let nothing stay for as long as it lasts", hint=_EXAMPLE)
    return Thinning(tuple(rules), last)


def parse_every(text: str) -> timedelta:
    """Read a duration: ``5s``, ``90 s``, ``1m``, ``2h``, ``1d``, ``1w``. Raises ``UsageError``."""
    found = _DURATION.fullmatch(text.strip().lower())
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST.total_seconds():
        raise UsageError(
            f"{text!r} is no duration that can be used",
            hint="Write a number and s, m, h, d or w: 60s, 5m, 1h, 1d",
        )
    return timedelta(seconds=seconds)


def format_every(duration: timedelta) -> str:
    """Write a duration of whole seconds as ``parse_every`` reads it: ``90s``, ``1h``."""
    seconds = round(duration.total_seconds())
    unit = max((one for one in _UNITS if seconds % _UNITS[one] == 0), key=lambda one: _UNITS[one])
    return f"{seconds // _UNITS[unit]}{unit}"
