"""Measures what replication does to a guest; see ``python -m benchmarks.replication --help``."""

import shlex
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from benchmarks.narration import narrator
from benchmarks.replication_flushes import Felt, feel
from benchmarks.replication_hosts import Protected, plain_mirror, protected_machine
from benchmarks.replication_report import write_page
from lab import ensure_host, sweep
from lab.image import guest_image

_DOCUMENTS = Path(__file__).resolve().parent.parent / "docs"

WITHOUT = "without replication"
SYNC = "synchronous, with TLS"
PLAIN = "synchronous, without TLS"
DURABLE = "synchronous, with TLS, each write on the standby's disk"

app = App(name="python -m benchmarks.replication", help_format="plaintext")


@app.default
def measure(
    *,
    rounds: int = 4,
    seconds: float = 8,
    quick: Annotated[bool, Parameter(negative="")] = False,
    page: Path = _DOCUMENTS / "performance-replication.md",
) -> None:
    """Measure synchronous replication between two hosts of the lab (as root), and write the page of results.

    In each round every manner has its turn, one right after the other, so that what else the host does meets
    all of them; what counts are the ratios within a round.

    Args:
        rounds: How often.
        seconds: How long the guest writes and flushes in each manner of a round.
        quick: One round, for a first look; writes no page.
        page: The page to write.
    """
    console = Console()
    tell = narrator(console)
    ensure_host()
    sweep()
    guest_image()
    felt: dict[str, list[Felt]] = {name: [] for name in (WITHOUT, SYNC, PLAIN, DURABLE)}
    with protected_machine("bench-replica") as machine:
        for number in range(1 if quick else rounds):
            order = list(felt)[number % len(felt) :] + list(felt)[: number % len(felt)]
            for name in order:
                with _in_manner(machine, name):
                    one = feel(machine.guest, seconds)
                    felt[name].append(one)
                    tell(f"round {number + 1}, {name}: {_words([one])}")
        paused = machine.paused
    _show(felt, console.print)
    if not quick:
        command = "python -m benchmarks.replication"
        if len(sys.argv) > 1:
            command += f" {shlex.join(sys.argv[1:])}"
        write_page(page, command, felt, WITHOUT, paused)
        console.print(f"Written to {page}")


@contextmanager
def _in_manner(machine: Protected, name: str) -> Iterator[None]:
    match name:
        case "without replication":
            yield
        case "synchronous, without TLS":
            with plain_mirror(machine):
                yield
        case _:
            with machine.mirrored(durable=name == DURABLE):
                yield


def _show(felt: dict[str, list[Felt]], say: Callable[[str], None]) -> None:
    for name, all_rounds in felt.items():
        say(f"{name}: {_words(all_rounds)}")


def _words(all_rounds: Sequence[Felt]) -> str:
    flush = statistics.median(one.median for one in all_rounds) * 1000
    p99 = statistics.median(one.p99 for one in all_rounds) * 1000
    written = statistics.median(one.throughput for one in all_rounds) / (1 << 20)
    return f"flush {flush:.2f} ms, p99 {p99:.1f} ms, {written:.0f} MiB/s"


if __name__ == "__main__":
    app()
