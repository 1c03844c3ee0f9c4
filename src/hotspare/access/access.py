"""All of it together: who is let in, and what is remembered of it."""

import hmac
import secrets
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hotspare.access.approvals import Approvals
from hotspare.access.attempts import Attempts
from hotspare.access.audit import AuditLog
from hotspare.access.challenges import Challenges
from hotspare.access.database import AccessDatabase
from hotspare.access.roles import Grant, Role
from hotspare.access.tokens import LOGIN_LASTS, Token, Tokens
from hotspare.access.users import User, Users
from hotspare.errors import HotspareError, LoginRefused

if TYPE_CHECKING:
    from hotspare.access.passkeys import Passkeys, RelyingParty
    from hotspare.access.provider import Provider
    from hotspare.access.sign_on import SignOn


class Access:
    """Users, tokens, approvals and the record, in one database."""

    def __init__(self, folder: Path, provider: "Provider | None" = None) -> None:
        """Open it in the state folder. Raises as ``AccessDatabase``.

        Args:
            folder: the state folder.
            provider: answers for who comes by single sign-on; None for no such thing.
        """
        self.database = AccessDatabase(folder)
        self.users = Users(self.database)
        self.tokens = Tokens(self.database, self.users)
        self.audit = AuditLog(self.database)
        self.approvals = Approvals(self.database)
        self._challenges = Challenges()
        self._provider = provider
        self._attempts = Attempts()
        self._addresses = Attempts(free=20)
        self.setup_code = None if self.users.all() else secrets.token_hex(8)
        """What the first user has to know, told on the server's own terminal; None once there is one."""

    # Both are made when somebody comes by them: their libraries take a third of a second to import.

    @cached_property
    def passkeys(self) -> "Passkeys":
        """Logins without a password."""
        from hotspare.access.passkeys import Passkeys  # noqa: PLC0415

        return Passkeys(self.database, self.users, self._challenges)

    @cached_property
    def sign_on(self) -> "SignOn | None":
        """Logins that a provider answers for; None without one."""
        if self._provider is None:
            return None
        from hotspare.access.sign_on import SignOn  # noqa: PLC0415

        return SignOn(self.database, self.users, self._challenges, self._provider)

    def setup(self, code: str, name: str, password: str, address: str) -> User:
        """Make the first user, an admin.

        Raises:
            LoginRefused: there is one already, or the code is wrong.
            TooManyAttempts: too many codes were wrong.
            UsageError: name or password cannot be taken.
        """
        self._addresses.begin(address)
        with self.database.transaction():
            expected = None if self.users.all() else self.setup_code
            if expected is None or not hmac.compare_digest(expected.encode(), code.encode()):
                raise LoginRefused(
                    "The code is wrong, or there are users already",
                    meaning="Nothing was done",
                    hint="The code is what the server printed when it was started",
                )
            user = self.users.add(name, password, [Grant(role=Role.ADMIN)])
        self._addresses.succeeded(address)
        self.setup_code = None
        return user

    def log_in(self, name: str, password: str, code: str | None, address: str) -> tuple[Token, str]:
        """Let somebody in for 12 hours; gives the token and what shows it.

        Raises:
            LoginRefused: something is wrong; it is not said what.
            TooManyAttempts: too much was wrong before.
        """
        keys = f"{name[:64]} {address}"
        self._addresses.begin(address)
        self._attempts.begin(keys)
        try:
            user = self.users.check(name, password, code)
        except HotspareError as error:
            self.audit.add("", "log in", name[:64], outcome=error.code, address=address)
            raise
        self._addresses.succeeded(address)
        self._attempts.succeeded(keys)
        self.audit.add(user.name, "log in", user.name, address=address)
        return self.tokens.issue(user.name, "login", "login", lasts=LOGIN_LASTS)

    def log_in_with_passkey(
        self, credential: dict[str, Any], party: "RelyingParty", address: str
    ) -> tuple[Token, str]:
        """Let somebody in by a passkey alone, as ``log_in``; ``credential`` as ``Passkeys.check`` takes it.

        Raises:
            LoginRefused: something is wrong; it is not said what.
            TooManyAttempts: too much was wrong before from this address.
        """
        self._addresses.begin(address)
        try:
            user, passkey = self.passkeys.check(credential, party)
        except HotspareError as error:
            self.audit.add("", "log in", outcome=error.code, address=address, detail={"by": "passkey"})
            raise
        self._addresses.succeeded(address)
        how = {"by": "passkey", "passkey": passkey.name}
        self.audit.add(user.name, "log in", user.name, address=address, detail=how)
        return self.tokens.issue(user.name, "login", "login", lasts=LOGIN_LASTS)

    def log_in_by_sign_on(
        self, flow: str, came: dict[str, str], redirect: str, address: str
    ) -> tuple[Token, str]:
        """Let somebody in for whom the provider answers, as ``log_in``; arguments as ``SignOn.finish``.

        Raises:
            LoginRefused: something is wrong, or there is no single sign-on, or no first user yet.
            TooManyAttempts: too much was wrong before from this address.
            ProviderUnavailable: the provider does not answer.
        """
        if self.sign_on is None or self.setup_code is not None:
            raise LoginRefused("There is no single sign-on here yet", meaning="Nothing was done")
        self._addresses.begin(address)
        how = {"by": "single sign-on", "issuer": self.sign_on.provider.said.issuer}
        try:
            user = self.sign_on.finish(flow, came, redirect)
        except HotspareError as error:
            said = {**how, "why": error.what[:500]}
            self.audit.add("", "log in", outcome=error.code, address=address, detail=said)
            raise
        self._addresses.succeeded(address)
        self.audit.add(user.name, "log in", user.name, address=address, detail=how)
        return self.tokens.issue(user.name, "login", "login", lasts=LOGIN_LASTS)

    def confirm(self, name: str, password: str, code: str | None, address: str) -> None:
        """Have somebody who is logged in show the password again. Raises as ``log_in``."""
        keys = f"{name[:64]} {address}"
        self._attempts.begin(keys)
        self.users.check(name, password, code)
        self._attempts.succeeded(keys)

    def issue_token(
        self, user: str, name: str, grants: tuple[Grant, ...] | None, days: int | None
    ) -> tuple[Token, str]:
        """Make an API token. Raises ``UserNotFound``."""
        return self.tokens.issue(
            user, "token", name, grants=grants, lasts=timedelta(days=days) if days else None
        )

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()
