"""Every route is denied to whoever may not, and no route can be forgotten here."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from hotspare.access.roles import Grant, Role
from hotspare.api.app import routes_of
from hotspare.api.guard import Rule
from tests.api.world import World, get

PUBLIC = {
    "GET health",
    "GET ready",
    "POST setup",
    "POST login",
    "POST login/passkey/begin",
    "POST login/passkey",
}
KNOWN = {
    "POST logout",
    "GET me",
    "POST me/password",
    "POST me/totp",
    "POST me/totp/confirm",
    "POST me/totp/remove",
    "GET me/passkeys",
    "POST me/passkeys/begin",
    "POST me/passkeys",
    "POST me/passkeys/{passkey}/remove",
    "GET tokens",
    "POST tokens",
    "DELETE tokens/{token}",
}
VIEWER = KNOWN | {
    "GET machines",
    "GET machines/{name}",
    "GET points",
    "GET points/{point}",
    "GET runs",
    "GET runs/{run}",
    "GET report",
    "GET policies",
    "GET policies/{policy}",
    "GET repositories",
    "GET repositories/{repository}",
    "GET jobs",
    "GET jobs/{job}",
    "GET events",
    "GET actions",
    "GET actions/{action}",
    "POST actions/{action}/cancel",
    "GET metrics",
}
RESTORE_ONLY = VIEWER | {
    "GET points/{point}/files",
    "POST points/{point}/restore-plan",
    "POST points/{point}/restore",
}
OPERATOR = RESTORE_ONLY | {
    "POST backups",
    "POST repositories/{repository}/check",
    "POST jobs",
    "POST jobs/{job}/cancel",
    "POST jobs/{job}/retry",
    "PUT jobs/{job}/priority",
}
ADMIN = OPERATOR | {
    "DELETE points/{point}",
    "POST repositories/{repository}/prune",
    "PUT policies/{policy}",
    "DELETE policies/{policy}",
    "GET audit",
    "GET audit/verify",
    "GET users",
    "POST users",
    "PATCH users/{user}",
    "DELETE users/{user}",
    "GET approvals",
    "POST approvals/{approval}/approve",
    "POST approvals/{approval}/reject",
    "GET settings",
    "PUT settings/second-person",
}
BY_LOGIN = {
    "POST me/password",
    "POST me/totp",
    "POST me/totp/confirm",
    "POST me/totp/remove",
    "POST me/passkeys/begin",
    "POST me/passkeys",
    "POST me/passkeys/{passkey}/remove",
    "POST tokens",
    "DELETE tokens/{token}",
    "POST users",
    "PATCH users/{user}",
    "DELETE users/{user}",
    "POST approvals/{approval}/approve",
    "POST approvals/{approval}/reject",
    "PUT settings/second-person",
}
EVERYWHERE = {
    "GET policies",
    "GET policies/{policy}",
    "PUT policies/{policy}",
    "DELETE policies/{policy}",
    "GET metrics",
    *(ADMIN - OPERATOR - {"DELETE points/{point}", "POST repositories/{repository}/prune"}),
}
"""Of no use to who is restricted to a scope."""
DENIED = {401, 403}


def named(route: APIRoute) -> str:
    (method,) = route.methods or [""]
    return f"{method} {route.path.removeprefix('/api/v1').lstrip('/')}"


def asked(client: TestClient, route: APIRoute) -> int:
    """Ask for something that is not there, so that nothing is done where asking is permitted."""
    (method,) = route.methods or [""]
    path = route.path.format(**dict.fromkeys(route.param_convertors, "7"))
    path += "?seconds=0" if path.endswith("/events") else ""  # it has no end else
    body: Any = {"code": "x"} if method in {"POST", "PATCH", "PUT"} else None
    return client.request(method, path, json=body).status_code


@pytest.fixture(scope="session")
def routes(world: World) -> dict[str, APIRoute]:
    return {named(route): route for route in routes_of(world.app)}


@pytest.fixture
def nothing_is_recorded(world: World) -> Iterator[None]:
    """Hundreds of requests are asked here."""
    with world.unrecorded():
        yield


def test_the_table_here_has_every_route_of_the_application(world: World, routes: dict[str, APIRoute]) -> None:
    assert set(routes) == PUBLIC | ADMIN
    # Beside them there is the description of the interface, and what pages look like (tests/console).
    others = [route for route in world.app.routes if not isinstance(route, APIRoute)]
    assert [getattr(route, "path", "") for route in others] == ["/api/v1/openapi.json", "/static"]


def test_every_route_has_a_guard(routes: dict[str, APIRoute]) -> None:
    assert all(isinstance(getattr(type(route), "rule", None), Rule) for route in routes.values())


@pytest.mark.usefixtures("nothing_is_recorded")
@pytest.mark.parametrize("shown", [None, "hotspare_000000000000_made-up", "nonsense"])
def test_nobody_gets_past_the_login(world: World, routes: dict[str, APIRoute], shown: str | None) -> None:
    client = world.client(None, shown=shown)
    answered = {name: asked(client, route) for name, route in routes.items() if name not in PUBLIC}
    assert {name: status for name, status in answered.items() if status != 401} == {}


@pytest.mark.usefixtures("nothing_is_recorded")
@pytest.mark.parametrize(
    ("name", "may"),
    [("viewer", VIEWER), ("restore-only", RESTORE_ONLY), ("operator", OPERATOR), ("anna", ADMIN)],
)
def test_a_role_is_let_through_where_it_may_and_nowhere_else(
    world: World, routes: dict[str, APIRoute], name: str, may: set[str]
) -> None:
    through = set()
    for known, route in routes.items():
        # Some of these take a password or code, and say the same to a wrong one: ask who is asking anew.
        status = asked(world.client(name), route)
        if status != 403:
            through.add(known)
    assert through - PUBLIC == may


@pytest.mark.usefixtures("nothing_is_recorded")
def test_a_token_cannot_make_others_or_consent(world: World, routes: dict[str, APIRoute]) -> None:
    _, shown = world.access.issue_token("anna", "script", None, None)
    client = world.client(None, shown=shown)
    allowed = [
        name for name, route in routes.items() if name != "POST logout" and asked(client, route) != 403
    ]
    assert set(allowed) - PUBLIC == ADMIN - BY_LOGIN - {"POST logout"}


@pytest.mark.usefixtures("nothing_is_recorded")
def test_a_token_may_less_than_its_owner_where_it_says_so(world: World, routes: dict[str, APIRoute]) -> None:
    grants = (Grant(role=Role.VIEWER),)
    _, shown = world.access.issue_token("anna", "grafana", grants, None)
    client = world.client(None, shown=shown)
    allowed = [
        name for name, route in routes.items() if name != "POST logout" and asked(client, route) != 403
    ]
    assert set(allowed) - PUBLIC == VIEWER - BY_LOGIN - {"POST logout"}


@pytest.mark.usefixtures("nothing_is_recorded")
def test_who_is_restricted_gets_nothing_that_is_for_all(world: World, routes: dict[str, APIRoute]) -> None:
    through = {name for name, route in routes.items() if asked(world.client("elsewhere"), route) != 403}
    assert through - PUBLIC == ADMIN - EVERYWHERE


def test_who_is_restricted_sees_nothing_of_others(world: World) -> None:
    anna, other = world.client("anna"), world.client("elsewhere")
    for noun in ("machines", "points", "runs", "repositories"):
        assert get(anna, f"/{noun}")[noun]
        assert get(other, f"/{noun}")[noun] == []
    point = get(anna, "/points")["points"][0]["id"]
    run = get(anna, "/runs")["runs"][0]["id"]
    repository = get(anna, "/repositories")["repositories"][0]["id"]
    for path in (
        "/machines/web",
        f"/points/{point}",
        f"/points/{point}/files",
        f"/runs/{run}",
        f"/repositories/{repository}",
    ):
        get(anna, path)
        get(other, path, 404)
    requests: list[tuple[str, str, object]] = [
        ("POST", "/backups", {"machines": ["web"]}),
        ("POST", f"/points/{point}/restore-plan", {"name": "again"}),
        ("POST", f"/points/{point}/restore", {"name": "again"}),
        ("POST", f"/repositories/{repository}/check", {}),
        ("POST", f"/repositories/{repository}/prune", {}),
        ("DELETE", f"/points/{point}", None),
    ]
    for method, path, body in requests:
        assert other.request(method, f"/api/v1{path}", json=body).status_code == 404
    assert get(anna, f"/points/{point}")


def test_a_scope_shows_what_is_in_it(world: World) -> None:
    uri = get(world.client(), "/machines")["machines"][0]["platform"]
    world.access.users.add(
        "tenant", "correct horse battery", [Grant(role=Role.VIEWER, platform=uri[:-1] + "?")]
    )
    tenant = world.client("tenant")
    for noun in ("machines", "points"):
        assert get(tenant, f"/{noun}")[noun] == get(world.client(), f"/{noun}")[noun] != []
    runs = [run for run in get(world.client(), "/runs", limit=1000)["runs"] if run["platform"] == uri]
    assert get(tenant, "/runs", limit=1000)["runs"] == runs != []
    assert get(tenant, "/repositories")["repositories"] == []
    get(tenant, "/policies", 403)
    world.access.users.remove("tenant")
