"""What stands before every page: the guard of the HTTP interface, by cookie, and one against forgery."""

from urllib.parse import quote

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import RedirectResponse, Response

from hotspare.api.guard import Handle, Rule, guarded_by
from hotspare.console.browser import refuse_forged, who_browses
from hotspare.console.failures import failure, malformed, mistake
from hotspare.errors import HotspareError, LoginRefused


class _UnforgedRoute(APIRoute):
    """Refuses what comes from no page of ours. Behind the guard, so that a refusal is recorded."""

    def get_route_handler(self) -> Handle:
        handle = super().get_route_handler()

        async def unforged(request: Request) -> Response:
            await refuse_forged(request)
            return await handle(request)

        return unforged


def paged_by(rule: Rule) -> type[APIRoute]:
    """Make the class of the pages that a rule holds for; what goes wrong on them is shown as a page."""

    class PageRoute(guarded_by(rule, who_browses, _UnforgedRoute)):  # type: ignore[misc]
        def get_route_handler(self) -> Handle:
            handle = super().get_route_handler()

            async def explained(request: Request) -> Response:
                try:
                    answer: Response = await handle(request)
                except LoginRefused as error:
                    if rule.public or hasattr(request.state, "caller"):
                        return failure(request, error)
                    return _to_login(request)
                except HotspareError as error:
                    return failure(request, error)
                except RequestValidationError:
                    return malformed(request)
                except Exception as error:  # noqa: BLE001 - a mistake of ours: said on a page, and in the log
                    return mistake(request, error)
                return answer

            return explained

    return PageRoute


def _to_login(request: Request) -> Response:
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    # Who posted a form has to fill it in again: it cannot be asked for by an address.
    next_ = f"?next={quote(here, safe='')}" if request.method == "GET" and here != "/" else ""
    if request.headers.get("HX-Request"):
        # A part of a page was wanted: the whole page has to go to the login.
        return Response(status_code=204, headers={"HX-Redirect": "/login"})
    return RedirectResponse(f"/login{next_}", 303)
