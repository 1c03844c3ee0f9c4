"""Measures instant recovery; see ``python -m benchmarks.instant --help``."""

import shlex
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from benchmarks.instant_reads import measure_reads
from benchmarks.instant_report import InstantReport
from benchmarks.instant_starts import measure_starts
from benchmarks.memory import room_is_there
from benchmarks.narration import narrator
from hotspare.units import GIB, MIB
from lab import ensure_host, sweep
from lab.image import guest_image

_DOCUMENTS = Path(__file__).resolve().parent.parent / "docs"
_ROOM = 8 * GIB

app = App(name="python -m benchmarks.instant", help_format="plaintext")


@app.default
def measure(
    *,
    rounds: int = 5,
    quick: Annotated[bool, Parameter(negative="")] = False,
    folder: Path = Path("/var/tmp"),
    page: Path = _DOCUMENTS / "performance-instant.md",
) -> None:
    """Measure how soon a recovered machine answers, and random reads of a served disk (as root).

    Args:
        rounds: How often everything is repeated.
        quick: One round with a small disk, for a first look; writes no page.
        folder: Where disks and repositories are made, and removed again; 8 GiB of room.
        page: The page to write.
    """
    if not room_is_there(folder, _ROOM):
        sys.exit(f"{folder} has less than {_ROOM // GIB} GiB of room; name another, see --help")
    console = Console()
    tell = narrator(console)
    ensure_host()
    sweep()
    guest_image()
    rounds, size = (1, 256 * MIB) if quick else (rounds, 1 * GIB)
    with ExitStack() as stack:
        place = Path(tempfile.mkdtemp(prefix="hotspare-bench-", dir=folder))
        stack.callback(shutil.rmtree, place)
        place.chmod(0o711)
        report = InstantReport(
            command=f"python -m benchmarks.instant {shlex.join(sys.argv[1:])}".strip(),
            rounds=rounds,
            starts=measure_starts(place / "starts", rounds, tell),
            disk_size=size,
            reads=measure_reads(place / "reads", size, rounds, tell),
        )
    report.show(console)
    if not quick:
        page.write_text(report.page(), encoding="utf-8")
        console.print(f"Written to {page}")


if __name__ == "__main__":
    app()
