"""``hotspare audit``: what was done on the server."""

from contextlib import closing as closed
from typing import Annotated

import msgspec
from cyclopts import Parameter
from cyclopts.types import PositiveInt

from hotspare.access.access import Access
from hotspare.cli import output
from hotspare.cli.help import closing, noun
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.session import Session
from hotspare.errors import AuditBroken, PermissionRefused, UsageError

app = noun("audit", "See what was done on the server, and prove that nobody has changed that record.")


@app.command(
    name="list",
    help_epilogue=closing(["hotspare audit list", "hotspare audit list -n 100 -o json"], PermissionRefused),
)
def list_entries(
    *,
    limit: Annotated[PositiveInt, Parameter(name=("--limit", "-n"))] = 20,
    options: Options = DEFAULTS,
) -> None:
    """List what was done on the server of this host, and what was refused, the newest first.

    Args:
        limit: How many.
        options: See below.
    """
    with Session(options) as session, closed(Access(session.settings.state_folder)) as access:
        entries = access.audit.newest(limit)
        if session.as_json:
            fields = [msgspec.to_builtins(entry) for entry in entries]
            output.print_document(output.document("audit", entries=fields))
            return
        rows = [
            (str(one.number), one.at, one.actor or "-", one.action, one.target, one.outcome, one.address)
            for one in entries
        ]
        header = ("ENTRY", "AT", "WHO", "ACTION", "TARGET", "OUTCOME", "FROM")
        output.print_table(header, rows, right=("ENTRY",))


@app.command(
    help_epilogue=closing(
        ["hotspare audit verify", "hotspare audit verify --known 17:3f…"], AuditBroken, PermissionRefused
    )
)
def verify(*, known: str | None = None, options: Options = DEFAULTS) -> None:
    """Prove that no entry was changed, removed or put in, as far as the chain of hashes can.

    Who can write the file can write the whole chain anew: note what this prints somewhere else, and give it
    with --known the next time. Each entry is in the server's log as well.

    Args:
        known: NUMBER:HASH of an entry, as they were printed before.
        options: See below.
    """
    with Session(options) as session, closed(Access(session.settings.state_folder)) as access:
        number, last = access.audit.verify(_parse(known) if known else None)
        if session.as_json:
            output.print_document(output.document("audit-verified", number=number, hash=last))
        else:
            output.print_text(f"All {number} entries are as they were written. Note this: {number}:{last}")


def _parse(known: str) -> tuple[int, str]:
    number, _, last = known.partition(":")
    if not number.isdigit() or not last:
        raise UsageError(f"'{known}' is not of the form NUMBER:HASH", meaning="Nothing was looked at")
    return int(number), last
