"""Pages of who is not logged in yet, and of who goes: first run, login, logout; and how pages look."""

from typing import Any

from fastapi import Request
from starlette.responses import Response

from hotspare.api import passkeys, people
from hotspare.api.guard import CallerHere, Server, ServerHere
from hotspare.api.passkeys import PasskeyLoginRequest
from hotspare.api.people import LoginRequest, SetupRequest
from hotspare.console import browser
from hotspare.console.document import document_of
from hotspare.console.failures import said_in_form
from hotspare.console.form import Form, FormHere, body_of
from hotspare.console.rendering import THEME, THEMES, page, see_other
from hotspare.errors import HotspareError, UsageError


def show_first_run(request: Request, server: ServerHere) -> Response:
    """Ask for the first user."""
    if server.access.setup_code is None:
        return see_other("/login")
    return page(request, "first-run.html", title="Welcome to Hotspare", error=None, name="")


def first_run(request: Request, server: ServerHere, form: FormHere) -> Response:
    """Make the first user, and log that user in."""
    name, password = form.text("name"), form.secret("password")
    try:
        if password != form.secret("again"):
            raise UsageError("The two passwords are not the same", meaning="Nothing was done")
        body = body_of(SetupRequest, code=form.text("code"), name=name, password=password)
        people.set_up(body, request, server)
    except HotspareError as error:
        return said_in_form(request, "first-run.html", error, title="Welcome to Hotspare", name=name)
    return _logged_in(request, server, form, "/")


def show_login(request: Request, server: ServerHere, next: str = "/") -> Response:  # noqa: A002 - in the address
    """Ask who somebody is."""
    if server.access.setup_code is not None:
        return see_other("/first-run")
    return login_page(request, server, next_=_place_here(next))


def login_page(
    request: Request, server: Server, error: HotspareError | None = None, *, name: str = "", next_: str = "/"
) -> Response:
    """Ask who somebody is, after an attempt that failed as well."""
    sign_on = server.access.sign_on
    provider = sign_on.provider.said.name if sign_on else None
    given: dict[str, Any] = {"title": "Log in", "name": name, "next": next_, "provider": provider}
    if error is not None:
        return said_in_form(request, "login.html", error, **given)
    return page(request, "login.html", error=None, **given)


def log_in(request: Request, server: ServerHere, form: FormHere) -> Response:
    """Log in."""
    next_ = _place_here(form.text("next", "/"))
    try:
        return _logged_in(request, server, form, next_)
    except HotspareError as error:
        return login_page(request, server, error, name=form.text("name"), next_=next_)


def _logged_in(request: Request, server: Server, form: Form, next_: str) -> Response:
    body = body_of(
        LoginRequest, name=form.text("name"), password=form.secret("password"), code=form.optional("code")
    )
    document = document_of(people.log_in(body, request, server))
    answer = see_other(next_)
    browser.log_in(answer, document["token"])
    return answer


def begin_passkey(request: Request, server: ServerHere) -> Response:
    """Give what the browser needs to have a passkey sign."""
    return passkeys.begin_passkey_login(request, server)


def log_in_with_passkey(request: Request, server: ServerHere, form: FormHere) -> Response:
    """Log in with a passkey."""
    next_ = _place_here(form.text("next", "/"))
    try:
        body = body_of(PasskeyLoginRequest, credential=form.document("credential"))
        shown = document_of(passkeys.log_in_with_passkey(body, request, server))["token"]
    except HotspareError as error:
        return login_page(request, server, error, next_=next_)
    answer = see_other(next_)
    browser.log_in(answer, shown)
    return answer


def log_out(server: ServerHere, caller: CallerHere) -> Response:
    """End the login."""
    people.log_out(server, caller)
    answer = see_other("/login", "logged-out")
    browser.log_out(answer)
    return answer


def choose_theme(form: FormHere) -> Response:
    """Have pages look light, dark, or as the system does."""
    answer = see_other(_place_here(form.text("next", "/")))
    theme = form.text("theme")
    answer.set_cookie(
        THEME,
        theme if theme in THEMES else "system",
        max_age=365 * 86400,
        path="/",
        secure=True,
        httponly=True,
        samesite="strict",
    )
    return answer


def _place_here(address: str) -> str:
    """Give an address back if it is one of this server, else the overview."""
    # A browser takes "\" for "/", and "//host" for another host.
    is_here = address.startswith("/") and address[1:2] not in {"/", "\\"} and address.isprintable()
    return address if is_here else "/"
