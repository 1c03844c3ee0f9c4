"""How the backups of a command ended, told to people and to programs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hotspare.cli import output
from hotspare.cli.documents import (
    held_back_fields,
    held_back_words,
    point_fields,
    point_mode,
    print_file_systems,
    print_left_out,
    print_point_disks,
)
from hotspare.documents.stages import Stages, bottleneck_words, stages_fields
from hotspare.errors import HotspareError, Interrupted, PartialFailure, TrackingWrong
from hotspare.events import HeldBack
from hotspare.repository.point import RestorePoint
from hotspare.units import format_bytes, format_duration

Outcome = Literal["ok", "failed", "vanished", "interrupted", "not-begun"]
"""``vanished``: it was removed from the platform after it had been listed, which is no failure."""


@dataclass(frozen=True, slots=True)
class BackupResult:
    """How one machine's backup ended: with a restore point, or an error, or not begun at all."""

    machine: str
    outcome: Outcome
    point: RestorePoint | None = None
    error: HotspareError | None = None
    bytes_read: int = 0
    bytes_stored: int = 0
    seconds: float = 0.0
    held_back: HeldBack | None = None
    """That reading was slowed down for the guest; None when it was not, or hardly."""
    stages: Stages | None = None
    """What the time of its transfer went into; None when it did not come that far."""
    warnings: int = 0
    """How many times the user was told something that did not stop it."""


_COUNTED: dict[str, Outcome] = {
    "ok": "ok",
    "failed": "failed",
    "vanished": "vanished",
    "interrupted": "interrupted",
    "not_begun": "not-begun",
}
"""By their names in JSON."""


def print_results(results: Sequence[BackupResult], *, alone: bool) -> None:
    """Print each result, and a summary; the error of a machine that is ``alone`` is left to be raised."""
    for result in results:
        _print_result(result, alone=alone)
    if alone:
        return
    output.print_text("")
    header = ("MACHINE", "OUTCOME", "MODE", "READ", "STORED", "TIME", "CONSISTENCY")
    output.print_table(header, [_cells(result) for result in results], right=("READ", "STORED", "TIME"))
    counts = Counter(result.outcome for result in results)
    ends = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    read, stored = (
        format_bytes(sum(getattr(result, name) for result in results))
        for name in ("bytes_read", "bytes_stored")
    )
    output.print_text(f"{len(results)} machines: {ends}; read {read}, stored {stored}")


def results_document(results: Sequence[BackupResult]) -> dict[str, Any]:
    """Make the JSON document of all results."""
    summary: dict[str, Any] = {
        "machines": len(results),
        **{key: sum(one.outcome == outcome for one in results) for key, outcome in _COUNTED.items()},
        "bytes_read": sum(one.bytes_read for one in results),
        "bytes_stored": sum(one.bytes_stored for one in results),
        "seconds": round(sum(one.seconds for one in results), 3),
    }
    return output.document("backup", results=[_result_fields(one) for one in results], summary=summary)


def refuse_failures(results: Sequence[BackupResult]) -> None:
    """Raise if a machine could not be backed up.

    Raises:
        Interrupted: the user stopped it.
        PartialFailure: some machines failed, and not all.
        HotspareError: all failed; the only machine's own error when there is but one.
    """
    errors = [result.error for result in results if result.error and result.outcome != "vanished"]
    if not errors:
        return
    stopped = [error for error in errors if isinstance(error, Interrupted)]
    if stopped or len(results) == 1:
        raise (stopped or errors)[0]
    failed = [result.machine for result in results if result.outcome == "failed"]
    succeeded = sum(result.outcome == "ok" for result in results)
    kind = PartialFailure if succeeded else HotspareError
    raise kind(
        f"{len(failed)} of {len(results)} machines failed: {', '.join(failed)}",
        meaning=f"{sum(result.point is not None for result in results)} new restore points were made",
        hint="The reasons are said above; mend them and back up these machines again",
    )


def doubts_about(point: RestorePoint) -> HotspareError | None:
    """Give the error of a whole restore point that shows earlier ones to be doubtful; None without doubts."""
    wrong = [disk.name for disk in point.disks if disk.tracking_wrong]
    if not wrong:
        return None
    told = [
        line for line in point.warnings if any(line.startswith(f"disk {name} was read") for name in wrong)
    ]
    return TrackingWrong(
        f"{point.machine_name}: {'; '.join(told)}",
        meaning=f"The new restore point {point.id} is whole",
        hint="Look for what wrote to the disk past its record of changes, and forget the points in doubt",
    )


def _result_fields(result: BackupResult) -> dict[str, Any]:
    return {
        "machine": result.machine,
        "outcome": result.outcome,
        "mode": point_mode(result.point) if result.point else None,
        "bytes_read": result.bytes_read,
        "bytes_stored": result.bytes_stored,
        "seconds": round(result.seconds, 3),
        "consistency": result.point.consistency if result.point else None,
        "point": point_fields(result.point) if result.point else None,
        "error": output.error_fields(result.error) if result.error else None,
        "held_back": held_back_fields(result.held_back) if result.held_back else None,
        "stages": stages_fields(result.stages),
    }


def _print_result(result: BackupResult, *, alone: bool) -> None:
    if result.outcome == "vanished":
        output.note(f"{result.machine}: was removed from the platform before it could be backed up")
    elif result.error and not alone:
        output.note(f"{result.machine}: {result.outcome}: {result.error}")
    if result.point is None:
        return
    point = result.point
    took = format_duration((point.finished_at - point.started_at).total_seconds())
    frozen = f", frozen for {format_duration(point.frozen_seconds)}" if point.frozen_seconds else ""
    output.print_text(f"{result.machine}: restore point {point.id} ({point.consistency}{frozen}), in {took}")
    print_point_disks(point)
    print_file_systems(point)
    print_left_out(point)
    if bottleneck := bottleneck_words(stages_fields(result.stages)):
        output.print_text(f"  bottleneck: {bottleneck}")
    if result.held_back:
        output.print_text(f"  {held_back_words(result.held_back)}")


def _cells(result: BackupResult) -> tuple[str, ...]:
    return (
        result.machine,
        result.outcome,
        point_mode(result.point) if result.point else "-",
        format_bytes(result.bytes_read),
        format_bytes(result.bytes_stored),
        format_duration(result.seconds),
        result.point.consistency if result.point else "-",
    )
