"""What all of our SQLite files have in common: transactions, versions, times, and kinds of errors."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from hotspare.errors import HotspareError, NoSpace, PermissionRefused

_NOT_WRITABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, and no other writer meanwhile. Raises ``sqlite3.Error``."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        # Where the file system is full, SQLite has rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def version_of(connection: sqlite3.Connection) -> int:
    """Tell how many steps a file has taken; 0 for an empty one. Raises ``sqlite3.Error``."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def migrate(connection: sqlite3.Connection, steps: Sequence[str]) -> None:
    """Take the steps that a file lacks, within a transaction of the caller; a newer file stays as it is.

    Args:
        connection: to the file.
        steps: statements from the empty file to the version of today. ``PRAGMA user_version`` counts those
            that were taken, so a step that was released is never changed.

    Raises:
        sqlite3.Error: it cannot be done; the transaction is to be rolled back.
    """
    version = version_of(connection)
    if version >= len(steps):
        return
    for step in steps[version:]:
        for statement in step.split(";"):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(steps)}")


def stamp(moment: datetime) -> str:
    """Give a moment as tables keep it: all in UTC and of the same form, so that they compare as text."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def primary_code(error: sqlite3.Error) -> int:
    """Give the primary result code (https://www.sqlite.org/rescode.html)."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def kind_of(error: sqlite3.Error) -> type[HotspareError]:
    """Say which of our errors one of SQLite is."""
    code = primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        return NoSpace
    return PermissionRefused if code in _NOT_WRITABLE else HotspareError
