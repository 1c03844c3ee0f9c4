"""Every page is denied to whoever may not, and no page can be forgotten here."""

from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute

from hotspare.access.roles import Grant, Role
from hotspare.api.guard import Rule
from hotspare.console.app import pages_of
from hotspare.console.browser import LOGIN
from tests.api.world import World
from tests.console.visitor import Visitor

PUBLIC = {
    "GET /first-run",
    "POST /first-run",
    "GET /login",
    "POST /login",
    "GET /login/passkey",
    "POST /login/passkey",
    "GET /login/sign-on",
    "GET /login/sign-on/back",
    "GET /login/sign-on/end",
    "POST /theme",
}
KNOWN = {
    "POST /logout",
    "GET /settings",
    "POST /settings/password",
    "POST /settings/totp",
    "POST /settings/totp/confirm",
    "POST /settings/totp/remove",
    "POST /settings/passkeys/begin",
    "POST /settings/passkeys",
    "POST /settings/passkeys/{passkey}/remove",
    "GET /settings/tokens",
    "POST /settings/tokens",
    "POST /settings/tokens/{token}/revoke",
}
VIEWER = KNOWN | {
    "GET /",
    "GET /going-on",
    "GET /live",
    "GET /matrix",
    "GET /machines",
    "GET /machine",
    "GET /activity",
    "GET /activity/runs/{run}",
    "GET /activity/jobs/{job}",
    "GET /activity/actions/{action}",
    "POST /activity/actions/{action}/cancel",
    "GET /policies",
    "GET /policies/{policy}",
    "GET /policies/{policy}/preview",
    "GET /points/{point}",
    "GET /repositories",
    "GET /repositories/{repository}/contents",
    "GET /repositories/{repository}",
    "GET /reports",
    "GET /reports/csv",
}
RESTORE_ONLY = VIEWER | {
    "GET /restore",
    "GET /points/{point}/files",
    "GET /points/{point}/download",
    "GET /points/{point}/restore",
    "POST /points/{point}/restore",
    "GET /points/{point}/disks/{disk}",
}
OPERATOR = RESTORE_ONLY | {
    "POST /machine/back-up",
    "POST /activity/jobs/{job}/cancel",
    "POST /activity/jobs/{job}/retry",
    "POST /policies/{policy}/run",
    "POST /repositories/{repository}/check",
}
ADMIN = OPERATOR | {
    "GET /policies/new",
    "POST /policies/keep",
    "GET /policies/{policy}/edit",
    "GET /policies/{policy}/yaml",
    "POST /policies/{policy}/yaml",
    "POST /policies/{policy}/switch",
    "POST /policies/{policy}/remove",
    "POST /points/{point}/forget",
    "POST /repositories/{repository}/prune",
    "GET /audit",
    "POST /audit/verify",
    "GET /settings/users",
    "POST /settings/users",
    "POST /settings/users/{user}",
    "POST /settings/users/{user}/remove",
    "GET /settings/approvals",
    "POST /settings/approvals/switch",
    "POST /settings/approvals/{approval}/approve",
    "POST /settings/approvals/{approval}/reject",
}
EVERYWHERE = {
    "GET /policies",
    "GET /policies/{policy}",
    "GET /policies/{policy}/preview",
    "POST /policies/{policy}/run",
    *(ADMIN - OPERATOR - {"POST /points/{point}/forget", "POST /repositories/{repository}/prune"}),
}
"""Of no use to who is restricted to a scope."""
ENDLESS = "GET /live"


def named(page: APIRoute) -> str:
    (method,) = page.methods or [""]
    return f"{method} {page.path}"


def asked(visitor: Visitor, page: APIRoute, proof: str = "") -> int:
    """Ask for something that is not there, so that nothing is done where asking is permitted."""
    (method,) = page.methods or [""]
    path = page.path.format(**dict.fromkeys(page.param_convertors, "7"))
    data = {"forgery": proof} if method == "POST" else None
    headers = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
    return visitor.client.request(method, path, data=data, headers=headers).status_code


@pytest.fixture(scope="session")
def pages(world: World) -> dict[str, APIRoute]:
    return {named(page): page for page in pages_of(world.app)}


@pytest.fixture
def nothing_is_recorded(world: World) -> Iterator[None]:
    """Hundreds of requests are asked here."""
    with world.unrecorded():
        yield


def test_the_table_here_has_every_page(pages: dict[str, APIRoute]) -> None:
    assert set(pages) == PUBLIC | ADMIN


def test_every_page_has_a_guard(pages: dict[str, APIRoute]) -> None:
    assert all(isinstance(getattr(type(page), "rule", None), Rule) for page in pages.values())


@pytest.mark.usefixtures("nothing_is_recorded")
def test_nobody_gets_past_the_login(world: World, pages: dict[str, APIRoute]) -> None:
    token = world.access.issue_token("anna", "script", None, None)[1]
    for shown in (None, "hotspare_000000000000_made-up", token):
        visitor = Visitor(world)
        if shown:
            visitor.client.cookies.set(LOGIN, shown, domain="testserver.local")
        for name, page in pages.items():
            if name in PUBLIC:
                continue
            (method,) = page.methods or [""]
            path = page.path.format(**dict.fromkeys(page.param_convertors, "7"))
            answer = visitor.client.request(method, path, headers={"Sec-Fetch-Site": "same-origin"})
            assert (answer.status_code, answer.headers.get("Location", "")[:6]) == (303, "/login"), name


@pytest.mark.usefixtures("nothing_is_recorded")
@pytest.mark.parametrize(
    ("name", "may"),
    [("viewer", VIEWER), ("restore-only", RESTORE_ONLY), ("operator", OPERATOR), ("anna", ADMIN)],
)
def test_a_role_is_let_through_where_it_may_and_nowhere_else(
    world: World, pages: dict[str, APIRoute], name: str, may: set[str]
) -> None:
    through = {ENDLESS}
    for known, page in pages.items():
        if known not in {ENDLESS, *PUBLIC}:
            # Some of these end the login.
            visitor = Visitor(world, name)
            if asked(visitor, page, visitor.proof()) != 403:
                through.add(known)
    assert through == may


@pytest.mark.usefixtures("nothing_is_recorded")
def test_who_is_restricted_gets_nothing_that_is_for_all(world: World, pages: dict[str, APIRoute]) -> None:
    visitor = Visitor(world, "elsewhere")
    proof = visitor.proof()
    denied = {
        name
        for name, page in pages.items()
        if name not in {ENDLESS, "POST /logout", *PUBLIC} and asked(visitor, page, proof) == 403
    }
    assert denied == EVERYWHERE


def test_who_is_restricted_sees_nothing_of_others(world: World) -> None:
    other = Visitor(world, "elsewhere")
    uri = world.estate.settings.platform
    for path in ("/", "/machines", "/restore", "/matrix", "/activity", "/repositories"):
        text = other.get(path)
        assert uri not in text, path
        assert "/machine?" not in text, path
    line = world.estate.inventory().machines[0][1]
    other.get(f"/machine?platform={uri}&id={line.id}", 404)
    repository = next(iter(world.estate.repositories()))
    other.get(f"/repositories/{repository}", 404)
    point = world.estate.points(world.estate.repository())[0].id
    for part in ("", "/files", "/restore", "/disks/disk0"):
        other.get(f"/points/{point}{part}?repository={repository}", 404)
    other.get(f"/points/{point}/download?repository={repository}&path=/etc/hosts", 404)


def test_a_scope_shows_what_is_in_it(world: World) -> None:
    uri = world.estate.settings.platform
    world.access.users.add("tenant", "correct horse battery", [Grant(role=Role.VIEWER, platform=uri)])
    text = Visitor(world, "tenant").get("/machines")
    assert "/machine?" in text
    world.access.users.remove("tenant")
