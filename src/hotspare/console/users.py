"""Who may log in and what they may; and a second person's consent to what destroys."""

from typing import Any

from fastapi import Request
from starlette.responses import Response

from hotspare.access.roles import Role
from hotspare.api import do, people
from hotspare.api.do import SwitchRequest
from hotspare.api.guard import CallerHere, Server, ServerHere
from hotspare.api.people import UserChange, UserRequest
from hotspare.console.document import document_of, waits
from hotspare.console.failures import said_in_form
from hotspare.console.form import Form, FormHere, body_of
from hotspare.console.rendering import page, see_other
from hotspare.console.settings import grant_in, tabs_for
from hotspare.errors import HotspareError, UsageError


def show_users(request: Request, server: ServerHere, caller: CallerHere) -> Response:
    """Show the users."""
    return _users(request, server, caller)


def add_user(request: Request, server: ServerHere, caller: CallerHere, form: FormHere) -> Response:
    """Make a user."""
    try:
        body = body_of(
            UserRequest,
            name=form.text("name"),
            password=form.secret("password") or None,
            grants=[grant_in(form)],
        )
        people.add_user(body, request, server)
    except HotspareError as error:
        return _users(request, server, caller, error=error)
    return see_other("/settings/users", "user-made")


def change_user(
    request: Request, user: str, server: ServerHere, caller: CallerHere, form: FormHere
) -> Response:
    """Change one thing of a user: as the form says which."""
    try:
        people.change_user(user, _change_in(form), request, server)
    except HotspareError as error:
        return _users(request, server, caller, error=error)
    return see_other("/settings/users", "user-changed")


def _change_in(form: Form) -> UserChange:
    match form.text("do"):
        case "role":
            return body_of(UserChange, grants=[grant_in(form)])
        case "password":
            return body_of(UserChange, password=form.secret("password"))
        case "totp":
            return body_of(UserChange, remove_totp=True)
        case "passkeys":
            return body_of(UserChange, remove_passkeys=True)
        case "disable" | "enable" as word:
            return body_of(UserChange, disabled=word == "disable")
    raise UsageError("The form does not say what is to change", meaning="Nothing was changed")


def remove_user(request: Request, user: str, server: ServerHere, caller: CallerHere) -> Response:
    """Remove a user."""
    try:
        people.remove_user(user, server)
    except HotspareError as error:
        return _users(request, server, caller, error=error)
    return see_other("/settings/users", "user-removed")


def show_approvals(request: Request, server: ServerHere, caller: CallerHere) -> Response:
    """Show what waits for a second person, or did."""
    return _approvals(request, server, caller)


def approve(request: Request, approval: str, server: ServerHere, caller: CallerHere) -> Response:
    """Agree to what another admin has asked for."""
    try:
        do.approve(approval, request, server, caller)
    except HotspareError as error:
        return _approvals(request, server, caller, error=error)
    return see_other("/settings/approvals", "approved")


def reject(request: Request, approval: str, server: ServerHere, caller: CallerHere) -> Response:
    """Do not agree."""
    try:
        do.reject(approval, request, server, caller)
    except HotspareError as error:
        return _approvals(request, server, caller, error=error)
    return see_other("/settings/approvals", "rejected")


def switch_second_person(
    request: Request, server: ServerHere, caller: CallerHere, form: FormHere
) -> Response:
    """Ask for a second person from now on; or no longer, which takes one."""
    on = form.flag("on")
    try:
        answer = do.switch_second_person(SwitchRequest(on=on), request, server, caller)
    except HotspareError as error:
        return _approvals(request, server, caller, error=error)
    said = "waits" if waits(answer) else "second-person-on" if on else "second-person-off"
    return see_other("/settings/approvals", said)


def _users(
    request: Request, server: Server, caller: CallerHere, *, error: HotspareError | None = None
) -> Response:
    given: dict[str, Any] = {
        "title": "Users",
        "tabs": tabs_for(caller),
        "users": document_of(people.list_users(server))["users"],
        "roles": list(Role),
    }
    if error is not None:
        return said_in_form(request, "users.html", error, **given)
    return page(request, "users.html", error=None, **given)


def _approvals(
    request: Request, server: Server, caller: CallerHere, *, error: HotspareError | None = None
) -> Response:
    given: dict[str, Any] = {
        "title": "Second person",
        "tabs": tabs_for(caller),
        "approvals": document_of(do.list_approvals(server))["approvals"],
        "needed": server.access.approvals.needed,
    }
    if error is not None:
        return said_in_form(request, "approvals.html", error, **given)
    return page(request, "approvals.html", error=None, **given)
