"""What is to be told, and what was: a SQLite file in the state folder, which many processes write.

A problem is told to each receiver once, however often and by whomever it is seen, and once more when it is
mended. All of that is decided in the transaction that writes it down.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from hotspare.catalog.opening import is_damage, make_folder, set_aside
from hotspare.errors import HotspareError
from hotspare.policy.occurrence import Kind, Occurrence
from hotspare.policy.receiver import Receiver
from hotspare.sqlite import kind_of, migrate, transaction, version_of

FILE_NAME = "notices.sqlite"
NoticeState = Literal["waiting", "sent", "given-up"]
NOTICE_STATES: tuple[NoticeState, ...] = ("waiting", "sent", "given-up")
RETRIES = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600)
"""Seconds to wait after each attempt that failed; after one more, about a day later, it is given up."""
WAITING_MAX = 1000
"""So many wait for a receiver; the oldest beyond that are given up."""
_CLAIMED_SECONDS = 300
"""For so long nobody else tries what somebody is sending; a sender that was killed has sent it or not."""
_LOG_SECONDS = 90 * 86_400
_LOG_MAX = 10_000
_BUSY_SECONDS = 5.0
_MIGRATIONS = (
    """
    CREATE TABLE problems (
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        occurrence TEXT NOT NULL,
        told TEXT NOT NULL,
        PRIMARY KEY (kind, subject)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE notices (
        id INTEGER PRIMARY KEY,
        receiver TEXT NOT NULL,
        occurrence TEXT NOT NULL,
        noted REAL NOT NULL,
        due REAL NOT NULL,
        digest INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        claimed REAL NOT NULL DEFAULT 0,
        state TEXT NOT NULL DEFAULT 'waiting',
        ended REAL,
        error TEXT
    ) STRICT;
    CREATE INDEX notices_by_state ON notices (state, receiver);
    CREATE TABLE first_seen (machine TEXT PRIMARY KEY, at REAL NOT NULL) STRICT, WITHOUT ROWID;
    """,
)


@dataclass(frozen=True, slots=True)
class Notice:
    """One occurrence for one receiver."""

    id: int
    receiver: str
    occurrence: Occurrence
    noted_at: datetime
    due_at: datetime
    """When it is tried, or was."""
    digest: bool
    attempts: int
    state: NoticeState
    ended_at: datetime | None
    error: str | None
    """Why the last attempt failed."""


class Outbox:
    """The open file. A context manager; belongs to the thread that opened it."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path

    @classmethod
    def open(cls, folder: Path, warn: Callable[[str], None]) -> Self:
        """Open it in the state folder, and make it when it is not there.

        A damaged file is set aside, and ``warn`` told so: what waited in it is not sent, and problems that
        last are told again.

        Raises:
            PermissionRefused: it may not be written.
            NoSpace: its file system is full.
            HotspareError: it is of a newer version, or cannot be used at all.
        """
        make_folder(folder)
        path = folder / FILE_NAME
        with _explained(path):
            try:
                return cls(_connect(path), path)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                warn(f"What was to be told was damaged and is now {set_aside(path)}; problems are told again")
                return cls(_connect(path), path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def note(self, occurrences: Iterable[Occurrence], receivers: Mapping[str, Receiver]) -> int:
        """Write down what is to be told; gives how many notices are to be sent that were not before."""
        now = datetime.now(UTC)
        with self._transaction():
            return sum(
                self._enqueue(one, receivers[name], now)
                for one in occurrences
                for name in self._whom(one, receivers)
            )

    def waiting(self) -> int:
        """Tell how many notices are due, and nobody sends them."""
        query = f"SELECT count(*) AS n FROM notices WHERE {_DUE}"  # noqa: S608 - a condition of ours
        rows = self._rows(query, {"now": time.time()})
        return int(rows[0]["n"])

    def claim(self, receiver: str | None = None) -> list[Notice]:
        """Take what is due, the oldest first, so that nobody else sends it for some minutes.

        Args:
            receiver: take all that waits for this one, due or not.
        """
        due = _DUE if receiver is None else f"{_FREE} AND receiver = :receiver"
        values = {"now": time.time(), "receiver": receiver}
        with self._transaction():
            rows = self._connection.execute(
                f"UPDATE notices SET claimed = :now + {_CLAIMED_SECONDS} WHERE id IN"  # noqa: S608 - ours
                f" (SELECT id FROM notices WHERE {due} ORDER BY id LIMIT {WAITING_MAX}) RETURNING *",
                values,
            ).fetchall()
            self._forget_old()
        return sorted(map(_notice_of, rows), key=lambda notice: notice.id)

    def sent(self, notices: Iterable[Notice]) -> None:
        """Note that a receiver has them."""
        self._end(notices, "sent", None)

    def failed(self, notices: Sequence[Notice], error: str) -> None:
        """Note that they could not be sent: they are tried again later, or given up."""
        over = [notice for notice in notices if notice.attempts >= len(RETRIES)]
        self._end(over, "given-up", error)
        now = time.time()
        with self._transaction():
            for notice in notices:
                if notice.attempts < len(RETRIES):
                    self._connection.execute(
                        "UPDATE notices SET attempts = attempts + 1, claimed = 0, due = ?, error = ?"
                        " WHERE id = ?",
                        (now + RETRIES[notice.attempts], error, notice.id),
                    )

    def give_up(self, notices: Iterable[Notice], error: str) -> None:
        """Note that they will not be sent."""
        self._end(notices, "given-up", error)

    def add_ended(self, receiver: str, occurrence: Occurrence, error: str | None) -> None:
        """Note in the log what was sent beside the outbox, or could not be."""
        now = time.time()
        with self._transaction():
            self._connection.execute(
                "INSERT INTO notices (receiver, occurrence, noted, due, digest, attempts, state, ended,"
                " error) VALUES (?, ?, ?, ?, 0, 1, ?, ?, ?)",
                (receiver, _encoded(occurrence), now, now, "given-up" if error else "sent", now, error),
            )

    def log(self, limit: int, receiver: str | None = None) -> list[Notice]:
        """Give the newest notices, sent or not, the newest first."""
        rows = self._rows(
            "SELECT * FROM notices WHERE :receiver IS NULL OR receiver = :receiver ORDER BY id DESC LIMIT :n",
            {"receiver": receiver, "n": limit},
        )
        return [_notice_of(row) for row in rows]

    def counts(self) -> dict[NoticeState, int]:
        """Tell how many of each state are in the log."""
        rows = self._rows("SELECT state, count(*) AS n FROM notices GROUP BY state", {})
        found = {row["state"]: int(row["n"]) for row in rows}
        return {state: found.get(state, 0) for state in NOTICE_STATES}

    def problems(self, kinds: Iterable[Kind]) -> list[Occurrence]:
        """Give the problems of some kinds that were seen last and not mended since."""
        wanted = set(kinds)
        rows = self._rows("SELECT * FROM problems ORDER BY kind, subject", {})
        return [_decoded(row["occurrence"]) for row in rows if row["kind"] in wanted]

    def first_seen(self, machines: Iterable[str]) -> dict[str, datetime]:
        """Give since when each of some machines is known; those that are new are known from now on."""
        now = time.time()
        with self._transaction():
            for machine in machines:
                self._connection.execute("INSERT OR IGNORE INTO first_seen VALUES (?, ?)", (machine, now))
            rows = self._connection.execute("SELECT * FROM first_seen").fetchall()
        return {row["machine"]: _moment(min(row["at"], now)) for row in rows}

    def _whom(self, one: Occurrence, receivers: Mapping[str, Receiver]) -> list[str]:
        """Decide who is to be told, and remember it of a problem."""
        fitting = [
            name for name, receiver in receivers.items() if receiver.enabled and receiver.match.fits(one)
        ]
        if one.state == "once":
            return fitting
        row = self._connection.execute(
            "SELECT told FROM problems WHERE kind = ? AND subject = ?", (one.kind, one.subject)
        ).fetchone()
        told: list[str] = msgspec.json.decode(row["told"]) if row else []
        if one.state == "broken":
            self._connection.execute(
                "INSERT OR REPLACE INTO problems VALUES (?, ?, ?, ?)",
                (
                    one.kind,
                    one.subject,
                    _encoded(one),
                    msgspec.json.encode(sorted({*told, *fitting})).decode(),
                ),
            )
            return [name for name in fitting if name not in told]
        self._connection.execute(
            "DELETE FROM problems WHERE kind = ? AND subject = ?", (one.kind, one.subject)
        )
        return [
            name for name in told if name in receivers and receivers[name].enabled and receivers[name].mended
        ]

    def _enqueue(self, one: Occurrence, receiver: Receiver, now: datetime) -> int:
        digest = receiver.delivery == "digest"
        self._connection.execute(
            "INSERT INTO notices (receiver, occurrence, noted, due, digest) VALUES (?, ?, ?, ?, ?)",
            (receiver.name, _encoded(one), now.timestamp(), receiver.due(one, now).timestamp(), digest),
        )
        self._connection.execute(
            "UPDATE notices SET state = 'given-up', ended = ?, error = 'too many wait for this receiver'"
            " WHERE id IN (SELECT id FROM notices WHERE receiver = ? AND state = 'waiting'"
            " ORDER BY id DESC LIMIT -1 OFFSET ?)",
            (now.timestamp(), receiver.name, WAITING_MAX),
        )
        return 1

    def _end(self, notices: Iterable[Notice], state: NoticeState, error: str | None) -> None:
        with self._transaction():
            self._connection.executemany(
                "UPDATE notices SET state = ?, attempts = attempts + 1, ended = ?, error = ? WHERE id = ?",
                [(state, time.time(), error, notice.id) for notice in notices],
            )

    def _forget_old(self) -> None:
        self._connection.execute(
            "DELETE FROM notices WHERE state != 'waiting' AND (ended < ? OR id <= (SELECT max(id) FROM"
            " notices) - ?)",
            (time.time() - _LOG_SECONDS, _LOG_MAX),
        )

    def _rows(self, query: str, values: Mapping[str, object]) -> list[sqlite3.Row]:
        with _explained(self.path):
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _explained(self.path), transaction(self._connection):
            yield


_FREE = f"state = 'waiting' AND (claimed <= :now OR claimed > :now + {_CLAIMED_SECONDS})"
# What was noted in the future was noted by a clock that was wrong: it must not wait for that day.
_DUE = f"{_FREE} AND (due <= :now OR noted > :now + 60)"


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    connection.row_factory = sqlite3.Row
    try:
        with transaction(connection):
            _refuse_newer(version_of(connection), path)
            migrate(connection, _MIGRATIONS)
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_newer(version: int, path: Path) -> None:
    if version > len(_MIGRATIONS):
        raise HotspareError(
            f"{path} is of version {version}; this Hotspare knows versions up to {len(_MIGRATIONS)}",
            meaning="Nobody is told anything; backups are not affected",
            hint="Use the newer Hotspare",
        )


def _encoded(occurrence: Occurrence) -> str:
    return msgspec.json.encode(occurrence).decode()


def _decoded(text: str) -> Occurrence:
    return msgspec.json.decode(text, type=Occurrence)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _notice_of(row: sqlite3.Row) -> Notice:
    return Notice(
        id=row["id"],
        receiver=row["receiver"],
        occurrence=_decoded(row["occurrence"]),
        noted_at=_moment(row["noted"]),
        due_at=_moment(row["due"]),
        digest=bool(row["digest"]),
        attempts=row["attempts"],
        state=row["state"],
        ended_at=_moment(row["ended"]) if row["ended"] else None,
        error=row["error"],
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise kind_of(error)(
            f"What is to be told cannot be noted in {path}: {error}",
            meaning="Backups and restore points are not affected; nobody is told",
            hint="Free some space, or name another state folder with HOTSPARE_STATE_FOLDER",
        ) from error
