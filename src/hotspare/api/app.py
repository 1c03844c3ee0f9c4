"""The application: every route of the table behind its guard, and nothing else."""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.responses import Response

from hotspare import __version__
from hotspare.access.access import Access
from hotspare.api.actions import Actions
from hotspare.api.estate import Estate
from hotspare.api.guard import Rule, Server, guarded_by
from hotspare.api.problems import MEDIA_TYPE, explain_errors
from hotspare.api.repeats import HEADER, Repeats
from hotspare.api.routes import METRICS, PREFIX, ROUTES, Route
from hotspare.api.watching import Watching

_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "meaning", "hint"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened."},
        "code": {"type": "string", "description": "As in docs/exit-codes.md."},
        "meaning": {"type": "string", "description": "What it means for the data."},
        "hint": {"type": "string", "description": "What to do next."},
    },
}


def make_app(estate: Estate, access: Access, actions: Actions) -> FastAPI:
    """Make the application. What it is given stays open until whoever made it closes it."""
    app = FastAPI(
        title="Hotspare",
        version=__version__,
        description="Back up virtual machines while they run, and get them back.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # both load scripts from other hosts
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.server = Server(estate, access, actions, Repeats(access.database), Watching(estate, actions))
    explain_errors(app)
    for route in ROUTES:
        _add(app, PREFIX, route)
    _add(app, "", METRICS)
    _describe(app)
    return app


def _add(app: FastAPI, prefix: str, route: Route) -> None:
    app.router.add_api_route(
        prefix + route.path,
        route.handler,
        methods=[route.method],
        name=route.handler.__name__,
        operation_id=route.handler.__name__,
        response_class=Response,
        response_model=None,
        status_code=route.statuses[0],
        responses=_responses(route),
        route_class_override=guarded_by(route.rule),
        tags=[route.path.split("/")[1]],
        openapi_extra=_extra(route),
    )


def _responses(route: Route) -> dict[int | str, dict[str, Any]]:
    problem = {"description": "Problem details (RFC 9457)", "content": {MEDIA_TYPE: {"schema": _PROBLEM}}}
    if not route.answers:
        text = {"description": "Text", "content": {route.media_type: {"schema": {"type": "string"}}}}
        return {200: text, 422: problem, "default": problem}
    kinds = {"type": {"enum": list(route.answers)}, "v": {"const": 1}}
    schema = {"type": "object", "required": ["type", "v"], "properties": kinds}
    good = {"description": ", ".join(route.answers), "content": {"application/json": {"schema": schema}}}
    return {**dict.fromkeys(route.statuses, good), 422: problem, "default": problem}


def _extra(route: Route) -> dict[str, Any]:
    extra: dict[str, Any] = {"x-hotspare-who": _who(route.rule)}
    if not route.rule.public:
        extra["security"] = [{"token": []}]
    if route.method in {"POST", "DELETE"} and not (route.rule.secret or route.rule.public):
        name = {"type": "string", "maxLength": 200}
        words = "The same key twice: done once, answered alike."
        extra["parameters"] = [{"name": HEADER, "in": "header", "schema": name, "description": words}]
    return extra


def _who(rule: Rule) -> str:
    if rule.public:
        return "everybody"
    who = f"permission to {rule.permission}" if rule.permission else "anybody known"
    return who + (", everywhere" if rule.everywhere else "") + (", by login" if rule.by_login else "")


def _describe(app: FastAPI) -> None:
    made = app.openapi

    def with_tokens() -> dict[str, Any]:
        described = made()
        schemes = described.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer", "description": "A login's or an API token."}
        return described

    app.openapi = with_tokens  # type: ignore[method-assign]


def routes_of(app: FastAPI) -> list[APIRoute]:
    """Give all routes of the application that are not the description of itself, nor pages for people."""
    return [route for route in app.routes if isinstance(route, APIRoute) and route.include_in_schema]
