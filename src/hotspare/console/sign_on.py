"""Pages of single sign-on: to the provider, back from it, and out of it."""

from typing import TYPE_CHECKING

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from hotspare.api.guard import Server, ServerHere, address_of, origin_of
from hotspare.console import browser
from hotspare.console.entrance import login_page
from hotspare.console.rendering import page, see_other
from hotspare.errors import HotspareError, NotThere

if TYPE_CHECKING:
    from hotspare.access.sign_on import SignOn

_BACK = "/login/sign-on/back"


def begin(request: Request, server: ServerHere) -> Response:
    """Send the browser to the provider."""
    try:
        address, flow = _sign_on(server).begin(origin_of(request, server) + _BACK)
    except HotspareError as error:
        return login_page(request, server, error)
    answer = RedirectResponse(address, 303)
    browser.keep_flow(answer, flow)
    return answer


def come_back(request: Request, server: ServerHere) -> Response:
    """Log in who comes from the provider."""
    flow = request.cookies.get(browser.FLOW, "")
    came = {name: request.query_params[name] for name in request.query_params}
    try:
        _, shown = server.access.log_in_by_sign_on(
            flow, came, origin_of(request, server) + _BACK, address_of(request)
        )
    except HotspareError as error:
        answer = login_page(request, server, error)
    else:
        # Not a redirection: what another site began comes without the cookie of the login (SameSite=Strict).
        answer = page(request, "signed-on.html", title="You are logged in")
        browser.log_in(answer, shown)
    browser.forget_flow(answer)
    return answer


def end(request: Request, server: ServerHere) -> Response:
    """Send the browser to the provider to log out there as well."""
    try:
        address = _sign_on(server).provider.end_address(origin_of(request, server) + "/login")
    except HotspareError as error:
        return login_page(request, server, error)
    return RedirectResponse(address, 303) if address else see_other("/login")


def _sign_on(server: Server) -> "SignOn":
    if server.access.sign_on is None:
        raise NotThere(
            "There is no single sign-on here", meaning="Nothing was done", hint="Log in by password"
        )
    return server.access.sign_on
