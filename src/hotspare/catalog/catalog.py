"""The catalog's database: opened safely, and asked only what commands need.

A damaged file is set aside and a fresh one begun, for losing a cache must not keep anybody from a
restore. A file of a newer version is left alone and refused.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Self

from hotspare.catalog.decoding import outcome_of, point_of, run_of
from hotspare.catalog.opening import connect, explained, is_damage, make_folder, set_aside
from hotspare.catalog.process import own_process
from hotspare.catalog.reporting import ReportRows, report_rows
from hotspare.catalog.rows import DayOutcome, Ended, PointRow, RunResult, RunRow
from hotspare.policy.load import LoadSample
from hotspare.policy.low_peak import WEEKS
from hotspare.sqlite import stamp, transaction

FILE_NAME = "catalog.sqlite"
_RESULT = ", ".join(f"{field.name} = :{field.name}" for field in fields(RunResult))


class Catalog:
    """One open catalog; belongs to the thread that opened it."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path

    @classmethod
    def open(cls, folder: Path, warn: Callable[[str], None]) -> Self:
        """Open the catalog in the state folder, and make it when it is not there.

        Args:
            folder: the state folder; made (for its owner only) when it is not there.
            warn: told when a damaged catalog was set aside.

        Raises:
            PermissionRefused: the folder or the file may not be written.
            NoSpace: its file system is full.
            HotspareError: a newer version of Hotspare made the catalog, or it cannot be used at all.
        """
        path = folder / FILE_NAME
        make_folder(folder)
        with explained(path):
            try:
                return cls(connect(path), path)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                aside = set_aside(path)
                warn(
                    f"The catalog was damaged and is now {aside}. A fresh one was begun: the history of runs"
                    " starts anew, and restore points are fetched again from the repository by"
                    ' "hotspare point list".'
                )
                return cls(connect(path), path)

    def close(self) -> None:
        """Let go of the database; a second call does nothing."""
        self._connection.close()

    def version(self) -> int:
        """Give a number that is another one once somebody else has changed the catalog."""
        with explained(self.path):
            version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    def replace_points(self, repository: str, points: Iterable[PointRow]) -> None:
        """Take ``points`` for all there is in the repository of that URL."""
        with self._transaction():
            self._connection.execute("DELETE FROM points WHERE repository = ?", (repository,))
            for point in points:
                self._insert_point(point)

    def add_point(self, point: PointRow) -> None:
        """Note a restore point that was just made."""
        with self._transaction():
            self._insert_point(point)

    def remove_point(self, repository: str, point_id: str) -> None:
        """Note that a restore point was forgotten."""
        with self._transaction():
            self._connection.execute(
                "DELETE FROM points WHERE repository = ? AND id = ?", (repository, point_id)
            )

    def last_points(self, platform: str, repository: str | None) -> list[PointRow]:
        """Give the newest point of each machine of a platform, by machine name.

        Args:
            platform: URI of the platform.
            repository: URL of the only repository to look at; None for all that this host has used.
        """
        # The other columns of a row with max() are those of the row that has the maximum, SQLite promises.
        query = """
            SELECT *, max(finished_at) FROM points
            WHERE platform = ? AND (? IS NULL OR repository = ?)
            GROUP BY machine_id ORDER BY machine_name
        """
        with explained(self.path):
            rows = self._connection.execute(query, (platform, repository, repository)).fetchall()
        return [point_of(row) for row in rows]

    def last_tests(self, platform: str, repository: str | None) -> list[PointRow]:
        """Give of each machine of a platform the point whose trial is the last; as ``last_points`` else."""
        query = """
            SELECT *, max(boot_at) FROM points
            WHERE boot_at IS NOT NULL AND platform = ? AND (? IS NULL OR repository = ?)
            GROUP BY machine_id ORDER BY machine_name
        """
        with explained(self.path):
            rows = self._connection.execute(query, (platform, repository, repository)).fetchall()
        return [point_of(row) for row in rows]

    def begin_run(
        self, *, kind: str, machine: str, platform: str, repository: str, policy: str | None = None
    ) -> int:
        """Note that a run of this process begins; gives its number."""
        with self._transaction():
            cursor = self._connection.execute(
                "INSERT INTO runs (kind, machine, platform, repository, process, started_at, policy)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (kind, machine, platform, repository, own_process(), stamp(datetime.now(UTC)), policy),
            )
        number = cursor.lastrowid
        assert number is not None  # noqa: S101 - an INSERT that did not raise has a row
        return number

    def finish_run(self, number: int, result: RunResult) -> None:
        """Note how a run ended."""
        with self._transaction():
            self._connection.execute(
                f"UPDATE runs SET finished_at = :finished_at, {_RESULT} WHERE id = :id",  # noqa: S608
                asdict(result) | {"finished_at": stamp(datetime.now(UTC)), "id": number},
            )

    def add_run(self, run: RunRow) -> None:
        """Note a run that is over: it went on elsewhere, or never began. It gets a number of its own."""
        ended = run.finished_at or run.started_at
        with self._transaction():
            self._connection.execute(
                "INSERT INTO runs (kind, machine, platform, repository, process, started_at, finished_at,"
                " policy, outcome, error_code, error, point, bytes_read, bytes_stored, warnings,"
                " seconds_reading, seconds_processing, seconds_storing) VALUES (:kind, :machine, :platform,"
                " :repository, '', :started_at, :finished_at, :policy, :outcome, :error_code, :error, :point,"
                " :bytes_read, :bytes_stored, :warnings, :seconds_reading, :seconds_processing,"
                " :seconds_storing)",
                asdict(run) | {"started_at": stamp(run.started_at), "finished_at": stamp(ended)},
            )

    def runs(
        self,
        limit: int,
        *,
        policy: str | None = None,
        machine: str | None = None,
        platform: str | None = None,
        kind: str | None = None,
        outcome: Ended | None = None,
        before: int | None = None,
    ) -> list[RunRow]:
        """Give the newest runs, the newest first.

        Args:
            limit: how many.
            policy: only those of this policy.
            machine: only those of machines of this name.
            platform: only those of machines there; with ``machine``, an index is used.
            kind: only those of this kind.
            outcome: only those that ended so.
            before: only those with a lower number.
        """
        chosen = {
            "policy = ?": policy,
            "machine = ?": machine,
            "platform = ?": platform,
            "kind = ?": kind,
            "outcome = ?": outcome,
            "id < ?": before,
        }
        given = {condition: value for condition, value in chosen.items() if value is not None}
        wanted = " AND ".join(("1", *given))
        query = f"SELECT * FROM runs WHERE {wanted} ORDER BY id DESC LIMIT ?"  # noqa: S608 - from the line above
        with explained(self.path):
            rows = self._connection.execute(query, (*given.values(), limit)).fetchall()
        return [run_of(row) for row in rows]

    def run(self, number: int) -> RunRow | None:
        """Give the run of a number; None when there is none."""
        with explained(self.path):
            row = self._connection.execute("SELECT * FROM runs WHERE id = ?", (number,)).fetchone()
        return run_of(row) if row else None

    def known_points(self) -> set[str]:
        """Give the ids of the restore points that runs made or read."""
        with explained(self.path):
            rows = self._connection.execute("SELECT DISTINCT point FROM runs WHERE point IS NOT NULL")
            return {row["point"] for row in rows}

    def last_ended(self, repository: str, kind: str) -> RunRow | None:
        """Give the newest run of a kind upon a repository that came to an end; None without one."""
        query = """
            SELECT * FROM runs WHERE repository = ? AND kind = ? AND outcome IN ('ok', 'failed')
            ORDER BY id DESC LIMIT 1
        """
        with explained(self.path):
            row = self._connection.execute(query, (repository, kind)).fetchone()
        return run_of(row) if row else None

    def good_backups(self, platform: str, machine: str, repository: str, limit: int) -> list[RunRow]:
        """Give the newest backups of a machine into a repository that succeeded, the newest first."""
        query = """
            SELECT * FROM runs WHERE platform = ? AND machine = ? AND repository = ? AND kind = 'backup'
            AND outcome = 'ok' ORDER BY id DESC LIMIT ?
        """
        with explained(self.path):
            rows = self._connection.execute(query, (platform, machine, repository, limit)).fetchall()
        return [run_of(row) for row in rows]

    def last_run_of(self, policy: str, platform: str, machine: str) -> RunRow | None:
        """Give the newest run of a policy for a machine, by its name; None without one."""
        # A run that was killed or stopped says nothing about the machine: it is due as before. Which of those
        # without an end were killed, SQLite cannot tell; so as many are read as it takes.
        query = """
            SELECT * FROM runs WHERE platform = ? AND machine = ? AND policy = ?
            AND (outcome IS NULL OR outcome NOT IN ('interrupted', 'missed')) ORDER BY id DESC
        """
        with explained(self.path):
            runs = map(run_of, self._connection.execute(query, (platform, machine, policy)))
            return next((run for run in runs if run.outcome != "lost"), None)

    def running_backups(self, platform: str) -> list[RunRow]:
        """Give the backups of machines of a platform that go on now, in whatever process of this host."""
        query = "SELECT * FROM runs WHERE platform = ? AND kind = 'backup' AND outcome IS NULL"
        with explained(self.path):
            rows = self._connection.execute(query, (platform,)).fetchall()
        return [run for run in map(run_of, rows) if run.outcome == "running"]

    def add_load(self, platform: str, sample: LoadSample) -> None:
        """Keep a sample of a host's load, and drop what is too old to be of use."""
        with self._transaction():
            self._connection.execute(
                "INSERT OR REPLACE INTO load_samples VALUES (:platform, :at, :cpu, :disk, :network, :latency,"
                " :backing_up)",
                asdict(sample) | {"platform": platform, "at": stamp(sample.at)},
            )
            self._connection.execute(
                "DELETE FROM load_samples WHERE platform = ? AND at < ?",
                (platform, stamp(sample.at - timedelta(weeks=WEEKS))),
            )

    def load(self, platform: str) -> list[LoadSample]:
        """Give the samples of a host's load, the oldest first."""
        with explained(self.path):
            rows = self._connection.execute(
                "SELECT * FROM load_samples WHERE platform = ? ORDER BY at", (platform,)
            ).fetchall()
        return [
            LoadSample(
                at=datetime.fromisoformat(row["at"]),
                cpu=row["cpu"],
                disk=row["disk"],
                network=row["network"],
                latency=row["latency"],
                backing_up=bool(row["backing_up"]),
            )
            for row in rows
        ]

    def day_outcomes(self, platform: str, names: Iterable[str], since: datetime) -> list[DayOutcome]:
        """Give how the backups of a machine ended, day by day in UTC, since a time; of each kind the count.

        Args:
            platform: URI.
            names: what the machine's backups were asked for by: its name and its id.
            since: runs that began before are left out.
        """
        given = tuple(names)
        marks = ", ".join("?" * len(given))
        query = f"""
            SELECT substr(started_at, 1, 10) AS day, outcome, process, count(*) AS count FROM runs
            WHERE kind = 'backup' AND platform = ? AND machine IN ({marks}) AND started_at >= ?
            GROUP BY day, outcome, CASE WHEN outcome IS NULL THEN process END
        """  # noqa: S608 - question marks alone
        with explained(self.path):
            rows = self._connection.execute(query, (platform, *given, stamp(since))).fetchall()
        return [DayOutcome(date.fromisoformat(row["day"]), outcome_of(row), row["count"]) for row in rows]

    def stored_since(self, since: datetime) -> dict[str, int]:
        """Give how many bytes backups have stored in each repository since a time, by its URL."""
        query = """
            SELECT repository, sum(bytes_stored) AS stored FROM runs
            WHERE kind = 'backup' AND started_at >= ? GROUP BY repository
        """
        with explained(self.path):
            rows = self._connection.execute(query, (stamp(since),)).fetchall()
        return {row["repository"]: row["stored"] for row in rows}

    def report_rows(self, since: datetime, until: datetime, looked_back: timedelta) -> ReportRows:
        """Add up what there is of a period; see there."""
        with explained(self.path):
            return report_rows(self._connection, since, until, looked_back)

    def running(self) -> list[RunRow]:
        """Give all runs that go on now, in whatever process of this host, the newest first."""
        with explained(self.path):
            rows = self._connection.execute(
                "SELECT * FROM runs WHERE outcome IS NULL ORDER BY id DESC"
            ).fetchall()
        return [run for run in map(run_of, rows) if run.outcome == "running"]

    def last_trial(self) -> PointRow | None:
        """Give the point that was tried last, of all machines; None when none ever was."""
        query = "SELECT * FROM points WHERE boot_at IS NOT NULL ORDER BY boot_at DESC LIMIT 1"
        with explained(self.path):
            row = self._connection.execute(query).fetchone()
        return point_of(row) if row else None

    def last_backups(self, platform: str) -> dict[str, RunRow]:
        """Give the newest run of kind ``backup`` of each machine of a platform, by machine name."""
        query = """
            SELECT * FROM runs WHERE id IN (
                SELECT max(id) FROM runs WHERE kind = 'backup' AND platform = ? GROUP BY machine
            )
        """
        with explained(self.path):
            rows = self._connection.execute(query, (platform,)).fetchall()
        return {run.machine: run for run in map(run_of, rows)}

    def _insert_point(self, point: PointRow) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO points VALUES (:repository, :id, :machine_id, :machine_name, :platform,"
            " :finished_at, :consistency, :boot_at, :boot_passed, :boot_life, :size, :bytes_stored, :tags)",
            asdict(point)
            | {
                "finished_at": stamp(point.finished_at),
                "boot_at": stamp(point.boot_at) if point.boot_at else None,
                "tags": None if point.tags is None else json.dumps(point.tags),
            },
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with explained(self.path), transaction(self._connection):
            yield
