"""Measures looking inside disks; see ``python -m benchmarks.inside --help``."""

import os
import platform
import shlex
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from benchmarks.inside_files import (
    FILES,
    LARGE_DISK,
    WANTED,
    Fetching,
    Listing,
    measure_fetching,
    measure_listing,
)
from benchmarks.measure import median
from benchmarks.memory import room_is_there
from benchmarks.narration import narrator
from benchmarks.report import Rows, processor
from benchmarks.unused import ZEROED, Measured, measure_unused
from hotspare.units import GIB, MIB, format_bytes

_DOCUMENTS = Path(__file__).resolve().parent.parent / "docs"
_ROOM = 30 * GIB

app = App(name="python -m benchmarks.inside", help_format="plaintext")


@dataclass(frozen=True, slots=True)
class InsideReport:
    """Everything that was measured in one run."""

    command: str
    rounds: int
    unused: Sequence[Measured]
    listing: Listing
    fetching: Fetching

    def targets(self) -> Rows:
        """Compare with what the project wants to reach."""
        ours, best = self.unused[0], next(one for one in self.unused if one.label == ZEROED)
        time = statistics.median(
            mine.wall / its.wall for mine, its in zip(ours.costs, best.costs, strict=True)
        )
        stored = ours.stored / best.stored
        listed, first = median(self.listing.walk).wall, median(self.listing.first).wall
        speed = statistics.median(
            store / file for store, file in zip(self.fetching.store, self.fetching.file, strict=True)
        )
        rows = [
            ("time beside a copy whose unused blocks are zero", "at most 1.10", f"{time:.2f}", time <= 1.1),
            ("stored beside that copy", "at most 1.10", f"{stored:.2f}", stored <= 1.1),
            (f"listing {FILES} files", "under 5 s", f"{listed:.1f} s", listed < 5),
            ("listing the first folder", "under 1 s", f"{first:.2f} s", first < 1),
            (
                f"{format_bytes(WANTED)} out of a disk of {format_bytes(LARGE_DISK)} on S3",
                "at least 0.5 of one GET's speed",
                f"{speed:.2f}",
                speed >= 0.5,
            ),
        ]
        return Rows(
            ("work", "target", "measured", "reached"),
            [(*words, "yes" if reached else "no") for *words, reached in rows],
        )

    def unused_rows(self) -> Rows:
        """Tell what each way to back up the disk took."""
        ours = self.unused[0]
        rows = []
        for one in self.unused:
            ratios = [its.wall / mine.wall for its, mine in zip(one.costs, ours.costs, strict=True)]
            cost = median(one.costs)
            rows.append(
                (
                    one.label,
                    f"{cost.wall:.1f} s",
                    f"{statistics.median(ratios):.2f}",
                    f"{cost.cpu:.1f} s",
                    format_bytes(cost.memory),
                    format_bytes(one.stored),
                )
            )
        return Rows(("way", "time", "times hotspare's", "CPU", "memory", "stored"), rows)

    def page(self) -> str:
        """Write the page."""
        fetched = ", ".join(
            f"{file:.2f} s beside {store:.2f} s"
            f" ({WANTED / MIB / file:.0f} and {WANTED / MIB / store:.0f} MiB/s)"
            for store, file in zip(self.fetching.store, self.fetching.file, strict=True)
        )
        first, walk = median(self.listing.first), median(self.listing.walk)
        parts = [
            "# Performance inside disks",
            f"Written by `{self.command}` on {datetime.now(UTC):%Y-%m-%d}. Do not edit it: run the command.",
            f"{os.cpu_count()} cores ({processor()}), Linux {platform.release().partition('-')[0]}, Python"
            f" {platform.python_version()}. Whole processes, key derivation and start of the interpreter"
            f" included; medians of {self.rounds} rounds, in each of which all take turns.",
            "## Targets",
            self.targets().markdown(),
            "## A disk full of deleted data",
            "An ext4 file system of 3.0 GiB: 20 % of it are files of this host, 70 % deleted random data. The"
            " first backup, into an empty repository on this host.",
            self.unused_rows().markdown(),
            "## Files",
            f"`files ls` and `files find '*'` of an ext4 file system with {self.listing.found} names, in a"
            f" repository on this host: {first.wall:.2f} s and {walk.wall:.1f} s, with"
            f" {format_bytes(walk.memory)} of memory.",
            f"`files cat` of a file of {format_bytes(WANTED)} on a SeaweedFS server of this host, beside one"
            f" GET of an object of that size, in each round: {fetched}.",
        ]
        return "\n\n".join(parts) + "\n"


@app.default
def measure(
    *,
    rounds: int = 3,
    folder: Path = Path("/var/tmp"),
    page: Annotated[Path, Parameter()] = _DOCUMENTS / "performance-inside.md",
) -> None:
    """Measure leaving out unused blocks, and reading files out of restore points, and write the page.

    Args:
        rounds: How often everything is repeated.
        folder: Where disks and repositories are made, and removed again; 30 GiB of room.
        page: The page to write.
    """
    if not room_is_there(folder, _ROOM):
        sys.exit(f"{folder} has less than {_ROOM // GIB} GiB of room; name another with --folder")
    console = Console()
    tell = narrator(console)
    workplace = Path(tempfile.mkdtemp(prefix="hotspare-bench-", dir=folder))
    try:
        report = InsideReport(
            command="make bench-inside"
            if len(sys.argv) == 1
            else f"python -m benchmarks.inside {shlex.join(sys.argv[1:])}",
            rounds=rounds,
            unused=measure_unused(workplace, rounds, tell),
            listing=measure_listing(workplace, rounds, tell),
            fetching=measure_fetching(workplace, rounds, tell),
        )
    finally:
        shutil.rmtree(workplace)
    page.write_text(report.page(), encoding="utf-8")
    console.print(report.page())
    console.print(f"Written to {page}")


if __name__ == "__main__":
    app()
