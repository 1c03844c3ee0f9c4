"""Routes of passkeys: to log in with one, and to have one's own made and removed."""

import ipaddress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from hotspare.api.answers import answer
from hotspare.api.guard import CallerHere, Server, ServerHere, address_of, origin_of
from hotspare.api.inside import Strict
from hotspare.api.people import TotpRequest
from hotspare.errors import UsageError

if TYPE_CHECKING:
    from hotspare.access.passkeys import Passkey, RelyingParty


class ProofRequest(TotpRequest):
    """Proof of who wants to have a passkey made or removed."""


class PasskeyRequest(Strict):
    """A passkey that a browser has made."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.@ -]+$")
    credential: dict[str, Any] = Field(description="RegistrationResponseJSON of Web Authentication.")


class PasskeyLoginRequest(Strict):
    """What a browser had signed with a passkey."""

    credential: dict[str, Any] = Field(description="AuthenticationResponseJSON of Web Authentication.")


def begin_passkey_login(request: Request, server: ServerHere) -> Response:
    """Give what a browser needs to have a passkey sign: it holds for five minutes, once."""
    return answer("passkey-options", options=server.access.passkeys.begin_login(party_of(request, server)))


def log_in_with_passkey(body: PasskeyLoginRequest, request: Request, server: ServerHere) -> Response:
    """Log in with a passkey, for 12 hours."""
    token, shown = server.access.log_in_with_passkey(
        body.credential, party_of(request, server), address_of(request)
    )
    return answer("login", token=shown, expires_at=token.expires_at)


def list_passkeys(server: ServerHere, caller: CallerHere) -> Response:
    """List one's own passkeys."""
    return answer("passkeys", passkeys=[_fields(one) for one in server.access.passkeys.of(caller.user.name)])


def begin_passkey(body: ProofRequest, request: Request, server: ServerHere, caller: CallerHere) -> Response:
    """Give what a browser needs to have a passkey made: it holds for five minutes, once, in this login."""
    party = party_of(request, server)
    server.access.confirm(caller.user.name, body.password, body.code, address_of(request))
    options = server.access.passkeys.begin_registration(caller.user.name, caller.token.id, party)
    return answer("passkey-options", options=options)


def add_passkey(body: PasskeyRequest, request: Request, server: ServerHere, caller: CallerHere) -> Response:
    """Take a passkey that a browser has made."""
    request.state.detail = {"passkey": body.name}
    made = server.access.passkeys.register(
        caller.user.name, caller.token.id, body.name, body.credential, party_of(request, server)
    )
    return answer("passkey", http_status=201, passkey=_fields(made))


def remove_passkey(
    passkey: str, body: ProofRequest, request: Request, server: ServerHere, caller: CallerHere
) -> Response:
    """Have one of one's own passkeys let nobody in any more."""
    server.access.confirm(caller.user.name, body.password, body.code, address_of(request))
    removed = server.access.passkeys.remove(caller.user.name, passkey)
    request.state.detail = {"passkey": removed.name}
    return answer("passkey-removed", id=removed.id, name=removed.name)


def party_of(request: Request, server: Server) -> "RelyingParty":
    """Give the server as the browser that asks knows it.

    Raises ``UsageError`` where there can be no passkeys.

    A browser that takes another server for this one gives itself away: it has the name that it shows signed,
    and makes and offers passkeys for that name only (Web Authentication Level 3, 13.4.9, "Validating the
    origin of a credential").
    """
    origin = origin_of(request, server)
    host = urlsplit(origin).hostname or ""
    if _is_address(host):
        raise UsageError(
            f"Passkeys belong to a name, and {host} is an address",
            meaning="Nothing was done",
            hint="Open the server by its name, or as localhost on its own host",
        )
    from hotspare.access.passkeys import RelyingParty  # noqa: PLC0415 - its libraries take long to import

    return RelyingParty(host, origin)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return not host
    return True


def _fields(passkey: "Passkey") -> dict[str, Any]:
    return {
        "id": passkey.id,
        "name": passkey.name,
        "created_at": passkey.created_at,
        "used_at": passkey.used_at,
    }
