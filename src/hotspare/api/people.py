"""Routes of users, logins and tokens."""

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from hotspare.access.passwords import LENGTH_MIN
from hotspare.access.roles import ANY, EVERYTHING, Grant, Permission, Role
from hotspare.access.tokens import Token
from hotspare.access.users import User
from hotspare.api.answers import answer
from hotspare.api.guard import CallerHere, ServerHere, address_of
from hotspare.api.inside import Strict
from hotspare.errors import LoginRefused, TokenNotFound


class GrantRequest(Strict):
    """A role within a scope."""

    role: Role
    repository: str = Field(ANY, max_length=500)
    platform: str = Field(ANY, max_length=500)
    tag: str = Field(ANY, max_length=500)


class SetupRequest(Strict):
    """The first user."""

    code: str = Field(max_length=64, description="What the server printed when it was started.")
    name: str = Field(max_length=64)
    password: str = Field(max_length=1024)


class LoginRequest(Strict):
    """Who somebody is."""

    name: str = Field(max_length=64)
    password: str = Field(max_length=1024)
    code: str | None = Field(None, max_length=16, description="Of an authenticator app.")


class UserRequest(Strict):
    """A user to be."""

    name: str = Field(max_length=64)
    password: str | None = Field(
        None, min_length=LENGTH_MIN, max_length=1024, description="None for who comes by single sign-on."
    )
    grants: list[GrantRequest] = Field(max_length=100)


class UserChange(Strict):
    """What is to change of a user."""

    grants: list[GrantRequest] | None = Field(None, max_length=100)
    disabled: bool | None = None
    password: str | None = Field(None, max_length=1024)
    remove_totp: bool = False
    remove_passkeys: bool = False


class PasswordRequest(Strict):
    """A new password."""

    current: str = Field(max_length=1024)
    new: str = Field(max_length=1024)
    code: str | None = Field(None, max_length=16)


class TotpRequest(Strict):
    """Proof of who wants to begin or end with an authenticator app."""

    password: str = Field(max_length=1024)
    code: str | None = Field(None, max_length=16)


class CodeRequest(Strict):
    """A code of an authenticator app."""

    code: str = Field(max_length=16)


class TokenRequest(Strict):
    """A token to be."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.@ -]+$")
    grants: list[GrantRequest] | None = Field(None, max_length=100, description="None for all of one's own.")
    days: int | None = Field(None, ge=1, le=3650, description="For how long; None for ever.")


def set_up(body: SetupRequest, request: Request, server: ServerHere) -> Response:
    """Make the first user, an admin, with the code that the server printed."""
    address = address_of(request)
    user = server.access.setup(body.code, body.name, body.password, address)
    server.access.audit.add(user.name, "set up", user.name, address=address)
    return answer("user", http_status=201, user=_user_fields(user))


def log_in(body: LoginRequest, request: Request, server: ServerHere) -> Response:
    """Log in, for 12 hours."""
    token, shown = server.access.log_in(body.name, body.password, body.code, address_of(request))
    return answer("login", token=shown, expires_at=token.expires_at)


def log_out(server: ServerHere, caller: CallerHere) -> Response:
    """Have the login or token with which this is asked believed no longer."""
    server.access.tokens.revoke(caller.token.id)
    return answer("token-revoked", id=caller.token.id)


def show_me(caller: CallerHere) -> Response:
    """Say who asks, and what that login or token may."""
    return answer("me", user=_user_fields(caller.user), token=_token_fields(caller.token))


def change_password(body: PasswordRequest, server: ServerHere, caller: CallerHere) -> Response:
    """Change one's own password; all logins and tokens of the user end."""
    server.access.users.check(caller.user.name, body.current, body.code)
    user = server.access.users.change(caller.user.name, password=body.new)
    return answer("user", user=_user_fields(user))


def begin_totp(body: TotpRequest, server: ServerHere, caller: CallerHere) -> Response:
    """Begin to use an authenticator app; it counts once a code of it was confirmed."""
    server.access.users.check(caller.user.name, body.password, body.code)
    secret, uri = server.access.users.new_totp(caller.user.name)
    return answer("totp", secret=secret, uri=uri)


def confirm_totp(body: CodeRequest, server: ServerHere, caller: CallerHere) -> Response:
    """Ask for codes of the app at each login from now on."""
    if caller.user.has_totp:
        raise LoginRefused("The authenticator app is confirmed already", meaning="Nothing was done")
    server.access.users.confirm_totp(caller.user.name, body.code)
    return answer("user", user=_user_fields(server.access.users.get(caller.user.name)))


def remove_totp(body: TotpRequest, server: ServerHere, caller: CallerHere) -> Response:
    """Ask for no codes any more."""
    server.access.users.check(caller.user.name, body.password, body.code)
    server.access.users.remove_totp(caller.user.name)
    return answer("user", user=_user_fields(server.access.users.get(caller.user.name)))


def list_users(server: ServerHere) -> Response:
    """List the users."""
    return answer("users", users=[_user_fields(user) for user in server.access.users.all()])


def add_user(body: UserRequest, request: Request, server: ServerHere) -> Response:
    """Make a user."""
    request.state.detail = {"user": body.name, "grants": _plain(body.grants)}
    user = server.access.users.add(body.name, body.password, _grants(body.grants))
    return answer("user", http_status=201, user=_user_fields(user))


def change_user(user: str, body: UserChange, request: Request, server: ServerHere) -> Response:
    """Change a user's roles, password or whether that user may log in."""
    grants = None if body.grants is None else _grants(body.grants)
    request.state.detail = {
        "grants": None if body.grants is None else _plain(body.grants),
        "disabled": body.disabled,
        "password": body.password is not None,
        "remove_totp": body.remove_totp,
        "remove_passkeys": body.remove_passkeys,
    }
    changed = server.access.users.change(user, grants=grants, disabled=body.disabled, password=body.password)
    if body.remove_totp:
        server.access.users.remove_totp(user)
        changed = server.access.users.get(user)
    if body.remove_passkeys:
        server.access.passkeys.remove_all(user)
    return answer("user", user=_user_fields(changed))


def remove_user(user: str, server: ServerHere) -> Response:
    """Remove a user, with all logins and tokens."""
    server.access.users.remove(user)
    return answer("user-removed", name=user)


def list_tokens(server: ServerHere, caller: CallerHere) -> Response:
    """List one's own tokens and logins, as an admin everybody's."""
    tokens = [token for token in server.access.tokens.all() if _is_for(caller, token)]
    return answer("tokens", tokens=[_token_fields(token) for token in tokens])


def add_token(body: TokenRequest, request: Request, server: ServerHere, caller: CallerHere) -> Response:
    """Make a token for oneself; what it is shown by is in the answer, and never again."""
    grants = None if body.grants is None else tuple(_grants(body.grants))
    request.state.detail = {"token": body.name, "grants": body.grants and _plain(body.grants)}
    token, shown = server.access.issue_token(caller.user.name, body.name, grants, body.days)
    return answer("token", http_status=201, token=_token_fields(token), shown=shown)


def revoke_token(token: str, server: ServerHere, caller: CallerHere) -> Response:
    """Have a token or login believed no longer: one's own, as an admin anybody's."""
    found = server.access.tokens.get(token)
    if not _is_for(caller, found):
        raise TokenNotFound(f"There is no token '{token}'", meaning="Nothing was changed")
    server.access.tokens.revoke(token)
    return answer("token-revoked", id=token)


def _is_for(caller: CallerHere, token: Token) -> bool:
    return token.user == caller.user.name or caller.may(Permission.ADMINISTER, EVERYTHING)


def _grants(requests: Sequence[GrantRequest]) -> list[Grant]:
    return [msgspec.convert(one, Grant) for one in _plain(requests)]


def _plain(requests: Sequence[GrantRequest]) -> list[dict[str, Any]]:
    return [one.model_dump(mode="json") for one in requests]


def _user_fields(user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "grants": msgspec.to_builtins(user.grants),
        "totp": user.has_totp,
        "password": user.has_password,
        "disabled": user.disabled,
        "created_at": user.created_at,
    }


def _token_fields(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "user": token.user,
        "kind": token.kind,
        "name": token.name,
        "grants": None if token.grants is None else msgspec.to_builtins(token.grants),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
    }
