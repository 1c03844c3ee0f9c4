"""What all of our SQLite files have in common: transactions, and what kinds of errors there are."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

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


def primary_code(error: sqlite3.Error) -> int:
    """Give the primary result code (https://www.sqlite.org/rescode.html)."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def kind_of(error: sqlite3.Error) -> type[HotspareError]:
    """Say which of our errors one of SQLite is."""
    code = primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        return NoSpace
    return PermissionRefused if code in _NOT_WRITABLE else HotspareError
