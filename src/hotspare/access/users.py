"""Users and their passwords, authenticator apps and roles."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from hotspare.access.database import AccessDatabase
from hotspare.access.passwords import hash_password, is_password, new_totp_secret, totp_step, totp_uri
from hotspare.access.roles import EVERYTHING, Grant, Permission, permits
from hotspare.errors import LoginRefused, UsageError, UserExists, UserNotFound

NAME = re.compile(r"[a-z0-9][a-z0-9_.@-]{0,62}")


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may log in."""

    name: str
    grants: tuple[Grant, ...]
    has_totp: bool
    disabled: bool
    created_at: str
    has_password: bool = True
    """False for who comes by single sign-on."""

    @property
    def is_admin(self) -> bool:
        """Whether this user may do everything everywhere."""
        return not self.disabled and permits(self.grants, Permission.ADMINISTER, EVERYTHING)


class Users:
    """All users."""

    def __init__(self, database: AccessDatabase) -> None:
        self._database = database

    def add(self, name: str, password: str | None, grants: Sequence[Grant]) -> User:
        """Make a user; one without a password comes by single sign-on.

        Raises:
            UsageError: the name or the password cannot be taken.
            UserExists: there is one of that name.
        """
        if not NAME.fullmatch(name):
            raise UsageError(
                f"A user cannot be called {name!r}",
                meaning="Nothing was changed",
                hint="Use small letters, digits and . _ @ - behind the first; 63 at most",
            )
        kept = "" if password is None else hash_password(password)
        with self._database.transaction():
            if self._database.rows("SELECT 1 FROM users WHERE name = ?", name):
                raise UserExists(f"There is a user '{name}' already", meaning="Nothing was changed")
            self._database.change(
                "INSERT INTO users (name, password, grants, created_at) VALUES (?, ?, ?, ?)",
                name,
                kept,
                _encoded(grants),
                datetime.now(UTC).isoformat(timespec="seconds"),
            )
        return self.get(name)

    def get(self, name: str) -> User:
        """Find a user. Raises ``UserNotFound``."""
        found = [user for user in self.all() if user.name == name]
        if not found:
            raise UserNotFound(f"There is no user '{name}'", meaning="Nothing was changed")
        return found[0]

    def all(self) -> list[User]:
        """Give all users, in the order of their names."""
        return [
            User(
                row["name"],
                decoded(row["grants"]),
                bool(row["totp_confirmed"]),
                bool(row["disabled"]),
                row["created_at"],
                bool(row["password"]),
            )
            for row in self._database.rows("SELECT * FROM users ORDER BY name")
        ]

    def change(
        self,
        name: str,
        *,
        grants: Sequence[Grant] | None = None,
        disabled: bool | None = None,
        password: str | None = None,
    ) -> User:
        """Change what is given; whoever is logged in as that user, or holds a token, is so no longer.

        Raises:
            UserNotFound: there is none.
            UsageError: the password cannot be taken, or nobody would be left who may administer.
        """
        kept = None if password is None else hash_password(password)
        with self._database.transaction():
            before = self.get(name)
            if kept is not None and not before.has_password:
                raise UsageError(
                    f"{name} comes by single sign-on",
                    meaning="Nothing was changed",
                    hint="There is no password here to be changed",
                )
            if grants is not None:
                self._database.change("UPDATE users SET grants = ? WHERE name = ?", _encoded(grants), name)
            if disabled is not None:
                self._database.change("UPDATE users SET disabled = ? WHERE name = ?", int(disabled), name)
            if kept is not None:
                self._database.change("UPDATE users SET password = ? WHERE name = ?", kept, name)
            if kept is not None or disabled:
                self._database.change("DELETE FROM tokens WHERE user = ?", name)
            self._require_admin()
        return self.get(name)

    def remove(self, name: str) -> None:
        """Remove a user and all tokens. Raises ``UserNotFound``, and ``UsageError`` for the last admin."""
        with self._database.transaction():
            self.get(name)
            self._database.change("DELETE FROM users WHERE name = ?", name)
            self._require_admin()

    def check(self, name: str, password: str, code: str | None) -> User:
        """Tell who that is. Raises ``LoginRefused``, which does not tell what was wrong."""
        rows = self._database.rows("SELECT * FROM users WHERE name = ?", name)
        row = rows[0] if rows else None
        right = is_password(row["password"] if row else None, password)
        if row is None or not right or row["disabled"]:
            raise _refused()
        if row["totp_confirmed"] and not self._take_code(name, row["totp"], code or ""):
            raise _refused()
        return self.get(name)

    def new_totp(self, name: str) -> tuple[str, str]:
        """Begin to use an authenticator app; gives its secret, and the same as a URI for a QR code.

        It counts once ``confirm_totp`` has seen a code of it.
        """
        secret = new_totp_secret()
        with self._database.transaction():
            self.get(name)
            self._database.change(
                "UPDATE users SET totp = ?, totp_confirmed = 0, totp_step = 0 WHERE name = ?", secret, name
            )
        return secret, totp_uri(secret, name)

    def confirm_totp(self, name: str, code: str) -> None:
        """Ask for codes of the app from now on. Raises ``LoginRefused`` when it is not one of it."""
        rows = self._database.rows("SELECT totp FROM users WHERE name = ?", name)
        if not rows or not rows[0]["totp"] or not self._take_code(name, rows[0]["totp"], code):
            raise _refused()
        self._database.change("UPDATE users SET totp_confirmed = 1 WHERE name = ?", name)

    def remove_totp(self, name: str) -> None:
        """Ask for no codes any more. Raises ``UserNotFound``."""
        self.get(name)
        self._database.change("UPDATE users SET totp = NULL, totp_confirmed = 0 WHERE name = ?", name)

    def _take_code(self, name: str, secret: str, code: str) -> bool:
        with self._database.transaction():
            rows = self._database.rows("SELECT totp_step FROM users WHERE name = ?", name)
            step = totp_step(secret, code, rows[0]["totp_step"]) if rows else None
            if step is not None:
                self._database.change("UPDATE users SET totp_step = ? WHERE name = ?", step, name)
        return step is not None

    def _require_admin(self) -> None:
        if not any(user.is_admin for user in self.all()):
            raise UsageError(
                "Nobody would be left who may administer",
                meaning="Nothing was changed",
                hint="Make another user an admin first",
            )


def decoded(grants: str) -> tuple[Grant, ...]:
    """Read grants as they lie in the database."""
    return msgspec.json.decode(grants, type=tuple[Grant, ...])


def _encoded(grants: Sequence[Grant]) -> str:
    return msgspec.json.encode(grants).decode()


def _refused() -> LoginRefused:
    return LoginRefused(
        "Name, password or code is wrong",
        meaning="Nothing was done",
        hint="Codes of an authenticator app can be used once; its clock has to be right",
    )
