"""Printing what retention would do."""

from collections.abc import Sequence

from hotspare.cli import output
from hotspare.fleet.verdicts import Judged


def print_judged(judged: Sequence[Judged], *, forgotten: str) -> None:
    """Print the table of verdicts; ``forgotten`` is what is said of a point without a reason."""
    rows = [
        (
            one.point.id,
            one.point.machine_name,
            output.local_time(one.point.finished_at),
            "; ".join(one.reasons) or forgotten,
        )
        for one in judged
    ]
    output.print_table(("POINT", "MACHINE", "FINISHED", "KEPT BECAUSE"), rows)
