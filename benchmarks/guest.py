"""Measures what backups do to a guest, and how fast they are; see ``python -m benchmarks.guest --help``."""

import shlex
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from benchmarks.disks import make_disk
from benchmarks.guest_increments import measure_increments
from benchmarks.guest_latency import measure_latency
from benchmarks.guest_pull import measure_pull
from benchmarks.guest_report import GuestReport
from benchmarks.memory import room_is_there
from benchmarks.narration import narrator
from hotspare.units import GIB
from lab import ensure_host, sweep

_DOCUMENTS = Path(__file__).resolve().parent.parent / "docs"
_ROOM = 20 * GIB
_ROOM_IN_MEMORY = 8 * GIB

app = App(name="python -m benchmarks.guest", help_format="plaintext")


@app.default
def measure(
    *,
    rounds: int = 3,
    quick: Annotated[bool, Parameter(negative="")] = False,
    folder: Path = Path("/var/tmp"),
    repositories: Path = Path("/dev/shm"),
    page: Path = _DOCUMENTS / "performance-guest.md",
) -> None:
    """Measure hotspare on real virtual machines of the lab (as root), and write the page of results.

    Args:
        rounds: How often everything is repeated.
        quick: One round with a disk of 1 GiB, for a first look; writes no page.
        folder: Where disks are made, and removed again; 20 GiB of room.
        repositories: Where repositories are made: in memory, so that they do not take the guest's disk.
        page: The page to write; a chart is written beside it.
    """
    for place, needed in ((folder, _ROOM), (repositories, _ROOM_IN_MEMORY)):
        if not room_is_there(place, needed):
            sys.exit(f"{place} has less than {needed // GIB} GiB of room; name another, see --help")
    console = Console()
    tell = narrator(console)
    ensure_host()
    sweep()
    rounds, size = (1, 1 * GIB) if quick else (rounds, 2 * GIB)
    with ExitStack() as stack:
        disks, stores = (_workplace(place, stack) for place in (folder, repositories))
        disk = disks / "disk.raw"
        tell("making the disk of this host's files")
        make_disk(disk, size, size * 8 // 10)
        report = GuestReport(
            command="make bench-guest"
            if len(sys.argv) == 1
            else f"python -m benchmarks.guest {shlex.join(sys.argv[1:])}",
            disk_size=size,
            rounds=rounds,
            latency=measure_latency(disk, size, stores, rounds, tell),
            pull=measure_pull(disk, size, stores, rounds, tell),
            increments=measure_increments(stores, disks, rounds, tell),
        )
    report.show(console)
    if not quick:
        page.with_suffix(".svg").write_text(report.chart(), encoding="utf-8")
        page.write_text(report.page(page.with_suffix(".svg").name), encoding="utf-8")
        console.print(f"Written to {page}")


def _workplace(place: Path, stack: ExitStack) -> Path:
    """Make a folder that QEMU may enter, and that goes when the stack is left."""
    folder = Path(tempfile.mkdtemp(prefix="hotspare-bench-", dir=place))
    stack.callback(shutil.rmtree, folder)
    folder.chmod(0o711)
    return folder


if __name__ == "__main__":
    app()
