"""``hotspare run``: what was done on this host, and how it ended."""

from collections.abc import Iterator
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from hotspare.catalog.rows import RunRow
from hotspare.cli import output
from hotspare.cli.documents import run_fields
from hotspare.cli.help import closing, noun
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.session import Session
from hotspare.documents.stages import bottleneck_words
from hotspare.errors import NoSpace, NotThere, PermissionRefused
from hotspare.units import format_bytes, format_duration

app = noun("run", "See what was done on this host, and how it ended.")


@app.command(
    name="list",
    help_epilogue=closing(
        ["hotspare run list", "hotspare run list --policy nightly", "hotspare run list --limit 5 -o json"],
        PermissionRefused,
        NoSpace,
    ),
)
def list_runs(
    *,
    limit: Annotated[PositiveInt, Parameter(name=("--limit", "-n"))] = 20,
    policy: str | None = None,
    options: Options = DEFAULTS,
) -> None:
    """List the newest backups, restores and verifications that were started on this host.

    An outcome is "ok", "failed", "interrupted", "running", "lost" (the process went away without a word),
    "cancelled" or "missed" (it was due while no server ran).

    Args:
        limit: How many.
        policy: Only those of this policy.
        options: See below.
    """
    with Session(options) as session:
        runs = session.catalog().runs(limit, policy=policy)
        if session.as_json:
            output.print_document(output.document("runs", runs=[run_fields(run) for run in runs]))
            return
        header = (
            "RUN",
            "KIND",
            "MACHINE",
            "POLICY",
            "STARTED",
            "TOOK",
            "OUTCOME",
            "READ",
            "STORED",
            "DETAIL",
        )
        output.print_table(header, [_cells(run) for run in runs], right=("RUN", "TOOK", "READ", "STORED"))


@app.command(
    help_epilogue=closing(
        ["hotspare run show 4711", "hotspare run show 4711 -o json"], NotThere, PermissionRefused
    )
)
def show(run: int, /, *, options: Options = DEFAULTS) -> None:
    """Show one run: how it ended, what it moved, and which stage of a backup's transfer held it up.

    Args:
        run: Its number, of "run list".
        options: See below.
    """
    with Session(options) as session:
        found = session.catalog().run(run)
        if found is None:
            raise NotThere(
                f"The history of this host has no run {run}",
                meaning="Nothing was done",
                hint="See 'hotspare run list'",
            )
        fields = run_fields(found)
        if session.as_json:
            output.print_document(output.document("run", run=fields))
            return
        for title, words in _facts(found, fields):
            if words:
                output.print_text(f"{title + ':':<15}{words}")


def _facts(run: RunRow, fields: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    yield "Run", f"{run.id}: {run.kind} of {run.machine}"
    yield "Platform", run.platform
    yield "Repository", run.repository
    yield "Policy", run.policy
    yield "Began", output.local_time(run.started_at)
    if run.finished_at:
        took = format_duration((run.finished_at - run.started_at).total_seconds())
        yield "Ended", f"{output.local_time(run.finished_at)}, after {took}"
    yield "Outcome", f"{run.outcome}{f': {run.error}' if run.error else ''}"
    yield "Warnings", str(run.warnings) if run.warnings else None
    yield "Restore point", run.point
    yield "Read", format_bytes(run.bytes_read)
    yield "Stored", format_bytes(run.bytes_stored)
    yield "Bottleneck", bottleneck_words(fields["stages"])
    if stages := fields["stages"]:
        parts = (f"{name} {format_duration(stages[name])}" for name in ("reading", "processing", "storing"))
        yield "Transfer", ", ".join(parts)
    if run.held_back_seconds and run.latency_factor:
        waited = format_duration(run.held_back_seconds)
        yield "Held back", f"{waited}: the guest's I/O took {run.latency_factor:.1f} times its usual time"


def _cells(run: RunRow) -> tuple[str, ...]:
    took = format_duration((run.finished_at - run.started_at).total_seconds()) if run.finished_at else "-"
    return (
        str(run.id),
        run.kind,
        run.machine,
        run.policy or "-",
        output.local_time(run.started_at),
        took,
        run.outcome,
        format_bytes(run.bytes_read),
        format_bytes(run.bytes_stored),
        run.error or run.point or "",
    )
