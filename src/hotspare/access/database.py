"""The database of users, tokens, approvals and the record: one file, opened once, for all threads."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hotspare.errors import HotspareError, PermissionRefused
from hotspare.sqlite import kind_of, migrate, transaction, version_of

FILE_NAME = "access.sqlite"
_BUSY_SECONDS = 10.0

MIGRATIONS = (
    """
    CREATE TABLE users (
        name TEXT PRIMARY KEY,
        password TEXT NOT NULL,
        grants TEXT NOT NULL,
        totp TEXT,
        totp_confirmed INTEGER NOT NULL DEFAULT 0,
        totp_step INTEGER NOT NULL DEFAULT 0,
        disabled INTEGER NOT NULL DEFAULT 0,
        created_at TEXT NOT NULL
    ) STRICT;
    CREATE TABLE tokens (
        id TEXT PRIMARY KEY,
        user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        hash TEXT NOT NULL,
        grants TEXT,
        created_at TEXT NOT NULL,
        expires_at TEXT
    ) STRICT;
    CREATE TABLE audit (
        number INTEGER PRIMARY KEY,
        entry TEXT NOT NULL
    ) STRICT;
    CREATE TABLE approvals (
        id TEXT PRIMARY KEY,
        action TEXT NOT NULL,
        arguments TEXT NOT NULL,
        summary TEXT NOT NULL,
        asked_by TEXT NOT NULL,
        asked_at TEXT NOT NULL,
        state TEXT NOT NULL,
        decided_by TEXT,
        decided_at TEXT
    ) STRICT;
    CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE answers (
        key TEXT PRIMARY KEY,
        request TEXT NOT NULL,
        status INTEGER,
        body BLOB,
        at REAL NOT NULL
    ) STRICT;
    """,
    """
    ALTER TABLE users ADD COLUMN handle TEXT;
    CREATE TABLE passkeys (
        id TEXT PRIMARY KEY,
        user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
        name TEXT NOT NULL,
        public_key BLOB NOT NULL,
        sign_count INTEGER NOT NULL,
        created_at TEXT NOT NULL,
        used_at TEXT
    ) STRICT;
    CREATE TABLE identities (
        issuer TEXT NOT NULL,
        subject TEXT NOT NULL,
        user TEXT NOT NULL UNIQUE REFERENCES users (name) ON DELETE CASCADE,
        PRIMARY KEY (issuer, subject)
    ) STRICT;
    """,
)


class AccessDatabase:
    """One open database. Safe for several threads; other processes may have it open as well."""

    def __init__(self, folder: Path) -> None:
        """Open it in the state folder, and make it when it is not there.

        Raises:
            PermissionRefused: it may not be written.
            NoSpace: its file system is full.
            HotspareError: it is damaged, or of a newer version. It is never set aside: who may do what must
                not be forgotten by accident.
        """
        self.path = folder / FILE_NAME
        self._lock = threading.RLock()
        with self._explained():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            self._connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA foreign_keys = ON")
            # What was recorded stays recorded, even over a power cut.
            self._connection.execute("PRAGMA synchronous = FULL")
        self._migrate()

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        """Ask."""
        with self._lock, self._explained():
            return self._connection.execute(query, values).fetchall()

    def change(self, statement: str, *values: object) -> int:
        """Change something, durably; gives how many rows were."""
        with self.transaction():
            return self._connection.execute(statement, values).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and nobody else meanwhile; within another one, a part of that."""
        with self._lock, self._explained():
            if self._connection.in_transaction:
                yield
                return
            with transaction(self._connection):
                yield

    def setting(self, key: str, default: str) -> str:
        """Give what was set by ``set``."""
        rows = self.rows("SELECT value FROM settings WHERE key = ?", key)
        return str(rows[0]["value"]) if rows else default

    def set(self, key: str, value: str) -> None:
        """Remember a setting."""
        self.change("INSERT OR REPLACE INTO settings VALUES (?, ?)", key, value)

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        self._connection.close()

    def _migrate(self) -> None:
        with self.transaction():
            version = version_of(self._connection)
            if version > len(MIGRATIONS):
                raise HotspareError(
                    f"{self.path} is of version {version}; this Hotspare knows {len(MIGRATIONS)}",
                    meaning="Nothing was changed",
                    hint="Use the newer Hotspare",
                )
            migrate(self._connection, MIGRATIONS)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PermissionRefused(
                f"{self.path} cannot be made: {error.strerror}",
                hint="Name a folder that this user may write with HOTSPARE_STATE_FOLDER",
            ) from error
        except sqlite3.Error as error:
            raise kind_of(error)(
                f"{self.path} cannot be used: {error}",
                meaning="Restore points are not affected, and every command works without the server",
                hint="Put it back from a copy",
            ) from error
