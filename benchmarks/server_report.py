"""The page about what the server costs."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from hotspare.units import MIB, format_bytes

HELP_MAX, START_MAX, PAGE_MAX, WATCH_MAX = 0.2, 2.0, 0.3, 0.1
MEMORY_MAX = 200 * MIB


@dataclass(frozen=True, slots=True)
class Start:
    """A process from its start to where it was wanted: seconds, and seconds of processor time."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the interface, asked for many times."""

    path: str
    waited: Sequence[float]
    worked: Sequence[float]
    """Seconds of processor time of the whole server, whatever else it did meanwhile included."""
    size: int


@dataclass(frozen=True, slots=True)
class Report:
    """All that was measured."""

    machines: int
    runs: int
    helps: Sequence[Start]
    first_start: Start
    starts: Sequence[Start]
    idle_cpu: float
    idle_memory: tuple[int, int]
    used_memory: tuple[int, int]
    pages: Sequence[Page]
    watched: dict[int, tuple[float, float]]
    """By the number of watchers: the server's share of a core, and events that each was told a second."""


def p95(values: Sequence[float]) -> float:
    """Give what 95 % are not above."""
    return sorted(values)[max(0, round(0.95 * len(values)) - 1)]


def write_report(report: Report, command: str) -> str:
    """Write the page in Markdown."""
    parts = (_head(report, command), _targets(report), _starting(report), _idle(report), _pages(report))
    return "\n".join(line for part in (*parts, _watchers(report)) for line in part)


def _head(report: Report, command: str) -> list[str]:
    return [
        "# Performance of the server",
        "",
        f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d}. Do not edit it: run the command.",
        "",
        f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, load"
        f" {os.getloadavg()[2]:.1f} over the last 15 minutes. Others use this machine as well: where times of"
        " waiting are much longer than processor time, they are why.",
        "",
        f"The server is the real `hotspare server`, with TLS, on {report.machines} machines (disk images)"
        f" with a restore point each, {report.runs} runs in the history, and 20 policies. Its client runs"
        " beside it.",
        "",
    ]


def _targets(report: Report) -> list[str]:
    slowest = max(report.pages, key=lambda page: p95(page.waited))
    most = max(report.watched)
    extra = report.watched[most][0] - report.watched[0][0]
    helped, started = (statistics.median(one.wall for one in some) for some in (report.helps, report.starts))
    memory, slow = report.idle_memory[0], p95(slowest.waited)
    rows = [
        ("`hotspare --help`", "under 200 ms", _ms(helped), helped < HELP_MAX),
        ("start of the server, until ready", "under 2 s", f"{started:.2f} s", started < START_MAX),
        ("memory when idle", "under 200 MiB", format_bytes(memory), memory < MEMORY_MAX),
        (f"slowest page (`{slowest.path}`), p95", "under 300 ms", _ms(slow), slow < PAGE_MAX),
        (f"{most} watchers", "under 10% of a core", f"{extra:.1%}", extra < WATCH_MAX),
    ]
    shown = [(name, target, value, "met" if met else "missed") for name, target, value, met in rows]
    return ["## Targets", "", *_table(("", "target", "measured", ""), shown), ""]


def _starting(report: Report) -> list[str]:
    rows = [
        ("`hotspare --help`", *_start(report.helps)),
        ("server, first start", *_start([report.first_start])),
        ("server", *_start(report.starts)),
    ]
    words = "Medians. The server's first start makes its certificate and the job database."
    return ["## Starting", "", words, "", *_table(("", "waited", "processor"), rows), ""]


def _idle(report: Report) -> list[str]:
    rows = [
        ("idle", *map(format_bytes, report.idle_memory)),
        ("after all pages below", *map(format_bytes, report.used_memory)),
    ]
    return [
        "## Idle",
        "",
        f"After its start, without anybody asking, the server takes {report.idle_cpu:.1%} of a core: its"
        " heartbeat, a look at all policies every 20 seconds, and the queue.",
        "",
        *_table(("", "resident", "of that its own"), rows),
        "",
    ]


def _pages(report: Report) -> list[str]:
    return [
        "## Pages",
        "",
        f"Each asked for {len(report.pages[0].waited)} times over one connection. Processor time is that of"
        " the whole server meanwhile.",
        "",
        *_table(
            ("page", "size", "waited, median", "p95", "processor, median", "p95"),
            [_page(page) for page in report.pages],
        ),
        "",
    ]


def _watchers(report: Report) -> list[str]:
    rows = [
        (str(count), f"{cpu:.1%}", f"{told:.1f} a second" if count else "")
        for count, (cpu, told) in report.watched.items()
    ]
    return [
        "## Watchers",
        "",
        "So many streams of `GET /events` over TLS, while another process backs two machines up and writes"
        " its progress every three seconds. Processor time is that of the server alone.",
        "",
        *_table(("watchers", "share of a core", "events told to each"), rows),
        "",
    ]


def _page(page: Page) -> tuple[str, ...]:
    times = (
        statistics.median(page.waited),
        p95(page.waited),
        statistics.median(page.worked),
        p95(page.worked),
    )
    return (f"`{page.path}`", format_bytes(page.size), *map(_ms, times))


def _start(starts: Sequence[Start]) -> tuple[str, str]:
    return (
        f"{statistics.median(one.wall for one in starts):.2f} s",
        f"{statistics.median(one.cpu for one in starts):.2f} s",
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruler = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (header, ruler, *rows)]
