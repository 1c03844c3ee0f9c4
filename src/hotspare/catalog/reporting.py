"""What a report on a period is made of: runs and restore points added up, and when backups succeeded."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from hotspare.catalog.decoding import outcome_of
from hotspare.catalog.rows import Outcome
from hotspare.sqlite import stamp

_RUN_MAX = timedelta(days=7)
"""No backup takes longer: so its start can be looked for by an index when its end is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTotals:
    """The backups of one machine that began within the period and ended in the same way."""

    platform: str
    machine: str
    """What they were asked for by: its name or its id."""
    repository: str
    policy: str | None
    outcome: Outcome
    warned: bool
    """Whether the user was told something that did not stop them."""
    count: int
    bytes_read: int
    bytes_stored: int


class Known(NamedTuple):
    """Since when a policy backs a machine up, as far as the history goes."""

    platform: str
    machine: str
    policy: str
    since: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointTotals:
    """The restore points of a machine in a repository that are there, and were finished before the end."""

    platform: str
    machine_id: str
    machine_name: str
    repository: str
    count: int
    bytes_stored: int
    """What making them took, of those where it is known."""
    unmeasured: int
    """Points of which it is not known."""
    newest_at: datetime
    newest_size: int | None
    """Bytes of the disks in the newest."""
    tags: tuple[str, ...]
    """The machine's, in the newest."""


class Trial(NamedTuple):
    """The last trial of any of a machine's restore points before the period's end."""

    platform: str
    machine_id: str
    at: datetime
    passed: bool


@dataclass(frozen=True, slots=True)
class ReportRows:
    """All that the catalog says of a period."""

    runs: Sequence[RunTotals]
    successes: Mapping[tuple[str, str, str], Sequence[float]]
    """When backups that made a restore point ended, in seconds since the epoch and in order; by platform, by
    what the machine was asked for by, and repository. Those before the period too, as far as was asked."""
    known: Sequence[Known]
    points: Sequence[PointTotals]
    trials: Sequence[Trial]


def report_rows(
    connection: sqlite3.Connection, since: datetime, until: datetime, looked_back: timedelta
) -> ReportRows:
    """Add up what there is of a period.

    Args:
        connection: to the catalog.
        since: its begin.
        until: its end, which is not in it.
        looked_back: how long before it a success still matters.
    """
    span = (stamp(since), stamp(until))
    earliest = since - looked_back
    return ReportRows(
        runs=[_totals(row) for row in connection.execute(_RUNS, span)],
        successes=_successes(connection, (stamp(earliest - _RUN_MAX), span[1], stamp(earliest), span[1])),
        known=[
            Known(platform, machine, policy, datetime.fromisoformat(started_at).timestamp())
            for platform, machine, policy, started_at in connection.execute(_KNOWN)
        ],
        points=[_points(row) for row in connection.execute(_POINTS, (span[1],))],
        trials=[
            Trial(platform, machine, datetime.fromisoformat(at), bool(passed))
            for platform, machine, at, passed in connection.execute(_TRIALS, (span[1],))
        ],
    )


_RUNS = """
    SELECT platform, machine, repository, policy, outcome, warnings > 0 AS warned,
        CASE WHEN outcome IS NULL THEN process END AS process,
        count(*) AS count, sum(bytes_read) AS bytes_read, sum(bytes_stored) AS bytes_stored
    FROM runs WHERE kind = 'backup' AND started_at >= ? AND started_at < ?
    GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
_SUCCESSES = """
    SELECT platform, machine, repository, finished_at FROM runs
    WHERE kind = 'backup' AND started_at >= ? AND started_at < ? AND outcome = 'ok'
    AND finished_at >= ? AND finished_at < ?
"""
_KNOWN = """
    SELECT platform, machine, policy, started_at FROM runs WHERE id IN (
        SELECT min(id) FROM runs WHERE policy IS NOT NULL GROUP BY policy, platform, machine
    ) AND kind = 'backup'
"""
# The other columns of a row with max() are those of the row that has the maximum, SQLite promises.
_POINTS = """
    SELECT platform, machine_id, machine_name, repository, size, tags, max(finished_at) AS finished_at,
        count(*) AS count, sum(bytes_stored) AS bytes_stored, sum(bytes_stored IS NULL) AS unmeasured
    FROM points WHERE finished_at < ? GROUP BY platform, machine_id, repository
"""
_TRIALS = """
    SELECT platform, machine_id, max(boot_at), boot_passed FROM points
    WHERE boot_at IS NOT NULL AND boot_at < ? GROUP BY platform, machine_id
"""


def _totals(row: sqlite3.Row) -> RunTotals:
    return RunTotals(
        platform=row["platform"],
        machine=row["machine"],
        repository=row["repository"],
        policy=row["policy"],
        outcome=outcome_of(row),
        warned=bool(row["warned"]),
        count=row["count"],
        bytes_read=row["bytes_read"],
        bytes_stored=row["bytes_stored"],
    )


def _successes(
    connection: sqlite3.Connection, span: tuple[str, ...]
) -> dict[tuple[str, str, str], Sequence[float]]:
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for platform, machine, repository, finished_at in connection.execute(_SUCCESSES, span):
        found[platform, machine, repository].append(datetime.fromisoformat(finished_at).timestamp())
    return {key: sorted(ends) for key, ends in found.items()}


def _points(row: sqlite3.Row) -> PointTotals:
    return PointTotals(
        platform=row["platform"],
        machine_id=row["machine_id"],
        machine_name=row["machine_name"],
        repository=row["repository"],
        count=row["count"],
        bytes_stored=row["bytes_stored"] or 0,
        unmeasured=row["unmeasured"],
        newest_at=datetime.fromisoformat(row["finished_at"]),
        newest_size=row["size"],
        tags=tuple(json.loads(row["tags"])) if row["tags"] else (),
    )
