"""One's own account: password, authenticator app, logins and API tokens."""

from typing import Any

import msgspec
from fastapi import Request
from markupsafe import Markup
from starlette.responses import Response

from hotspare.access.roles import Permission, Role
from hotspare.api import passkeys, people
from hotspare.api.guard import CallerHere, Server, ServerHere
from hotspare.api.passkeys import PasskeyRequest, ProofRequest
from hotspare.api.people import CodeRequest, GrantRequest, PasswordRequest, TokenRequest, TotpRequest
from hotspare.console import browser
from hotspare.console.document import document_of
from hotspare.console.failures import said_in_form
from hotspare.console.form import Form, FormHere, body_of
from hotspare.console.rendering import page, see_other
from hotspare.errors import HotspareError, LoginRefused, UsageError


def show_account(request: Request, server: ServerHere, caller: CallerHere) -> Response:
    """Show one's own account."""
    return page(request, "account.html", **_account(server, caller), error=None)


def change_password(request: Request, server: ServerHere, caller: CallerHere, form: FormHere) -> Response:
    """Change one's own password, which ends all logins."""
    try:
        if form.secret("new") != form.secret("again"):
            raise UsageError("The two new passwords are not the same", meaning="Nothing was changed")
        body = body_of(
            PasswordRequest,
            current=form.secret("current"),
            new=form.secret("new"),
            code=form.optional("code"),
        )
        people.change_password(body, server, caller)
    except HotspareError as error:
        return said_in_form(request, "account.html", error, **_account(server, caller))
    answer = see_other("/login", "password-changed")
    browser.log_out(answer)
    return answer


def begin_totp(request: Request, server: ServerHere, caller: CallerHere, form: FormHere) -> Response:
    """Show the secret of an authenticator app, to be taken up by it."""
    try:
        body = body_of(TotpRequest, password=form.secret("password"), code=form.optional("code"))
        made = document_of(people.begin_totp(body, server, caller))
    except HotspareError as error:
        return said_in_form(request, "account.html", error, **_account(server, caller))
    import segno  # noqa: PLC0415 - for this page alone

    drawn = segno.make(made["uri"], error="m").svg_inline(scale=5, border=2, svgclass=None, lineclass=None)
    return page(
        request,
        "totp.html",
        title="Set up your authenticator app",
        secret=made["secret"],
        uri=made["uri"],
        qr=Markup(drawn),  # noqa: S704 - a drawing by segno, of squares
        error=None,
    )


def confirm_totp(request: Request, server: ServerHere, caller: CallerHere, form: FormHere) -> Response:
    """Ask for codes at each login from now on."""
    try:
        people.confirm_totp(body_of(CodeRequest, code=form.text("code")), server, caller)
    except HotspareError as error:
        return said_in_form(request, "account.html", error, **_account(server, caller))
    return see_other("/settings", "totp-on")


def remove_totp(request: Request, server: ServerHere, caller: CallerHere, form: FormHere) -> Response:
    """Ask for no codes any more."""
    try:
        body = body_of(TotpRequest, password=form.secret("password"), code=form.optional("code"))
        people.remove_totp(body, server, caller)
    except HotspareError as error:
        return said_in_form(request, "account.html", error, **_account(server, caller))
    return see_other("/settings", "totp-off")


def begin_passkey(request: Request, server: ServerHere, caller: CallerHere, form: FormHere) -> Response:
    """Show the page on which the browser makes a passkey."""
    try:
        begun = document_of(passkeys.begin_passkey(_proof_in(form), request, server, caller))
    except HotspareError as error:
        return said_in_form(request, "account.html", error, **_account(server, caller))
    options = msgspec.json.encode(begun["options"]).decode()
    return page(request, "passkey.html", title="Make a passkey", options=options)


def add_passkey(request: Request, server: ServerHere, caller: CallerHere, form: FormHere) -> Response:
    """Take the passkey that the browser has made."""
    try:
        body = body_of(PasskeyRequest, name=form.text("name"), credential=form.document("credential"))
        passkeys.add_passkey(body, request, server, caller)
    except HotspareError as error:
        return said_in_form(request, "account.html", error, **_account(server, caller))
    return see_other("/settings", "passkey-made")


def remove_passkey(
    request: Request, passkey: str, server: ServerHere, caller: CallerHere, form: FormHere
) -> Response:
    """Have a passkey let nobody in any more."""
    try:
        passkeys.remove_passkey(passkey, _proof_in(form), request, server, caller)
    except LoginRefused as error:
        return said_in_form(request, "account.html", error, **_account(server, caller))
    return see_other("/settings", "passkey-removed")


def _proof_in(form: Form) -> ProofRequest:
    return body_of(ProofRequest, password=form.secret("password"), code=form.optional("code"))


def show_tokens(request: Request, server: ServerHere, caller: CallerHere) -> Response:
    """Show API tokens: one's own, as an admin everybody's."""
    return _tokens(request, server, caller)


def add_token(request: Request, server: ServerHere, caller: CallerHere, form: FormHere) -> Response:
    """Make an API token, and show it this once."""
    try:
        narrowed = form.optional("role")
        body = body_of(
            TokenRequest,
            name=form.text("name"),
            grants=[grant_in(form)] if narrowed else None,
            days=form.number("days") or None,
        )
        made = document_of(people.add_token(body, request, server, caller))
    except HotspareError as error:
        return _tokens(request, server, caller, error=error)
    return _tokens(request, server, caller, shown=made["shown"])


def revoke_token(token: str, server: ServerHere, caller: CallerHere) -> Response:
    """Have a token or login believed no longer."""
    people.revoke_token(token, server, caller)
    return see_other("/settings" if token == caller.token.id else "/settings/tokens", "token-revoked")


def grant_in(form: Form) -> GrantRequest:
    """Give the role that a form names, with its scope. Raises ``UsageError``."""
    scope = {name: form.text(name) or "*" for name in ("repository", "platform", "tag")}
    return body_of(GrantRequest, role=form.text("role"), **scope)


def tabs_for(caller: CallerHere) -> list[tuple[str, str]]:
    """Give the parts of the settings that somebody may see."""
    tabs = [("/settings", "Account"), ("/settings/tokens", "API tokens")]
    if caller.user.is_admin:
        tabs += [("/settings/users", "Users"), ("/settings/approvals", "Second person")]
    return tabs


def _account(server: Server, caller: CallerHere) -> dict[str, Any]:
    tokens = document_of(people.list_tokens(server, caller))["tokens"]
    logins = [one for one in tokens if one["kind"] == "login" and one["user"] == caller.user.name]
    return {
        "title": "Settings",
        "tabs": tabs_for(caller),
        "me": document_of(people.show_me(caller))["user"],
        "logins": logins,
        "passkeys": document_of(passkeys.list_passkeys(server, caller))["passkeys"],
        "own": caller.token.id,
    }


def _tokens(
    request: Request,
    server: Server,
    caller: CallerHere,
    *,
    error: HotspareError | None = None,
    shown: str | None = None,
) -> Response:
    tokens = document_of(people.list_tokens(server, caller))["tokens"]
    given: dict[str, Any] = {
        "title": "API tokens",
        "tabs": tabs_for(caller),
        "tokens": [one for one in tokens if one["kind"] == "token"],
        "roles": list(Role),
        "shown": shown,
        "sees_all": caller.may_somewhere(Permission.ADMINISTER),
    }
    if error is not None:
        return said_in_form(request, "tokens.html", error, **given)
    return page(request, "tokens.html", error=None, **given)
