"""A second person's consent to what destroys: nothing is done before another admin agrees."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from hotspare.access.database import AccessDatabase
from hotspare.errors import ApprovalNotFound, NotPermitted
from hotspare.sqlite import stamp

State = Literal["waiting", "approved", "rejected", "expired"]
WAITS = timedelta(days=7)
_SWITCH = "second_person"


@dataclass(frozen=True, slots=True)
class Approval:
    """Something that waits for a second person, or did."""

    id: str
    action: str
    arguments: dict[str, Any]
    summary: str
    """What it would do, in words."""
    asked_by: str
    asked_at: str
    state: State
    decided_by: str | None
    decided_at: str | None


class Approvals:
    """All of them, and whether they are asked for."""

    def __init__(self, database: AccessDatabase) -> None:
        self._database = database

    @property
    def needed(self) -> bool:
        """Whether a second person has to agree."""
        return self._database.setting(_SWITCH, "off") == "on"

    def switch(self, *, on: bool) -> None:
        """Ask for a second person from now on, or not."""
        self._database.set(_SWITCH, "on" if on else "off")

    def ask(self, user: str, action: str, arguments: Mapping[str, Any], summary: str) -> Approval:
        """Note what a user wants to be done."""
        number = secrets.token_hex(6)
        self._database.change(
            "INSERT INTO approvals VALUES (?, ?, ?, ?, ?, ?, 'waiting', NULL, NULL)",
            number,
            action,
            msgspec.json.encode(arguments).decode(),
            summary,
            user,
            stamp(datetime.now(UTC)),
        )
        return self.get(number)

    def decide(self, number: str, user: str, *, approve: bool) -> Approval:
        """Agree or not, once; whoever agrees has to do then what it says.

        Raises:
            ApprovalNotFound: there is none, or it was decided, or it has waited for too long.
            NotPermitted: the user asked for it, and cannot agree alone. (To reject one's own is fine.)
        """
        with self._database.transaction():
            approval = self.get(number)
            if approval.state != "waiting":
                raise ApprovalNotFound(f"Approval '{number}' is {approval.state} already")
            if approve and approval.asked_by == user:
                raise NotPermitted(
                    "Who asks for something cannot approve it",
                    meaning="Nothing was done",
                    hint="Ask another admin",
                )
            self._database.change(
                "UPDATE approvals SET state = ?, decided_by = ?, decided_at = ? WHERE id = ?",
                "approved" if approve else "rejected",
                user,
                stamp(datetime.now(UTC)),
                number,
            )
        return self.get(number)

    def get(self, number: str) -> Approval:
        """Find one. Raises ``ApprovalNotFound``."""
        found = [approval for approval in self.all() if approval.id == number]
        if not found:
            raise ApprovalNotFound(f"There is no approval '{number}'", meaning="Nothing was done")
        return found[0]

    def all(self) -> list[Approval]:
        """Give all, the newest first."""
        oldest = stamp(datetime.now(UTC) - WAITS)
        return [
            Approval(
                row["id"],
                row["action"],
                msgspec.json.decode(row["arguments"]),
                row["summary"],
                row["asked_by"],
                row["asked_at"],
                "expired" if row["state"] == "waiting" and row["asked_at"] < oldest else row["state"],
                row["decided_by"],
                row["decided_at"],
            )
            for row in self._database.rows("SELECT * FROM approvals ORDER BY asked_at DESC, id")
        ]
