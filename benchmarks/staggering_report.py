"""What the simulation of a week showed, as a page and as a chart of the week."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from benchmarks.staggering_estate import HOST_DISK, LINK, MACHINE_MAX


@dataclass(slots=True)
class Outcome:
    """What a rule did in the week."""

    seconds: float = 0.0
    """Of a processor, that the simulation took."""
    runs: int = 0
    most_on_a_host: int = 0
    most_at_once: int = 0
    run_minutes: float = 0.0
    run_minutes_in_low_peak: float = 0.0
    slow_minutes: float = 0.0
    """Host-minutes in which the guests' latency was at least ``SLOW`` times what it is without backups."""
    slow_by_hour: Counter[int] = field(default_factory=Counter)
    runs_by_hour: Counter[int] = field(default_factory=Counter)
    """The most runs at once on any one host, by hour of the week."""
    broken_machine_hours: float = 0.0
    broken_machines: set[str] = field(default_factory=set)
    """Machines whose promise was broken at some time."""
    durations: list[float] = field(default_factory=list)

    @property
    def in_low_peak(self) -> float:
        """The share of backup time that was in the hosts' low-peak hours."""
        return self.run_minutes_in_low_peak / self.run_minutes if self.run_minutes else 1.0


_INTRODUCTION = """\
Made by `python -m benchmarks.staggering --write`. **This is a simulation**: {machines:,} machines on {hosts}
hosts over one week, minute by minute. Admission is the product's own code (`src/hotspare/policy/`); hosts,
guests and repositories are a model.

![A week by each rule](performance-staggering.svg)
"""
_ASSUMPTIONS = """\
Guests count as slow in a minute in which their disk operations take at least twice as long as without
backups.

## What is compared

- **cron, all at 22:00**: each machine once a day at the same time, those with an RPO of 6 hours every 4
  hours.
- **cron, spread**: the same, the times spread evenly over eight hours of the night, in the order of the
  machines' numbers.
- **admission**: a policy with an RPO alone: a machine asks when 60 % of it have passed. Hours are the
  low-peak hours that were learnt of its host from three weeks of samples (`low_peak: use`), left where
  the RPO would break (`break_windows_for_rpo`); one run at once on a host, 24 into a repository; no new
  run on a host whose guests are slow.

## What is assumed

- Nine machines of ten have an RPO of 26 hours, the others of 6. Each changes data at its own rate (log-
  normal,
  median 800 MiB an hour), and a backup reads what changed since the last one, 30 % less to 40 % more.
- Two hosts of three are busy by day, the third at night (batch work); at weekends they are calmer. A host's
  disks do {disk:.0f} MiB/s, a machine's backup reads {reads:.0f} MiB/s at most, a repository takes
  {link:.0f} MiB/s. There are four repositories.
- Guests' latency follows a queue: 1 / (1 - utilisation). Backups take what guests leave, at least 15 %, and
  share that evenly.
- Nothing fails. Running backups are not slowed down by the guests' latency, which real ones are
  ([decision 0017](decisions/0017-read-beside-the-guest.md)): with that, all rules would have fewer slow
  minutes
  and longer backups.
- The week follows upon a day that is not counted. The seed is fixed: the same command gives the same numbers,
  but for the last line.
"""
_COLOURS = ("#b3651f", "#5b6f9c", "#0a7d5a")
_WIDTH, _LEFT, _PANEL, _GAP = 760, 60, 120, 46
_PER_HOUR = (_WIDTH - _LEFT - 10) / 168


def page(found: Mapping[str, Outcome], machines: int, hosts: int) -> str:
    """Write the whole page."""
    rows: list[tuple[str, list[str]]] = [
        ("backups in the week", [f"{one.runs:,}" for one in found.values()]),
        ("most at once on one host", [str(one.most_on_a_host) for one in found.values()]),
        ("most at once in all", [str(one.most_at_once) for one in found.values()]),
        ("host-minutes with slow guests", [f"{one.slow_minutes:,.0f}" for one in found.values()]),
        ("backup time in low-peak hours of the host", [f"{one.in_low_peak:.0%}" for one in found.values()]),
        ("machine-hours with a broken RPO", [f"{one.broken_machine_hours:,.1f}" for one in found.values()]),
        ("machines whose RPO was ever broken", [str(len(one.broken_machines)) for one in found.values()]),
        ("median minutes of a backup", [f"{_median(one.durations) / 60:.1f}" for one in found.values()]),
        ("longest backup, minutes", [f"{max(one.durations, default=0) / 60:.0f}" for one in found.values()]),
        ("seconds of a processor to simulate", [f"{one.seconds:.1f}" for one in found.values()]),
    ]
    table = [f"| | {' | '.join(found)} |", f"| --- | {' | '.join('---:' for _ in found)} |"]
    table += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    return (
        f"# Staggering: a simulated week\n\n{_INTRODUCTION.format(machines=machines, hosts=hosts)}\n"
        + "\n".join(table)
        + f"\n\n{_ASSUMPTIONS.format(disk=HOST_DISK, reads=MACHINE_MAX, link=LINK)}"
    )


def week_chart(found: Mapping[str, Outcome]) -> str:
    """Draw two panels over the week: the most runs at once on a host, and minutes with slow guests."""
    shapes = [f'<text x="0" y="18" class="title">{escape("A simulated week, hour by hour")}</text>']
    for number, (name, colour) in enumerate(zip(found, _COLOURS, strict=False)):
        x = _LEFT + number * 230
        shapes.append(f'<rect x="{x}" y="30" width="12" height="12" fill="{colour}"/>')
        shapes.append(f'<text x="{x + 18}" y="41">{escape(name)}</text>')
    top = 66
    panels = (
        ("Most backups at once on one host", [one.runs_by_hour for one in found.values()]),
        ("Host-minutes in the hour with slow guests", [one.slow_by_hour for one in found.values()]),
    )
    for title, series in panels:
        shapes += _panel(top, title, series)
        top += _PANEL + _GAP
    style = (
        "text{font:12px system-ui,sans-serif;fill:#1c1f23}.title{font-weight:600;font-size:14px}"
        ".tick{text-anchor:end;font-size:11px}line{stroke:#8888;stroke-width:1}"
        "polyline{fill:none;stroke-width:1.6}@media(prefers-color-scheme:dark){text{fill:#e6e8ea}}"
    )
    label = "A simulated week by three rules: backups at once on a host, and minutes with slow guests"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}"'
        f' height="{top}" role="img" aria-label="{label}">'
    )
    return "\n".join([head, f"<style>{style}</style>", *shapes, "</svg>", ""])


def _panel(top: int, title: str, series: Sequence[Counter[int]]) -> list[str]:
    highest = max(max(one.values(), default=0) for one in series) or 1
    bottom = top + _PANEL
    shapes = [f'<text x="{_LEFT}" y="{top - 6}">{escape(title)}</text>']
    for value in (0, highest):
        y = bottom - value / highest * _PANEL
        shapes.append(f'<text x="{_LEFT - 6}" y="{y + 4:.0f}" class="tick">{value}</text>')
        shapes.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - 10}" y2="{y:.1f}"/>')
    for day, name in enumerate(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")):
        x = _LEFT + day * 24 * _PER_HOUR
        shapes.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>')
        shapes.append(f'<text x="{x + 4:.1f}" y="{bottom + 15}">{name}</text>')
    for one, colour in zip(series, _COLOURS, strict=False):
        points = " ".join(
            f"{_LEFT + (hour + 0.5) * _PER_HOUR:.1f},{bottom - one[hour] / highest * _PANEL:.1f}"
            for hour in range(168)
        )
        shapes.append(f'<polyline points="{points}" stroke="{colour}"/>')
    return shapes


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0
