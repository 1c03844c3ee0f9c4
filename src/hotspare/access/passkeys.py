"""Passkeys: key pairs that a user's device or security key holds, by Web Authentication.

Section numbers are those of Web Authentication Level 3 (https://www.w3.org/TR/webauthn-3/). What a browser
sends is checked by the library ``webauthn``; here it is said what is asked for, and what is kept.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from webauthn import (
    base64url_to_bytes,
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import bytes_to_base64url
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from hotspare.access.challenges import LASTS, Challenges
from hotspare.access.database import AccessDatabase
from hotspare.access.users import User, Users
from hotspare.errors import LoginRefused, PasskeyNotFound, UsageError

PASSKEYS_MAX = 20
"""Of one user."""
_LOG_IN = "log in"
_LENGTH_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """The server as browsers and authenticators know it."""

    id: str
    """Its host's name, without the port; no IP address (5.1.2, "RP ID")."""
    origin: str
    """``https://backup-host:8460``."""


@dataclass(frozen=True, slots=True)
class Passkey:
    """A passkey as it is kept; the private key is not here and never was."""

    id: str
    """Credential ID in base64url."""
    user: str
    name: str
    created_at: str
    used_at: str | None


class Passkeys:
    """All passkeys."""

    def __init__(self, database: AccessDatabase, users: Users, challenges: Challenges) -> None:
        self._database = database
        self._users = users
        self._challenges = challenges

    def begin_registration(self, user: str, login: str, party: RelyingParty) -> dict[str, Any]:
        """Give what ``navigator.credentials.create`` takes: PublicKeyCredentialCreationOptionsJSON (5.1.9).

        The passkey is to be discoverable, so that nobody has to say a name to log in and nobody learns by a
        name who has one (14.6.2), and its use is to take a PIN or a finger (user verification, 6.2.3).

        Args:
            user: who has just shown the password.
            login: id of the login in which that was; no other can go on.
            party: the server.
        """
        options = generate_registration_options(
            rp_id=party.id,
            rp_name="Hotspare",
            user_id=self._handle(user),
            user_name=user,
            user_display_name=user,
            challenge=self._challenges.new(_registration(user, login)),
            timeout=LASTS * 1000,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                require_resident_key=True,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[
                PublicKeyCredentialDescriptor(id=base64url_to_bytes(one.id)) for one in self.of(user)
            ],
        )
        return _plain(options_to_json(options))

    def register(
        self, user: str, login: str, name: str, credential: dict[str, Any], party: RelyingParty
    ) -> Passkey:
        """Take a new passkey: the steps of 7.1, "Registering a New Credential".

        Args:
            user: whose.
            login: as when it was begun.
            name: by which its owner knows it: "phone".
            credential: RegistrationResponseJSON (5.1.8.1).
            party: the server.

        Raises:
            LoginRefused: the answer is not one to a challenge of this user's, or not as it has to be.
            UsageError: there are too many, or one of that name.
        """
        challenge = _challenge_of(credential)
        self._challenges.spend(challenge, _registration(user, login))
        try:
            verified = verify_registration_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=party.id,
                expected_origin=party.origin,
                require_user_verification=True,
            )
        except (WebAuthnException, ValueError, TypeError, KeyError) as error:
            raise _refused(f"The browser's answer is not as it has to be: {error}") from error
        made = bytes_to_base64url(verified.credential_id)
        with self._database.transaction():
            mine = self.of(user)
            if len(mine) >= PASSKEYS_MAX or name in {one.name for one in mine}:
                raise UsageError(
                    f"{user} has a passkey '{name}', or {PASSKEYS_MAX} of them, already",
                    meaning="Nothing was changed",
                    hint="Give another name, or remove one",
                )
            if self._database.rows("SELECT 1 FROM passkeys WHERE id = ?", made):
                raise _refused("This passkey is known already")  # 7.1, step 26
            self._database.change(
                "INSERT INTO passkeys VALUES (?, ?, ?, ?, ?, ?, NULL)",
                made,
                user,
                name,
                verified.credential_public_key,
                verified.sign_count,
                _now(),
            )
        return self.get(user, made)

    def begin_login(self, party: RelyingParty) -> dict[str, Any]:
        """Give what ``navigator.credentials.get`` takes: PublicKeyCredentialRequestOptionsJSON (5.1.10)."""
        options = generate_authentication_options(
            rp_id=party.id,
            challenge=self._challenges.new(_LOG_IN),
            timeout=LASTS * 1000,
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return _plain(options_to_json(options))

    def check(self, credential: dict[str, Any], party: RelyingParty) -> tuple[User, Passkey]:
        """Tell who that is: the steps of 7.2, "Verifying an Authentication Assertion".

        The user was verified by the authenticator, so that this stands for password and code together. A
        signature counter that did not grow is refused: there may be a copy of the authenticator (6.1.1).

        Args:
            credential: AuthenticationResponseJSON (5.1.8.2).
            party: the server.

        Raises:
            LoginRefused: anything is not as it has to be; it is not told what.
        """
        challenge = _challenge_of(credential)
        self._challenges.spend(challenge, _LOG_IN)
        with self._database.transaction():
            rows = self._database.rows(
                "SELECT passkeys.*, users.handle, users.disabled FROM passkeys"
                " JOIN users ON users.name = passkeys.user WHERE id = ?",
                str(credential.get("id")),
            )
            if not rows or rows[0]["disabled"] or _handle_in(credential) != rows[0]["handle"]:
                raise _refused()
            row = rows[0]
            try:
                verified = verify_authentication_response(
                    credential=credential,
                    expected_challenge=challenge,
                    expected_rp_id=party.id,
                    expected_origin=party.origin,
                    credential_public_key=row["public_key"],
                    credential_current_sign_count=row["sign_count"],
                    require_user_verification=True,
                )
            except (WebAuthnException, ValueError, TypeError, KeyError) as error:
                raise _refused() from error
            self._database.change(
                "UPDATE passkeys SET sign_count = ?, used_at = ? WHERE id = ?",
                verified.new_sign_count,
                _now(),
                row["id"],
            )
        return self._users.get(row["user"]), self.get(row["user"], row["id"])

    def of(self, user: str) -> list[Passkey]:
        """Give those of a user, in the order in which they were made."""
        return [
            Passkey(row["id"], row["user"], row["name"], row["created_at"], row["used_at"])
            for row in self._database.rows(
                "SELECT * FROM passkeys WHERE user = ? ORDER BY created_at, id", user
            )
        ]

    def get(self, user: str, number: str) -> Passkey:
        """Find one of a user's. Raises ``PasskeyNotFound``."""
        found = [one for one in self.of(user) if one.id == number]
        if not found:
            raise PasskeyNotFound(f"{user} has no such passkey", meaning="Nothing was changed")
        return found[0]

    def remove(self, user: str, number: str) -> Passkey:
        """Have one of a user's let nobody in any more. Raises ``PasskeyNotFound``."""
        found = self.get(user, number)
        self._database.change("DELETE FROM passkeys WHERE id = ?", number)
        return found

    def remove_all(self, user: str) -> int:
        """Remove all of a user's; gives how many there were."""
        return self._database.change("DELETE FROM passkeys WHERE user = ?", user)

    def _handle(self, user: str) -> bytes:
        """Give what stands for a user in authenticators: random, and nothing about who that is (14.6.1)."""
        made = secrets.token_urlsafe(48)
        with self._database.transaction():
            self._database.change("UPDATE users SET handle = ? WHERE name = ? AND handle IS NULL", made, user)
            kept: str = self._database.rows("SELECT handle FROM users WHERE name = ?", user)[0]["handle"]
        return base64url_to_bytes(kept)


def _registration(user: str, login: str) -> str:
    return f"register {login} {user}"


def _plain(options: str) -> dict[str, Any]:
    return msgspec.json.decode(options, type=dict[str, Any])


def _challenge_of(credential: dict[str, Any]) -> bytes:
    """Give the challenge that a browser says it answers to; that it is signed is for the library to check."""
    try:
        data = credential["response"]["clientDataJSON"]
        if len(data) > _LENGTH_MAX:
            raise _refused("The browser's answer is too long")
        return base64url_to_bytes(msgspec.json.decode(base64url_to_bytes(data))["challenge"])
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _refused("The browser's answer is not as it has to be") from error


def _handle_in(credential: dict[str, Any]) -> str | None:
    # A discoverable passkey says whose it is, and has to (7.2, step 6).
    handle = credential["response"].get("userHandle")
    return handle.rstrip("=") if isinstance(handle, str) else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _refused(what: str = "This passkey is not known, or not believed") -> LoginRefused:
    return LoginRefused(
        what,
        meaning="Nothing was done",
        hint="Take another passkey, or log in with name and password",
    )
