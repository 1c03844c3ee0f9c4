"""What our SQLite files have in common."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone

import pytest

from hotspare.sqlite import migrate, stamp, transaction, version_of

STEPS = ("CREATE TABLE first (a); CREATE TABLE second (a);", "ALTER TABLE first ADD COLUMN b")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        yield opened


def test_steps_are_taken_once_and_counted(connection: sqlite3.Connection) -> None:
    migrate(connection, STEPS[:1])
    assert version_of(connection) == 1
    for _ in range(2):
        migrate(connection, STEPS)
        assert version_of(connection) == 2
    connection.execute("INSERT INTO first (a, b) VALUES (1, 2)")


def test_a_step_that_fails_leaves_the_file_as_it_was(connection: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.OperationalError), transaction(connection):
        migrate(connection, (*STEPS, "CREATE TABLE second (a)"))
    assert version_of(connection) == 0
    assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)


def test_a_newer_file_is_left_alone(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA user_version = 7")
    migrate(connection, STEPS)
    assert version_of(connection) == 7


def test_times_compare_as_text_wherever_they_come_from() -> None:
    noon = datetime(2026, 11, 27, 12, tzinfo=UTC)
    elsewhere = noon.astimezone(timezone(timedelta(hours=5)))
    assert stamp(elsewhere) == stamp(noon)
    assert stamp(noon) < stamp(elsewhere + timedelta(microseconds=1)) < stamp(noon + timedelta(seconds=1))
