"""Single sign-on: logins that an OpenID provider answers for, and the users who come that way."""

import hashlib
import hmac
import secrets
from typing import Any

from webauthn.helpers import base64url_to_bytes, bytes_to_base64url

from hotspare.access.challenges import Challenges
from hotspare.access.database import AccessDatabase
from hotspare.access.provider import Begun, Provider
from hotspare.access.roles import Grant
from hotspare.access.users import NAME, User, Users
from hotspare.errors import LoginRefused


class SignOn:
    """Logins by a provider.

    What a browser keeps meanwhile, the *flow*, is a secret of that browser's alone; ``state`` is a challenge
    for it, ``nonce`` and the verifier of PKCE are derived from it. So nobody can have another's browser go on
    with a login of their own, nor use a code that was another's, and nothing is kept here.
    """

    def __init__(
        self, database: AccessDatabase, users: Users, challenges: Challenges, provider: Provider
    ) -> None:
        self._database = database
        self._users = users
        self._challenges = challenges
        self.provider = provider

    def begin(self, redirect: str) -> tuple[str, str]:
        """Give where the browser has to go, and the flow, which it has to keep.

        Args:
            redirect: address to which the provider sends it back.

        Raises:
            ProviderUnavailable: the provider does not answer.
        """
        flow = secrets.token_urlsafe(32)
        state = bytes_to_base64url(self._challenges.new(_purpose(flow)))
        return self.provider.address(_begun(flow, state, redirect)), flow

    def finish(self, flow: str, came: dict[str, str], redirect: str) -> User:
        """Tell who came back from the provider.

        Args:
            flow: as the browser has kept it.
            came: what stands in the address with which it came back: ``state``, ``code``, ``error``, ``iss``.
            redirect: as in ``begin``.

        Raises:
            LoginRefused: it is not the browser that was sent there, the provider refused, what it says cannot
                be believed, or who that is may not come in.
            ProviderUnavailable: the provider does not answer.
        """
        state = came.get("state", "")
        self._challenges.spend(_decoded(state), _purpose(flow))
        name = self.provider.said.name
        if came.get("iss", self.provider.said.issuer) != self.provider.said.issuer:  # RFC 9207
            raise _refused("This comes from another provider")
        if "error" in came or not came.get("code"):
            raise _refused(f"{name} let nobody in: {came.get('error', 'no code')[:100]}")
        return self._user(self.provider.claims(came["code"], _begun(flow, state, redirect)))

    def _user(self, claims: dict[str, Any]) -> User:
        """Find or make the user whom claims are about, and give the roles that follow from them."""
        said = self.provider.said
        grants = [rule.grant for rule in said.roles if _has(claims.get(rule.claim), rule.value)]
        subject = str(claims["sub"])
        with self._database.transaction():
            user = self._known(subject) or self._new(subject, claims.get(said.name_claim), grants)
            if user.disabled:
                raise _refused(f"The user '{user.name}' is disabled here")
            if said.roles and tuple(grants) != user.grants:
                user = self._users.change(user.name, grants=grants)
        # Outside, so that who has lost all roles has lost them for tokens as well.
        if not user.grants:
            raise _refused(f"{said.name} says nothing of '{user.name}' that gives a role here")
        return user

    def _known(self, subject: str) -> User | None:
        rows = self._database.rows(
            "SELECT user FROM identities WHERE issuer = ? AND subject = ?", self.provider.said.issuer, subject
        )
        return self._users.get(rows[0]["user"]) if rows else None

    def _new(self, subject: str, given: object, grants: list[Grant]) -> User:
        """Take somebody who comes for the first time, under the name that the provider gives."""
        name = given.lower() if isinstance(given, str) else ""
        if not NAME.fullmatch(name):
            raise _refused(f"{self.provider.said.name} gives no name that a user can have here")
        there = next((user for user in self._users.all() if user.name == name), None)
        # A user with a password is somebody of this server, whoever has got hold of the same name elsewhere.
        taken = there is not None and (
            there.has_password or bool(self._database.rows("SELECT 1 FROM identities WHERE user = ?", name))
        )
        if taken:
            raise _refused(f"There is another user '{name}' here")
        if there is None:
            if not self.provider.said.make_users:
                raise _refused(f"There is no user '{name}' here, and none is made at a login")
            if not grants:
                raise _refused(f"{self.provider.said.name} says nothing of '{name}' that gives a role here")
            there = self._users.add(name, None, grants)
        self._database.change(
            "INSERT INTO identities VALUES (?, ?, ?)", self.provider.said.issuer, subject, name
        )
        return there


def _begun(flow: str, state: str, redirect: str) -> Begun:
    return Begun(state, _derived(flow, b"nonce"), _derived(flow, b"verifier"), redirect)


def _derived(flow: str, what: bytes) -> str:
    return bytes_to_base64url(hmac.new(flow.encode(), what, hashlib.sha256).digest())


def _purpose(flow: str) -> str:
    return f"sign on {flow}"


def _decoded(state: str) -> bytes:
    try:
        return base64url_to_bytes(state)
    except ValueError:
        return b""


def _has(claim: object, value: str) -> bool:
    return claim == value or (isinstance(claim, list) and value in claim)


def _refused(what: str) -> LoginRefused:
    return LoginRefused(what, meaning="Nothing was done", hint="Begin again, or ask an admin")
