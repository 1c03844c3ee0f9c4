"""Adding the console to the application: every page of the table behind its guard, assets, headers."""

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hotspare.api.problems import of_http
from hotspare.console.browser import recognize
from hotspare.console.failures import not_there
from hotspare.console.figures import Figures
from hotspare.console.guard import paged_by
from hotspare.console.headers import SecurityHeaders
from hotspare.console.pages import PAGES, Page

ASSETS = Path(__file__).parent / "static"


def add_console(app: FastAPI) -> None:
    """Add all pages to an application that ``make_app`` made."""
    app.state.figures = Figures(app.state.server)
    for page in PAGES:
        _add(app, page)
    app.mount("/static", _Assets(directory=ASSETS), name="static")
    app.add_middleware(SecurityHeaders)

    @app.exception_handler(HTTPException)
    async def of_pages_too(request: Request, error: HTTPException) -> Response:
        wants_page = "text/html" in request.headers.get("Accept", "")
        if request.url.path.startswith("/api/") or not wants_page:
            return of_http(error)
        await run_in_threadpool(recognize, request)
        return not_there(request, error)


def pages_of(app: FastAPI) -> list[APIRoute]:
    """Give all pages of an application."""
    return [route for route in app.routes if isinstance(route, APIRoute) and not route.include_in_schema]


def _add(app: FastAPI, page: Page) -> None:
    app.router.add_api_route(
        page.path,
        page.handler,
        methods=[page.method],
        name=f"{page.handler.__module__}.{page.handler.__name__}",
        response_class=Response,
        response_model=None,
        include_in_schema=False,
        route_class_override=paged_by(page.rule),
    )


class _Assets(StaticFiles):
    """Files that never change under one address: each page asks for them with their version."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_kept(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                kept = (b"cache-control", b"public, max-age=31536000, immutable")
                message["headers"] = [*message["headers"], kept]
            await send(message)

        served: ASGIApp = super().__call__
        await served(scope, receive, send_kept)
