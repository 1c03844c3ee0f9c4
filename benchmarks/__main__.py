"""Runs the benchmark; see ``python -m benchmarks --help``."""

import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from benchmarks.database import compare_disks, make_database, run_transactions
from benchmarks.disks import change_disk, make_disk, scattered_changes
from benchmarks.increments import measure_increments
from benchmarks.memory import measure_large_disk, room_is_there
from benchmarks.narration import narrator
from benchmarks.peers import Disks, compare
from benchmarks.programs import PROGRAMS, BorgFixed
from benchmarks.prunes import POINTS, measure_prunes
from benchmarks.report import Report
from hotspare.units import GIB, MIB

_DOCUMENTS = Path(__file__).resolve().parent.parent / "docs"
_ROOM = 50 * GIB

app = App(name="python -m benchmarks", help_format="plaintext")


@app.default
def measure(
    *,
    rounds: int = 2,
    quick: Annotated[bool, Parameter(negative="")] = False,
    folder: Path = Path("/var/tmp"),
    page: Path = _DOCUMENTS / "performance.md",
) -> None:
    """Measure hotspare against restic, kopia and borg on this host, and write the page of results.

    Args:
        rounds: How often everything is repeated.
        quick: One round with a disk of 1 GiB, for a first look; writes no page.
        folder: Where disks and repositories are made, and removed again; 50 GiB of room.
        page: The page to write; a chart is written beside it.
    """
    if not room_is_there(folder, _ROOM):
        sys.exit(f"{folder} has less than {_ROOM // GIB} GiB of room; name another with --folder")
    console = Console()
    workplace = Path(tempfile.mkdtemp(prefix="hotspare-bench-", dir=folder))
    try:
        report = _measure(workplace, 1 if quick else rounds, quick, narrator(console))
    finally:
        shutil.rmtree(workplace)
    report.show(console)
    if not quick:
        page.with_suffix(".svg").write_text(report.chart(), encoding="utf-8")
        page.write_text(report.page(page.with_suffix(".svg").name), encoding="utf-8")
        console.print(f"Written to {page}")


def _measure(folder: Path, rounds: int, quick: bool, tell: Callable[[str], None]) -> Report:
    size = 1 * GIB if quick else 3 * GIB
    disks = Disks(folder / "disk.raw", folder / "transactions.raw", folder / "changed.raw")
    tell("making the disk of this host's files, and a database on it")
    content = make_disk(disks.first, size, size * (3 if quick else 6) // 10)
    scale = 13 * size // GIB
    make_database(disks.first, scale)
    for copy in (disks.transactions, disks.changed):
        shutil.copyfile(disks.first, copy)
    run_transactions(disks.transactions)
    changes = scattered_changes(size, size // 100)
    change_disk(disks.changed, changes, disks.first)
    results = compare(disks, folder, rounds, tell)
    tell("a disk of 1 TiB")
    large = measure_large_disk(disks.first, folder)
    sizes = (1 * GIB, 4 * GIB) if quick else (2 * GIB, 8 * GIB)
    increments = measure_increments(disks.first, folder, sizes, 20 * MIB, 5, tell)
    programs = [program(folder / "programs") for program in PROGRAMS if program is not BorgFixed]
    prunes = measure_prunes(programs, disks.first, folder, 20 if quick else POINTS, tell)
    return Report(
        command="make bench" if len(sys.argv) == 1 else f"python -m benchmarks {shlex.join(sys.argv[1:])}",
        disk_size=size,
        content=content,
        scale=scale,
        changed=sum(extent.length for extent in changes),
        transactions=compare_disks(disks.first, disks.transactions),
        rounds=rounds,
        versions={program.label: program(folder).version() for program in PROGRAMS},
        results=results,
        increments=increments,
        large=large,
        prunes=prunes,
    )


if __name__ == "__main__":
    app()
