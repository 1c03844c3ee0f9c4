"""Opening the catalog's file: made where it is missing, set aside where it is damaged."""

import errno
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from hotspare.catalog.schema import MIGRATIONS, VERSION
from hotspare.errors import HotspareError, NoSpace, PermissionRefused
from hotspare.sqlite import kind_of, migrate, primary_code, transaction, version_of

_BUSY_SECONDS = 10.0


def make_folder(folder: Path) -> None:
    """Make the state folder, for its owner only. Raises ``NoSpace``, ``PermissionRefused``."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        kind = NoSpace if error.errno in {errno.ENOSPC, errno.EDQUOT} else PermissionRefused
        raise kind(
            f"The state folder {folder} cannot be made: {error.strerror}",
            meaning="Nothing was done",
            hint="Name a folder that this user may write with state_folder or HOTSPARE_STATE_FOLDER",
        ) from error


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Ask again while others do the same: of all statements, this one does not wait for a lock."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, and bring it to this version. Raises ``sqlite3.Error``, ``HotspareError``."""
    # Autocommit, so that transactions begin and end where this file says so.
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    connection.row_factory = sqlite3.Row
    try:
        _refuse_newer(connection, path)
        _refuse_damaged(connection)
        _use_write_ahead_log(connection)
        with transaction(connection):
            migrate(connection, MIGRATIONS)
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_newer(connection: sqlite3.Connection, path: Path) -> None:
    version = version_of(connection)
    if version > VERSION:
        raise HotspareError(
            f"The catalog {path} is of version {version}; this Hotspare knows versions up to {VERSION}",
            meaning="Nothing was changed; the restore points in the repository are not affected",
            hint="Use the newer Hotspare, or name another state folder with HOTSPARE_STATE_FOLDER",
        )


def _refuse_damaged(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        error = sqlite3.DatabaseError("quick_check found damage")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether an error says that the file is damaged."""
    return primary_code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def set_aside(path: Path) -> Path:
    """Rename a damaged file, and give its new path."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        # They belong to the damaged file; a fresh one must not find them.
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return aside


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of SQLite into ours."""
    try:
        yield
    except sqlite3.Error as error:
        kind = kind_of(error)
        hint = "Name another state folder with state_folder or HOTSPARE_STATE_FOLDER"
        if kind is NoSpace:
            raise NoSpace(
                f"There is no space for the catalog {path}", hint=f"Free some, or: {hint}"
            ) from error
        if kind is PermissionRefused:
            raise PermissionRefused(f"The catalog {path} cannot be opened for writing", hint=hint) from error
        raise HotspareError(
            f"The catalog {path} cannot be used: {error}",
            meaning="The restore points in the repository are not affected",
            hint="It is a cache: it may be moved away, and a fresh one is begun then",
        ) from error
