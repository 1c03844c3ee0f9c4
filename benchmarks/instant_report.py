"""What the benchmark of instant recovery prints, and the page it writes."""

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from benchmarks.instant_reads import OURS, QEMU, READS, SIZES, Reads
from benchmarks.instant_starts import FOLDER, KINDS, S3, Starts
from benchmarks.report import Rows, processor
from hotspare.units import format_bytes
from lab.guest import Kind

_TARGETS = {FOLDER: 1.2, S3: 1.5}


@dataclass(frozen=True, slots=True)
class InstantReport:
    """Everything that was measured in one run."""

    command: str
    rounds: int
    starts: Mapping[Kind, Starts]
    disk_size: int
    reads: Mapping[str, Reads]

    def target_rows(self) -> Rows:
        """Compare with what the project wants to reach."""
        rows = []
        for kind, starts in self.starts.items():
            for name, target in _TARGETS.items():
                ratio = statistics.median(starts.ratios(name))
                reached = "yes" if ratio <= target else "no"
                rows.append(
                    (f"{KINDS[kind]}: {name}", f"at most {target}", _spread(starts.ratios(name)), reached)
                )
        return Rows(("command to agent, beside its local disk", "target", "measured", "reached"), rows)

    def start_rows(self) -> Rows:
        """Tell the seconds of each way to start."""
        rows = []
        for kind, starts in self.starts.items():
            for name, answered in starts.answered.items():
                began = starts.started.get(name)
                rows.append(
                    (
                        KINDS[kind],
                        name,
                        f"{statistics.median(began):.2f} s" if began else "-",
                        f"{statistics.median(answered):.2f} s",
                        f"{min(answered):.2f} to {max(answered):.2f} s",
                    )
                )
        return Rows(("guest", "started from", "started after", "agent answers after", "from, to"), rows)

    def read_rows(self) -> Rows:
        """Tell what random reads take."""
        rows = []
        for size in SIZES:
            for name, reads in self.reads.items():
                cells = [format_bytes(size), name]
                for mine, its in ((reads.cold, self.reads[QEMU].cold), (reads.warm, self.reads[QEMU].warm)):
                    ratios = [one / other for one, other in zip(mine[size], its[size], strict=True)]
                    cells += [f"{statistics.median(mine[size]) * 1e6:.0f} us", _spread(ratios)]
                rows.append(tuple(cells))
        return Rows(("read", "server", "cold", "ratio", "warm", "ratio"), rows)

    def show(self, console: Console) -> None:
        """Print all tables."""
        for rows in (self.target_rows(), self.start_rows(), self.read_rows()):
            table = Table(*rows.header)
            for row in rows.rows:
                table.add_row(*row)
            console.print(table)

    def page(self) -> str:
        """Write the page of results, in Markdown."""
        others = " restic was not installed." if len(self.reads) == 2 else ""
        return f"""# How fast instant recovery is

Written by `{self.command}` on {datetime.now(UTC):%Y-%m-%d}: {processor()}, {os.cpu_count()} cores,
Linux {platform.release()}, guests under software emulation. {self.rounds} rounds, the ways in turn, the page
cache emptied before each; medians, and in brackets the smallest and the largest. A ratio is within a round.

## From the command to the guest's agent

The same guest of the lab, with a disk of 256 MiB, started from that (a local qcow2 file), from the call
of libvirt on; and recovered, from the start of the command on: a process, the passphrase (Argon2id as
by default), the definition, the start; the program is compiled, as an installed one is. S3 is SeaweedFS on
loopback. All is on the same file system.

{self.target_rows().markdown()}

{self.start_rows().markdown()}

## Random reads

{READS} reads at random places of a disk of {format_bytes(self.disk_size)} of this host's files, one after the
other, by the same NBD client. A cold read of {OURS} fetches, opens and decompresses a chunk of 256 KiB,
whatever is wanted of it; a warm one finds it in memory.{others}

{self.read_rows().markdown()}
"""


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
