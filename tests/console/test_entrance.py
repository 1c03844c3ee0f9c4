"""Coming in and going: the first run, logins, cookies, forgeries, headers."""

from collections.abc import Iterator
from pathlib import Path

import pyotp
import pytest

from hotspare.console.browser import FORGERY, LOGIN
from hotspare.console.headers import HEADERS
from tests.api.world import PASSWORD, World, made_program, served
from tests.console.visitor import Visitor


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[World]:
    """Give a server that nobody may log in to yet."""
    with served(made_program(tmp_path), users=()) as world:
        world.url = "https://testserver"
        yield world


def test_the_code_makes_the_first_user_and_logs_in(fresh: World) -> None:
    visitor = Visitor(fresh)
    assert visitor.client.get("/").headers["Location"] == "/login"
    assert visitor.client.get("/login").headers["Location"] == "/first-run"
    wanted = {"name": "anna", "password": PASSWORD, "again": PASSWORD}
    assert "The code is wrong" in visitor.post("/first-run", {**wanted, "code": "nonsense"}, 401).text
    code = fresh.access.setup_code
    assert "not the same" in visitor.post("/first-run", {**wanted, "code": code, "again": "x"}, 422).text
    assert visitor.post("/first-run", {**wanted, "code": code}).headers["Location"] == "/"
    assert "Log out" in visitor.get("/")
    assert visitor.client.get("/first-run").headers["Location"] == "/login"
    done = [(entry.actor, entry.action) for entry in fresh.access.audit.newest(3)]
    assert ("anna", "set up") in done


def test_a_login_is_a_cookie_that_scripts_and_other_hosts_do_not_get(world: World) -> None:
    visitor = Visitor(world)
    answer = visitor.post("/login", {"name": "anna", "password": PASSWORD, "next": "/machines?q=web"})
    assert answer.headers["Location"] == "/machines?q=web"
    cookie = next(one for one in answer.headers.get_list("Set-Cookie") if one.startswith(LOGIN))
    words = {word.strip().lower() for word in cookie.split(";")[1:]}
    assert {"secure", "httponly", "samesite=strict", "path=/"} <= words
    assert not any(word.startswith("domain") for word in words)


def test_a_wrong_password_is_said_in_the_form_and_recorded(world: World) -> None:
    answer = Visitor(world).post("/login", {"name": "anna", "password": "wrong"}, 401)
    assert "Name, password or code is wrong" in answer.text
    assert world.access.audit.newest(1)[0].outcome == "login"


@pytest.mark.parametrize(
    "next_", ["//evil.example/", "https://evil.example/", "/\\evil.example", "/\tx", "javascript:alert(1)"]
)
def test_a_login_leads_nowhere_else(world: World, next_: str) -> None:
    answer = Visitor(world).post("/login", {"name": "anna", "password": PASSWORD, "next": next_})
    assert answer.headers["Location"] == "/"


def test_logging_out_ends_the_login_on_the_server(world: World) -> None:
    visitor = Visitor(world, "anna")
    shown = visitor.client.cookies[LOGIN]
    visitor.post("/logout")
    again = Visitor(world)
    again.client.cookies.set(LOGIN, shown, domain="testserver.local")
    assert again.client.get("/").status_code == 303


@pytest.mark.parametrize(
    ("headers", "with_proof"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "https://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({}, True),
    ],
)
def test_a_forged_form_does_nothing_and_is_recorded(
    world: World, headers: dict[str, str], with_proof: bool
) -> None:
    visitor = Visitor(world, "anna")
    fields = {FORGERY: visitor.proof() if with_proof else "0" * 64, "on": "on"}
    answer = visitor.client.post("/settings/approvals/switch", data=fields, headers=headers)
    assert answer.status_code == 403
    assert not world.access.approvals.needed
    entry = world.access.audit.newest(1)[0]
    assert (entry.actor, entry.outcome) == ("anna", "not-permitted")


def test_the_proof_of_one_login_is_none_for_another(world: World) -> None:
    anna, ben = Visitor(world, "anna"), Visitor(world, "ben")
    fields = {FORGERY: ben.proof()}
    answer = anna.client.post("/logout", data=fields, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 403


def test_an_origin_of_ours_is_enough_for_old_browsers(world: World) -> None:
    visitor = Visitor(world, "anna")
    fields = {FORGERY: visitor.proof(), "theme": "dark", "next": "/"}
    answer = visitor.client.post("/theme", data=fields, headers={"Origin": "https://testserver"})
    assert answer.status_code == 303
    assert 'data-theme="dark"' in visitor.get("/")


def test_every_answer_has_the_headers_and_no_page_has_scripts_or_styles_in_it(world: World) -> None:
    visitor = Visitor(world, "anna")
    for path in ("/", "/login", "/no-such-page", "/static/console.css", "/machines", "/policies/new"):
        answer = visitor.client.get(path, headers={"Accept": "text/html"})
        for name, value in HEADERS.items():
            if name != "Cache-Control" or not path.startswith("/static"):
                assert answer.headers[name] == value, (path, name)
        if not path.startswith("/static"):
            assert " style=" not in answer.text
            assert "<style" not in answer.text
            assert " onclick" not in answer.text
            assert "<script>" not in answer.text


def test_the_interface_for_programs_is_as_it_was(world: World) -> None:
    client = Visitor(world, "anna").client
    assert client.get("/api/v1/me").status_code == 401  # a cookie is nothing to it
    assert client.get("/api/v1/nothing").headers["Content-Type"] == "application/problem+json"
    assert "Content-Security-Policy" not in client.get("/api/v1/health").headers


def test_an_authenticator_app_is_set_up_and_asked_for(fresh: World) -> None:
    visitor = Visitor(fresh)
    code = fresh.access.setup_code
    visitor.post("/first-run", {"name": "anna", "password": PASSWORD, "again": PASSWORD, "code": code})
    assert "wrong" in visitor.post("/settings/totp", {"password": "nonsense"}, 401).text
    shown = visitor.post("/settings/totp", {"password": PASSWORD}, 200).text
    assert "<svg" in shown
    secret = shown.partition("Secret: <code>")[2].partition("</code>")[0]
    app = pyotp.TOTP(secret)
    visitor.post("/settings/totp/confirm", {"code": app.now()})
    other = Visitor(fresh)
    other.post("/login", {"name": "anna", "password": PASSWORD}, 401)
    other.post("/login", {"name": "anna", "password": PASSWORD, "code": app.at(app.interval and 10**9)}, 401)
