"""What the benchmark on guests prints, and the page it writes."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from benchmarks.chart import bar_chart
from benchmarks.guest_increments import CHANGED, LARGE, PIECES, Increment
from benchmarks.guest_latency import IDLE, WITH, Manner
from benchmarks.guest_pull import BACKUP, NBDCOPY, Pull
from benchmarks.report import Rows, processor
from hotspare.units import format_bytes

P99_TARGET = 1.5
PULL_TARGET = 0.9
READ_TARGET = 2.0
FIXED_TARGET = 5.0
NOTHING = "nothing changed"


@dataclass(frozen=True, slots=True)
class GuestReport:
    """Everything that was measured in one run."""

    command: str
    disk_size: int
    rounds: int
    latency: dict[str, Manner]
    pull: dict[str, Pull]
    increments: dict[str, Increment]

    def tables(self) -> dict[str, Rows]:
        """Give all tables by their headings."""
        return {
            "Targets": self._target_rows(),
            "What the guest feels": self._latency_rows(),
            "Full pull": self._pull_rows(),
            "Increment of a large disk": self._increment_rows(),
        }

    def p99_ratios(self, name: str) -> list[float]:
        """Give, round by round, the p99 of a flush as a multiple of that of the idle machine."""
        idle = self.latency[IDLE].flushes
        return [one.p99 / usual.p99 for one, usual in zip(self.latency[name].flushes, idle, strict=True)]

    def rate_ratios(self, name: str) -> list[float]:
        """Give, round by round, the flushes a second as a multiple of those of the idle machine."""
        idle = self.latency[IDLE].flushes
        return [
            one.per_second / usual.per_second
            for one, usual in zip(self.latency[name].flushes, idle, strict=True)
        ]

    def pull_ratios(self, name: str) -> list[float]:
        """Give, round by round, the speed as a multiple of nbdcopy's."""
        return [
            speed / nbdcopy
            for speed, nbdcopy in zip(self.pull[name].speeds, self.pull[NBDCOPY].speeds, strict=True)
        ]

    def fixed_seconds(self) -> float:
        """Give the seconds of an increment of nothing."""
        return statistics.median(self.increments[NOTHING].backup_seconds)

    def read_ratio(self, kind: str) -> float:
        """Give how many times longer an increment takes, beyond one of nothing, than just reading."""
        one = self.increments[kind]
        beyond = statistics.median(one.backup_seconds) - self.fixed_seconds()
        return max(0.0, beyond) / statistics.median(one.read_seconds)

    def _target_rows(self) -> Rows:
        p99, pull = (
            statistics.median(ratios) for ratios in (self.p99_ratios(WITH), self.pull_ratios(BACKUP))
        )
        fixed = self.fixed_seconds()
        rows = [
            (
                "p99 of the guest's flushes during a backup with control",
                f"at most {P99_TARGET} times idle",
                f"{p99:.2f} times",
                _verdict(p99 <= P99_TARGET),
            ),
            (
                "full pull when everything is known",
                f"at least {PULL_TARGET:.0%} of nbdcopy",
                f"{pull:.0%}",
                _verdict(pull >= PULL_TARGET),
            ),
            (
                f"fixed cost of an increment of a disk of {format_bytes(LARGE)}",
                f"at most {FIXED_TARGET:.0f} s",
                f"{fixed:.2f} s",
                _verdict(fixed <= FIXED_TARGET),
            ),
        ]
        for kind in PIECES:
            ratio = self.read_ratio(kind)
            rows.append(
                (
                    f"{format_bytes(CHANGED)} changed {kind}, beyond that",
                    f"at most {READ_TARGET:.0f} times reading them",
                    f"{ratio:.1f} times",
                    _verdict(ratio <= READ_TARGET),
                )
            )
        return Rows(("", "target", "measured", ""), rows)

    def _latency_rows(self) -> Rows:
        rows = []
        for name, manner in self.latency.items():
            flushes = manner.flushes
            rows.append(
                (
                    name,
                    _milliseconds([one.median for one in flushes]),
                    _milliseconds([one.p99 for one in flushes]),
                    " ".join(f"{ratio:.2f}" for ratio in self.p99_ratios(name)),
                    f"{statistics.median(one.per_second for one in flushes):.0f}",
                    " ".join(f"{ratio:.2f}" for ratio in self.rate_ratios(name)),
                    f"{statistics.median(manner.seconds):.1f} s" if manner.seconds else "",
                    f"{statistics.median(_held_back(manner)):.1f} s" if manner.held_back else "",
                )
            )
        header = (
            "",
            "p50",
            "p99",
            "p99, times idle",
            "flushes a second",
            "times idle",
            "transfer",
            "held back",
        )
        return Rows(header, rows)

    def _pull_rows(self) -> Rows:
        rows = [
            (
                name,
                f"{statistics.median(pull.speeds):.0f}",
                " ".join(f"{ratio:.2f}" for ratio in self.pull_ratios(name)),
            )
            for name, pull in self.pull.items()
        ]
        return Rows(("", "MiB/s", "times nbdcopy"), rows)

    def _increment_rows(self) -> Rows:
        rows = [
            (
                kind,
                f"{statistics.median(one.backup_seconds):.2f} s",
                " ".join(f"{seconds:.2f}" for seconds in one.backup_seconds),
                f"{statistics.median(one.read_seconds):.2f} s",
                format_bytes(one.bytes_read),
            )
            for kind, one in self.increments.items()
        ]
        return Rows(("changed", "backup", "in each round", "reading what is marked", "read"), rows)

    def chart(self) -> str:
        """Draw what the guest feels."""
        groups = {
            "p99 of a flush": {
                name: statistics.median(one.p99 for one in manner.flushes) * 1000
                for name, manner in self.latency.items()
            },
        }
        return bar_chart("A guest's flushes during a backup: milliseconds, less is better", groups, "ms")

    def page(self, chart: str) -> str:
        """Write the page, with ``chart`` the name of the picture beside it."""
        kernel = platform.release().partition("-")[0]
        parts = [
            "# Performance on running guests",
            f"Written by `{self.command}` on {datetime.now(UTC):%Y-%m-%d}. Do not edit it: run the command.",
            f"{os.cpu_count()} cores ({processor()}), {platform.system()} {kernel}, Python"
            f" {platform.python_version()}, load {os.getloadavg()[2]:.1f} over the last 15 minutes. The"
            " guests are the lab's: one processor, emulated without KVM, so the guest's program, QEMU and"
            " hotspare share these cores.",
        ]
        notes = self._notes(chart)
        for heading, rows in self.tables().items():
            parts += [f"## {heading}", notes[heading], rows.markdown()]
        return "\n\n".join(parts) + "\n"

    def _notes(self, chart: str) -> dict[str, str]:
        return {
            "Targets": f"Medians of {self.rounds} rounds. A ratio is made within each round.",
            "What the guest feels": f"![p99 of the guest's flushes]({chart})\n\n"
            "A program in the guest writes 4 KiB and flushes them, again and again, and notes how"
            f" long that takes. Meanwhile its second disk, {format_bytes(self.disk_size)} of this host's own"
            " files, is backed up in full into a new repository in memory. Counted is the time of the"
            " transfer; the rows take turns.",
            "Full pull": "The same disk of an idle machine, from one export of one backup job. nbdcopy copies"
            " into nothing (`nbdcopy --no-extents URI null:`), with its usual number of connections and with"
            ' one. "Reading alone" throws the bytes away; with "everything known" all of them are hashed and'
            " looked up, and nothing is stored.",
            "Increment of a large disk": f"A disk of {format_bytes(LARGE)}, almost empty, of a running"
            f" machine, in which {format_bytes(CHANGED)} of random bytes change in different ways. The whole"
            " command is timed, from the start of the interpreter to its end. Beside it: reading what the"
            " bitmap marks, in a job of its own, into memory. Chunks of 256 KiB are read whole.",
        }

    def show(self, console: Console) -> None:
        """Print all tables."""
        for heading, rows in self.tables().items():
            table = Table(*rows.header, title=heading, title_justify="left")
            for row in rows.rows:
                table.add_row(*row)
            console.print(table)


def _held_back(manner: Manner) -> list[float]:
    return [one["seconds"] if one else 0.0 for one in manner.held_back]


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.2f} ms"


def _verdict(met: bool) -> str:
    return "met" if met else "missed"
