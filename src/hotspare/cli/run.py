"""``hotspare run``: what was done on this host, and how it ended."""

from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from hotspare.catalog.rows import RunRow
from hotspare.cli import output
from hotspare.cli.documents import run_fields
from hotspare.cli.help import closing, noun
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.session import Session
from hotspare.errors import NoSpace, PermissionRefused
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
