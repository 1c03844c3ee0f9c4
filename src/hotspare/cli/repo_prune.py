"""``hotspare repo prune``: give back the space of what no restore point needs."""

from contextlib import nullcontext
from datetime import datetime
from typing import Annotated

import msgspec
from cyclopts import Parameter, validators

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.outside_approval import outside_approval
from hotspare.cli.progress import shown_progress
from hotspare.cli.session import Session
from hotspare.repository.gc.collect import prune
from hotspare.repository.gc.condemn import DEFAULT_KEEP_WASTE
from hotspare.repository.gc.report import PruneReport
from hotspare.units import format_bytes

Percent = Annotated[float, Parameter(validator=validators.Number(gte=0, lte=100))]


def prune_repository(
    *,
    dry_run: Switch = False,
    keep_waste: Percent = DEFAULT_KEEP_WASTE,
    options: Options = DEFAULTS,
) -> None:
    """Give back the space of what no restore point needs.

    Backups, restores and other prunes may go on meanwhile. Backups that run are waited for; one that has
    shown no life for 30 minutes is given up, and at once when its process was on this host and is gone.

    Args:
        dry_run: Only say what would be freed.
        keep_waste: Percent of the stored bytes that may stay waste, where packs are needed in part.
        options: See below.
    """
    with (
        Session(options) as session,
        cancelled_by_signals() as cancellation,
        shown_progress(options.progress_form, cancellation) as listener,
    ):
        repository = session.repository()
        url = repository.backend.url
        with nullcontext() if dry_run else outside_approval(session, "repo prune", url, ()):
            report = prune(repository, listener, cancellation, keep_waste=keep_waste, dry_run=dry_run)
        if session.as_json:
            fields = msgspec.to_builtins(report, builtin_types=(datetime,))
            fields["locked_until"] = output.utc_time(report.locked_until) if report.locked_until else None
            output.print_document(output.document("repository-pruned", **fields))
        else:
            output.print_text(_in_words(report))


def _in_words(report: PruneReport) -> str:
    deleted = f"{report.packs_deleted} of {report.packs} packs"
    copied = f"{report.packs_repacked} of them needed in part: {format_bytes(report.bytes_copied)} copied"
    verb = "Would free" if report.dry_run else "Freed"
    return (
        f"{verb} {format_bytes(report.bytes_freed)}: {deleted} deleted, {copied}."
        f" Waste that stays: {format_bytes(report.bytes_wasted)}." + _locks_in_words(report)
    )


def _locks_in_words(report: PruneReport) -> str:
    said = ""
    if report.locks_renewed:
        verb = "would be renewed" if report.dry_run else "renewed"
        said += f" Locks {verb}: {report.locks_renewed}."
    if report.locked_until:
        until = output.local_time(report.locked_until)
        said += f" Deleted but locked: {format_bytes(report.bytes_locked)}, until {until} at the latest."
    return said
