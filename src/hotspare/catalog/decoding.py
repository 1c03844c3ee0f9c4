"""From rows of the database to the plain rows that others see."""

import json
import sqlite3
from datetime import datetime

from hotspare.catalog.process import is_alive
from hotspare.catalog.rows import Outcome, PointRow, RunRow


def point_of(row: sqlite3.Row) -> PointRow:
    """Give a restore point as a row has it."""
    return PointRow(
        repository=row["repository"],
        id=row["id"],
        machine_id=row["machine_id"],
        machine_name=row["machine_name"],
        platform=row["platform"],
        finished_at=datetime.fromisoformat(row["finished_at"]),
        consistency=row["consistency"],
        boot_at=datetime.fromisoformat(row["boot_at"]) if row["boot_at"] else None,
        boot_passed=None if row["boot_passed"] is None else bool(row["boot_passed"]),
        boot_life=row["boot_life"],
        size=row["size"],
        bytes_stored=row["bytes_stored"],
        tags=None if row["tags"] is None else tuple(json.loads(row["tags"])),
    )


def outcome_of(row: sqlite3.Row) -> Outcome:
    """Tell how a run ended; one without an end goes on if its process does."""
    outcome: Outcome = row["outcome"] or ("running" if is_alive(row["process"]) else "lost")
    return outcome


def run_of(row: sqlite3.Row) -> RunRow:
    """Give a run as a row has it."""
    finished_at = row["finished_at"]
    return RunRow(
        id=row["id"],
        kind=row["kind"],
        machine=row["machine"],
        platform=row["platform"],
        repository=row["repository"],
        started_at=datetime.fromisoformat(row["started_at"]),
        finished_at=datetime.fromisoformat(finished_at) if finished_at else None,
        outcome=outcome_of(row),
        error_code=row["error_code"],
        error=row["error"],
        point=row["point"],
        bytes_read=row["bytes_read"],
        bytes_stored=row["bytes_stored"],
        held_back_seconds=row["held_back_seconds"],
        latency_factor=row["latency_factor"],
        policy=row["policy"],
        warnings=row["warnings"],
        seconds_reading=row["seconds_reading"],
        seconds_processing=row["seconds_processing"],
        seconds_storing=row["seconds_storing"],
    )
