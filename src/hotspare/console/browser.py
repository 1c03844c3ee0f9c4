"""What a browser shows to be believed: the cookie of a login, and that a form is one of ours.

The cookie's value is a login's token, as ``POST /api/v1/login`` gives it; the API does not take it from a
cookie, and pages do not take it from elsewhere. A form is ours when the browser says that it comes from us
(``Sec-Fetch-Site``, else ``Origin``: https://www.w3.org/TR/fetch-metadata/) *and* it holds a text that only
who has the cookie can know.
"""

import hashlib
import hmac
import secrets
from contextlib import suppress
from urllib.parse import urlsplit

from fastapi import Request
from starlette.responses import Response

from hotspare.access.tokens import LOGIN_LASTS, Caller
from hotspare.api.guard import Server
from hotspare.console.form import form_in
from hotspare.errors import HotspareError, LoginRefused, NotPermitted

LOGIN = "__Host-hotspare"
VISITOR = "__Host-hotspare-visitor"
"""Of who is not logged in: something random, for the forms of that."""
FLOW = "__Host-hotspare-sign-on"
"""Of who is on the way to the provider of single sign-on and back."""
FORGERY = "forgery"
"""Name of the field of a form."""
FORGERY_HEADER = "X-Hotspare-Forgery"
_SAFE = {"GET", "HEAD"}


def who_browses(server: Server, request: Request) -> Caller:
    """Tell who asks by the cookie. Raises ``LoginRefused``."""
    shown = request.cookies.get(LOGIN)
    if not shown:
        raise LoginRefused("This needs a login", meaning="Nothing was done", hint="Log in")
    caller = server.access.tokens.caller(shown)
    if caller.token.kind != "login":
        raise LoginRefused("An API token is no login", meaning="Nothing was done", hint="Log in")
    return caller


def recognize(request: Request) -> None:
    """Note who asks for a page that has no guard, if that is somebody: there is none of that address."""
    with suppress(HotspareError):
        request.state.caller = who_browses(request.app.state.server, request)


def log_in(answer: Response, shown: str) -> None:
    """Have the browser keep a login."""
    _keep(answer, LOGIN, shown, int(LOGIN_LASTS.total_seconds()))


def log_out(answer: Response) -> None:
    """Have the browser forget it."""
    answer.delete_cookie(LOGIN, path="/", secure=True, httponly=True, samesite="strict")


def keep_flow(answer: Response, flow: str) -> None:
    """Have the browser keep what it has to know when it comes back from the provider.

    Lax, as it is the provider's page that sends it back.
    """
    answer.set_cookie(FLOW, flow, max_age=600, path="/", secure=True, httponly=True, samesite="lax")


def forget_flow(answer: Response) -> None:
    """Have the browser forget it."""
    answer.delete_cookie(FLOW, path="/", secure=True, httponly=True, samesite="lax")


def proof_for(request: Request) -> str:
    """Give what forms have to hold that are shown to this browser."""
    known = request.cookies.get(LOGIN) or request.cookies.get(VISITOR)
    if not known:
        known = getattr(request.state, "visitor", None) or secrets.token_urlsafe(24)
        request.state.visitor = known
    return _proof(known)


def remember_visitor(request: Request, answer: Response) -> None:
    """Have the browser keep what ``proof_for`` made up for it."""
    if visitor := getattr(request.state, "visitor", None):
        _keep(answer, VISITOR, visitor, 3600)


async def refuse_forged(request: Request) -> None:
    """Raise ``NotPermitted`` for a change that none of our pages asks for."""
    if request.method in _SAFE:
        return
    known = request.cookies.get(LOGIN) or request.cookies.get(VISITOR) or ""
    given = request.headers.get(FORGERY_HEADER) or (await form_in(request)).text(FORGERY)
    right = bool(known) and hmac.compare_digest(_proof(known), given)
    if not (_is_from_us(request) and right):
        raise NotPermitted(
            "This request does not come from a page of this console, or the page is too old",
            meaning="Nothing was done",
            hint="Load the page again; cookies have to be permitted",
        )


def _is_from_us(request: Request) -> bool:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("Host")


def _proof(known: str) -> str:
    return hmac.new(known.encode(), b"forms of the console", hashlib.sha256).hexdigest()


def _keep(answer: Response, name: str, value: str, seconds: int) -> None:
    answer.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="strict")
