"""The record of what was done, as it is kept: entries are added and never changed."""

import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from hotspare.access.chain import BEGINNING, AuditEntry, broken, sealed, verified
from hotspare.access.database import AccessDatabase

_LOG = logging.getLogger("hotspare.audit")
_BATCH = 1000
ASKED_BY = "HOTSPARE_ASKED_BY"
"""Environment of a command that somebody asked the server for: who. It is only noted by the command."""


class AuditLog:
    """The record."""

    def __init__(self, database: AccessDatabase) -> None:
        self._database = database

    def add(
        self,
        actor: str,
        action: str,
        target: str = "",
        *,
        outcome: str = "ok",
        address: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> AuditEntry:
        """Record something, durably before this returns. Raises ``AuditBroken`` if the last entry is none."""
        with self._database.transaction():
            last = self._database.rows("SELECT entry FROM audit ORDER BY number DESC LIMIT 1")
            before = _decoded(last[0]["entry"]) if last else None
            entry = sealed(
                AuditEntry(
                    number=before.number + 1 if before else 1,
                    at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                    actor=actor,
                    action=action,
                    target=target,
                    outcome=outcome,
                    address=address,
                    detail=dict(detail or {}),
                    previous=before.hash if before else BEGINNING,
                )
            )
            encoded = msgspec.json.encode(entry).decode()
            self._database.change("INSERT INTO audit VALUES (?, ?)", entry.number, encoded)
        _LOG.info("audit %s", encoded)
        return entry

    def newest(self, limit: int, before: int | None = None) -> list[AuditEntry]:
        """Give the newest entries, the newest first; of those with a lower number, if one is given."""
        rows = self._database.rows(
            "SELECT entry FROM audit WHERE ?1 IS NULL OR number < ?1 ORDER BY number DESC LIMIT ?2",
            before,
            limit,
        )
        return [_decoded(row["entry"]) for row in rows]

    def verify(self, known: tuple[int, str] | None = None) -> tuple[int, str]:
        """Follow the whole chain; gives number and hash of its last entry. Raises as ``verified``."""
        return verified(self._all(), known)

    def _all(self) -> Iterator[AuditEntry]:
        after = -1
        while rows := self._database.rows(
            "SELECT number, entry FROM audit WHERE number > ? ORDER BY number LIMIT ?", after, _BATCH
        ):
            for row in rows:
                yield _decoded(row["entry"])
            after = rows[-1]["number"]


def _decoded(entry: str) -> AuditEntry:
    try:
        return msgspec.json.decode(entry, type=AuditEntry)
    except msgspec.DecodeError as error:
        raise broken(f"The entry {entry[:60]!r} is none") from error
