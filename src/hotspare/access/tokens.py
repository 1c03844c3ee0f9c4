"""API tokens and logins: what is shown once, and of which only a hash is kept."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from hotspare.access.database import AccessDatabase
from hotspare.access.roles import Grant, Permission, Target, permits, permits_somewhere
from hotspare.access.users import User, Users, decoded
from hotspare.errors import LoginRefused, TokenNotFound
from hotspare.sqlite import stamp

Kind = Literal["token", "login"]
LOGIN_LASTS = timedelta(hours=12)
_PREFIX = "hotspare"


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is kept; what it is worth is not in it."""

    id: str
    user: str
    kind: Kind
    name: str
    grants: tuple[Grant, ...] | None
    """None for all that its owner has."""
    created_at: str
    expires_at: str | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for something, by a login or a token."""

    user: User
    token: Token

    @property
    def name(self) -> str:
        """How the caller stands in the record: ``anna``, or ``anna!grafana`` for a token of hers."""
        return self.user.name if self.token.kind == "login" else f"{self.user.name}!{self.token.name}"

    def may(self, permission: Permission, target: Target) -> bool:
        """Tell whether owner and token both may."""
        mine = permits(self.user.grants, permission, target)
        return mine and (self.token.grants is None or permits(self.token.grants, permission, target))

    def may_somewhere(self, permission: Permission) -> bool:
        """Tell whether there may be something upon which the caller may."""
        mine = permits_somewhere(self.user.grants, permission)
        return mine and (self.token.grants is None or permits_somewhere(self.token.grants, permission))


class Tokens:
    """All tokens and logins."""

    def __init__(self, database: AccessDatabase, users: Users) -> None:
        self._database = database
        self._users = users

    def issue(
        self,
        user: str,
        kind: Kind,
        name: str,
        *,
        grants: Sequence[Grant] | None = None,
        lasts: timedelta | None = None,
    ) -> tuple[Token, str]:
        """Make a token; gives it, and what has to be shown to be believed, which is not kept.

        Raises ``UserNotFound``.
        """
        self._users.get(user)
        now = datetime.now(UTC)
        number, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        self._database.change("DELETE FROM tokens WHERE expires_at < ?", stamp(now))
        self._database.change(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            number,
            user,
            kind,
            name,
            _hash(secret),
            None if grants is None else msgspec.json.encode(grants).decode(),
            stamp(now),
            stamp(now + lasts) if lasts else None,
        )
        return self.get(number), f"{_PREFIX}_{number}_{secret}"

    def caller(self, shown: str) -> Caller:
        """Tell who shows a token. Raises ``LoginRefused``."""
        _, number, secret = (*shown.split("_", 2), "", "")[:3]
        rows = self._database.rows("SELECT * FROM tokens WHERE id = ?", number)
        kept = rows[0]["hash"] if rows else _hash("")
        good = hmac.compare_digest(kept, _hash(secret)) and bool(rows) and shown.startswith(_PREFIX)
        if not good or _is_over(rows[0]["expires_at"]):
            raise _refused()
        user = self._users.get(rows[0]["user"])
        if user.disabled:
            raise _refused()
        return Caller(user, self.get(number))

    def get(self, number: str) -> Token:
        """Find a token. Raises ``TokenNotFound``."""
        found = [token for token in self.all() if token.id == number]
        if not found:
            raise TokenNotFound(f"There is no token '{number}'", meaning="Nothing was changed")
        return found[0]

    def all(self) -> list[Token]:
        """Give all tokens and logins, in the order in which they were made."""
        return [
            Token(
                row["id"],
                row["user"],
                row["kind"],
                row["name"],
                None if row["grants"] is None else decoded(row["grants"]),
                row["created_at"],
                row["expires_at"],
            )
            for row in self._database.rows("SELECT * FROM tokens ORDER BY created_at, id")
        ]

    def revoke(self, number: str) -> None:
        """Have a token believed no longer. Raises ``TokenNotFound``."""
        self.get(number)
        self._database.change("DELETE FROM tokens WHERE id = ?", number)


def _hash(secret: str) -> str:
    # 256 bits at random cannot be guessed: a plain hash is enough.
    return hashlib.sha256(secret.encode()).hexdigest()


def _is_over(expires_at: str | None) -> bool:
    return expires_at is not None and expires_at <= stamp(datetime.now(UTC))


def _refused() -> LoginRefused:
    return LoginRefused(
        "This token is not known, was revoked, or is over",
        meaning="Nothing was done",
        hint="Log in again, or make a new token",
    )
