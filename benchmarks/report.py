"""What the benchmark prints, and the page it writes."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import peers
from benchmarks.chart import bar_chart
from benchmarks.database import Transactions
from benchmarks.increments import Increments
from benchmarks.measure import Cost, median
from benchmarks.memory import CONTENT, LARGE, LIMIT
from benchmarks.peers import Results
from benchmarks.prunes import CHANGED, DISK, Prunes
from benchmarks.targets import targets
from hotspare.units import MIB, format_bytes


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was measured in one run."""

    command: str
    disk_size: int
    content: int
    scale: int
    """pgbench's."""
    changed: int
    transactions: Transactions
    rounds: int
    versions: dict[str, str]
    """By the program's label."""
    results: Results
    increments: Increments
    large: Cost
    prunes: Prunes

    def tables(self) -> dict[str, "Rows"]:
        """Give all tables by their headings."""
        tables = {"Targets": self._target_rows()}
        tables |= {_heading(task): self._task_rows(task) for task in peers.TASKS}
        tables["Prune"] = self._prune_rows()
        tables["Increment by bitmap"] = self._increment_rows()
        tables["Memory of hotspare backup"] = self._memory_rows()
        return tables

    def _task_rows(self, task: str) -> "Rows":
        no_stored = task in peers.WITHOUT_STORED
        header = ("program", "time", "times hotspare's", "in each round", "MiB/s", "CPU", "memory")
        rows = []
        for label, costs in self.results.costs[task].items():
            cost, ratios = median(costs), self.results.ratios(task, label)
            stored = () if no_stored else (format_bytes(self.results.stored[task].get(label, 0)),)
            rows.append(
                (
                    label,
                    f"{cost.wall:.1f} s",
                    f"{statistics.median(ratios):.2f}",
                    " ".join(f"{ratio:.2f}" for ratio in ratios),
                    f"{self.disk_size / MIB / cost.wall:.0f}",
                    f"{cost.cpu:.1f} s",
                    format_bytes(cost.memory),
                    *stored,
                )
            )
        return Rows(header if no_stored else (*header, "stored"), rows)

    def _target_rows(self) -> "Rows":
        rows = [
            (one.work, one.wanted, one.measured, "yes" if one.reached else "no")
            for one in targets(self.results, self.transactions, self.prunes)
        ]
        return Rows(("work", "target", "measured", "reached"), rows)

    def _prune_rows(self) -> "Rows":
        ours = self.prunes.costs["hotspare"].wall
        rows = [
            (
                label,
                f"{cost.wall:.1f} s",
                f"{cost.wall / ours:.2f}",
                f"{cost.cpu:.1f} s",
                format_bytes(cost.memory),
                *(format_bytes(stored) for stored in self.prunes.stored[label]),
            )
            for label, cost in self.prunes.costs.items()
        ]
        return Rows(
            ("program", "time", "times hotspare's", "CPU", "memory", "stored before", "stored after"), rows
        )

    def _increment_rows(self) -> "Rows":
        one = self.increments
        rows = [
            (
                format_bytes(one.sizes[which]),
                format_bytes(one.changed),
                format_bytes(one.read[which]),
                f"{statistics.median(one.seconds[which]):.2f} s",
                " ".join(f"{seconds:.2f}" for seconds in one.seconds[which]),
                f"{one.full_seconds[which]:.1f} s",
            )
            for which in (0, 1)
        ]
        return Rows(("disk", "changed", "read", "increment", "in each round", "full"), rows)

    def _memory_rows(self) -> "Rows":
        usual = max(cost.memory for cost in self.results.costs[peers.FULL]["hotspare"])
        rows = [
            (f"{format_bytes(self.disk_size)}, all allocated", format_bytes(usual)),
            (
                f"{format_bytes(LARGE)}, {format_bytes(CONTENT)} of it allocated",
                format_bytes(self.large.memory),
            ),
        ]
        return Rows(("disk", "peak"), rows)

    def chart(self) -> str:
        """Draw the times of all tasks."""
        tasks = (peers.FULL, peers.RESTORE, peers.UNCHANGED, peers.TRANSACTIONS, peers.VERIFY)
        groups = {
            task: {label: median(costs).wall for label, costs in self.results.costs[task].items()}
            for task in tasks
        }
        return bar_chart(f"A disk of {format_bytes(self.disk_size)}: seconds, less is better", groups, "s")

    def page(self, chart: str) -> str:
        """Write the page, with ``chart`` the name of the picture beside it."""
        parts = [
            "# Performance",
            f"Written by `{self.command}` on {datetime.now(UTC):%Y-%m-%d}. Do not edit it: run the command.",
            self._place(),
            f"![Times of all programs]({chart})",
            self._method(),
        ]
        notes = self._notes()
        for heading, rows in self.tables().items():
            parts += [f"## {heading}", notes[heading], rows.markdown()]
        return "\n\n".join(parts) + "\n"

    def _place(self) -> str:
        kernel = platform.release().partition("-")[0]
        lines = [
            f"- {os.cpu_count()} cores ({processor()}), {platform.system()} {kernel},"
            f" Python {platform.python_version()}",
            *(f"- {label}: {version}" for label, version in self.versions.items()),
        ]
        return "\n".join(lines)

    def _method(self) -> str:
        return (
            f"The disk is an ext4 file system of {format_bytes(self.disk_size)} that holds"
            f" {format_bytes(self.content)} of this host's own files, chosen by the hash of their paths, and"
            f" a PostgreSQL cluster with pgbench's tables at scale {self.scale}. The"
            " image has no holes: every program reads all of it. Sources and repositories are in the page"
            " cache, and everything dirty is written out, before each run. Every program encrypts;"
            " compression is zstd level 1 (restic: `auto`, with repository format 2). Times are of whole"
            " processes, key derivation and start of the interpreter included. The programs take turns for"
            f" {self.rounds} rounds, each round in another order and with new repositories and caches."
            " Times are medians; a ratio is the median of the ratios within each round, so that a busy"
            " moment of the host touches both sides."
        )

    def _notes(self) -> dict[str, str]:
        ratio = self.increments.ratio()
        blocks = self.transactions
        return {
            "Targets": f"What the project wants to reach, and whether this run did.{self._bounds()}",
            "1000 transactions": "Again, after 1000 transactions of pgbench, with no change tracking. They"
            f" changed {blocks.blocks} blocks of 4 KiB ({format_bytes(blocks.blocks * 4096)}), which zstd"
            f" level 1 makes {format_bytes(blocks.one_by_one)} of one by one, and"
            f" {format_bytes(blocks.as_stream)} of as one stream.",
            "Verify": "Everything that is stored is read, opened and checked (restic: `check --read-data`;"
            " kopia: `snapshot verify` of all files; borg: `check --verify-data`).",
            "Full backup to S3": "As above, to a SeaweedFS server on this host, which shares its cores.",
            "Restore from S3": "Until it is durable, as above.",
            "Prune": f"A disk of {format_bytes(DISK)} of which {format_bytes(CHANGED)} change is backed up"
            " 200 times; then every second backup is forgotten, and the space given back. One round.",
            "Full backup": "The first backup, into an empty repository. The limit is reading, zstd level 1,"
            " BLAKE3 and AES-256-GCM of the same bytes on all cores, with nothing stored.",
            "Unchanged disk": "Again, with nothing changed and no change tracking: all content is read and"
            " recognised. (All programs are told not to trust time stamps.)",
            "1 % changed": f"Again, with {format_bytes(self.changed)} overwritten in scattered pieces of 4 to"
            " 64 KiB, and no change tracking.",
            "Restore": "To a raw file, until it is durable: hotspare does not end before; for the others an"
            " fsync of the file is in the time. Each program restores in the way that was quickest for it in"
            " the first round (restic: `restore` or `dump`; borg: `extract` with or without `--sparse`)."
            " The limit is AES-256-GCM, unzstd, and writing.",
            "Restore, not durable": "The same runs, without that fsync of the file.",
            "Increment by bitmap": "What changed is read, and nothing else, as with a dirty bitmap that"
            " names just that. No hypervisor is asked: the benchmark knows the places that it changed. The"
            " same bytes change on a small and on a large disk. From opening the repository to everything"
            f" being durable, in this process. The larger disk takes {ratio:.2f} times as long.",
            "Memory of hotspare backup": "Peak resident memory of the whole process; the limit is"
            f" {format_bytes(LIMIT)}.",
        }

    def _bounds(self) -> str:
        missed = [
            f"{one.work}: {one.bound}"
            for one in targets(self.results, self.transactions, self.prunes)
            if one.bound and not one.reached
        ]
        bounds = "; ".join(missed)
        return (
            f" Where one was missed, what an earlier profile found to bound it: {bounds}." if missed else ""
        )

    def show(self, console: Console) -> None:
        """Print all tables."""
        for heading, rows in self.tables().items():
            table = Table(*rows.header, title=heading, title_justify="left")
            for row in rows.rows:
                table.add_row(*row)
            console.print(table)


@dataclass(frozen=True, slots=True)
class Rows:
    """A table's words."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Give it as a Markdown table; all but the first column are aligned right."""
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _heading(task: str) -> str:
    return task[0].upper() + task[1:]


def processor() -> str:
    """Name this host's processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
