"""Runs."""

from typing import Any

from hotspare.catalog.rows import RunRow
from hotspare.documents.form import utc_time
from hotspare.documents.stages import Stages, stages_fields


def run_fields(run: RunRow) -> dict[str, Any]:
    """Describe a run."""
    return {
        "id": run.id,
        "kind": run.kind,
        "machine": run.machine,
        "platform": run.platform,
        "repository": run.repository,
        "started_at": utc_time(run.started_at),
        "finished_at": utc_time(run.finished_at) if run.finished_at else None,
        "outcome": run.outcome,
        "error_code": run.error_code,
        "error": run.error,
        "point": run.point,
        "bytes_read": run.bytes_read,
        "bytes_stored": run.bytes_stored,
        "held_back_seconds": run.held_back_seconds,
        "latency_factor": run.latency_factor,
        "stages": stages_fields(_stages_of(run)),
        "warnings": run.warnings,
        "policy": run.policy,
    }


def _stages_of(run: RunRow) -> Stages | None:
    if run.seconds_reading is None or run.seconds_processing is None or run.seconds_storing is None:
        return None
    return Stages(reading=run.seconds_reading, processing=run.seconds_processing, storing=run.seconds_storing)
