"""Telling what a check or a verification found wrong."""

from collections.abc import Sequence
from typing import Any

from hotspare.cli import output
from hotspare.errors import RepositoryDamaged
from hotspare.repository.survey import Affected, Problem
from hotspare.units import format_bytes

_RANGES_SHOWN = 5


def problem_fields(problem: Problem) -> dict[str, Any]:
    """Describe a problem for a JSON document."""
    return {
        "object": problem.object,
        "detail": problem.detail,
        "points": list(problem.points),
        "affected": [
            {
                "machine": one.machine,
                "point": one.point,
                "disk": one.disk,
                "bytes": one.bytes,
                "ranges": [{"offset": offset, "length": length} for offset, length in one.ranges],
            }
            for one in problem.affected
        ],
    }


def refuse_problems(problems: Sequence[Problem], *, as_json: bool) -> None:
    """End the command as failed when there are problems; in text, say each of them first.

    Raises:
        RepositoryDamaged: there is at least one.
    """
    if not problems:
        if not as_json:
            output.print_text("No problem was found.")
        return
    if not as_json:
        for problem in problems:
            output.print_text(f"{problem.object}: {problem.detail}")
            for one in problem.affected:
                output.print_text(f"  {one.machine}, {one.point}, disk {one.disk}: {_where(one)}")
    hurt = sorted({point for problem in problems for point in problem.points})
    raise RepositoryDamaged(
        f"{len(problems)} problems were found",
        meaning=f"These restore points cannot be restored in full: {', '.join(hurt)}"
        if hurt
        else "Every restore point can still be restored",
        hint="Restore the objects named from a copy of the repository, or run 'hotspare repo repair'",
    )


def _where(affected: Affected) -> str:
    shown = [f"{offset} to {offset + length}" for offset, length in affected.ranges[:_RANGES_SHOWN]]
    more = len(affected.ranges) - len(shown)
    rest = f" and {more} more ranges" if more else ""
    return f"{format_bytes(affected.bytes)} cannot be read: bytes {', '.join(shown)}{rest}"
