"""What reports are made of, added up by the catalog."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hotspare.catalog.catalog import Catalog
from hotspare.catalog.rows import Outcome, PointRow, RunRow

SINCE = datetime(2026, 11, 1, tzinfo=UTC)
UNTIL = datetime(2026, 11, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(tmp_path, print)
    yield catalog
    catalog.close()


def add(catalog: Catalog, at: datetime, outcome: Outcome = "ok", **given: object) -> None:
    fields: dict[str, object] = {
        "id": 0,
        "kind": "backup",
        "machine": "web",
        "platform": "p:",
        "repository": "file:///r",
        "started_at": at,
        "finished_at": at + HOUR,
        "outcome": outcome,
        "error_code": None,
        "error": None,
        "point": None,
        "bytes_read": 10,
        "bytes_stored": 1,
        "held_back_seconds": None,
        "latency_factor": None,
        "policy": "nightly",
    }
    catalog.add_run(RunRow(**(fields | given)))  # type: ignore[arg-type]


def point(number: str, at: datetime, **given: object) -> PointRow:
    fields: dict[str, object] = {
        "repository": "file:///r",
        "id": number,
        "machine_id": "id-web",
        "machine_name": "web",
        "platform": "p:",
        "finished_at": at,
        "consistency": "crash",
    }
    return PointRow(**(fields | given))  # type: ignore[arg-type]


def test_runs_of_the_period_are_added_up_by_how_they_ended(catalog: Catalog) -> None:
    add(catalog, SINCE - HOUR)
    add(catalog, SINCE)
    add(catalog, SINCE + HOUR, warnings=3)
    add(catalog, SINCE + 2 * HOUR, warnings=1)
    add(catalog, SINCE + 3 * HOUR, "failed", bytes_read=5)
    add(catalog, SINCE + 4 * HOUR, "ok", kind="restore")
    add(catalog, UNTIL)
    lost = catalog.begin_run(kind="backup", machine="db", platform="p:", repository="file:///r")
    catalog._connection.execute(
        "UPDATE runs SET started_at = ?, process = 'boot/1/1' WHERE id = ?",
        (SINCE.isoformat(timespec="microseconds"), lost),
    )
    found = catalog.report_rows(SINCE, UNTIL, timedelta())
    assert sorted(
        (one.machine, one.outcome, one.warned, one.count, one.bytes_read) for one in found.runs
    ) == [
        ("db", "lost", False, 1, 0),
        ("web", "failed", False, 1, 5),
        ("web", "ok", False, 1, 10),
        ("web", "ok", True, 2, 20),
    ]
    (known,) = found.known
    assert (known.policy, known.since) == ("nightly", (SINCE - HOUR).timestamp())


def test_successes_reach_back_as_far_as_asked(catalog: Catalog) -> None:
    for hours in (-30, -5, 1, 2):
        add(catalog, SINCE + hours * HOUR)
    add(catalog, SINCE + 3 * HOUR, "failed")
    add(catalog, UNTIL - HOUR / 2)  # ends too late
    ((key, ends),) = catalog.report_rows(SINCE, UNTIL, timedelta(hours=26)).successes.items()
    assert key == ("p:", "web", "file:///r")
    assert [(at - SINCE.timestamp()) / 3600 for at in ends] == [-4, 2, 3]


def test_points_and_trials_are_those_that_are_there(catalog: Catalog) -> None:
    catalog.add_point(point("1", SINCE, size=100, bytes_stored=50, tags=("old",)))
    catalog.add_point(point("2", SINCE + HOUR, size=200, bytes_stored=7, tags=("gold", "prod")))
    catalog.add_point(point("3", SINCE - HOUR, boot_at=SINCE, boot_passed=False, boot_life="kernel"))
    catalog.add_point(point("4", UNTIL, size=900, bytes_stored=900))
    found = catalog.report_rows(SINCE, UNTIL, timedelta())
    (totals,) = found.points
    assert (totals.count, totals.bytes_stored, totals.unmeasured) == (3, 57, 1)
    assert (totals.newest_size, totals.tags, totals.newest_at) == (200, ("gold", "prod"), SINCE + HOUR)
    (trial,) = found.trials
    assert (trial.machine_id, trial.at, trial.passed) == ("id-web", SINCE, False)
