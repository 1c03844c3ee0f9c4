"""A server as commands make it, with a real repository and two real machines: disk images."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from hotspare.access.access import Access
from hotspare.access.roles import Grant, Role
from hotspare.api.actions import Actions
from hotspare.api.estate import Estate
from hotspare.cli.options import Options
from hotspare.cli.server_http import PROGRAM, whole_app
from hotspare.cli.session import Session
from tests.cli.guest_image import make_guest_image
from tests.cli.images import make_image
from tests.cli.program import PASSPHRASE, Program

PASSWORD = "correct horse battery"
NOBODY = Grant(role=Role.ADMIN, platform="nowhere://*")
"""May do everything upon nothing."""
GRANTS = {
    "anna": Grant(role=Role.ADMIN),
    "ben": Grant(role=Role.ADMIN),
    "viewer": Grant(role=Role.VIEWER),
    "restore-only": Grant(role=Role.RESTORE_ONLY),
    "operator": Grant(role=Role.OPERATOR),
    "elsewhere": NOBODY,
}


@dataclass
class World:
    """The server, and the program that works on the same things beside it."""

    program: Program
    app: FastAPI
    access: Access
    estate: Estate
    actions: Actions
    url: str = "http://testserver"

    def login(self, name: str) -> str:
        """Give what shows that somebody is logged in."""
        return self.access.tokens.issue(name, "login", "login")[1]

    def client(self, name: str | None = "anna", *, shown: str | None = None) -> TestClient:
        """Give a client for somebody; None for nobody."""
        shown = shown or (self.login(name) if name else None)
        headers = {"Authorization": f"Bearer {shown}"} if shown else {}
        return TestClient(self.app, self.url, headers=headers, raise_server_exceptions=False)

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        """Record nothing for now: each entry waits for the disk, which hundreds of requests need not."""
        database = self.access.database._connection
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.access.audit, "add", lambda *_, **__: None)
            database.execute("PRAGMA synchronous = OFF")
            yield
            database.execute("PRAGMA synchronous = FULL")


def get(client: TestClient, path: str, status: int = 200, **query: Any) -> dict[str, Any]:
    """Get a document."""
    answer = client.get(f"/api/v1{path}", params=query or None)
    assert answer.status_code == status, answer.text
    document: dict[str, Any] = answer.json()
    return document


def post(
    client: TestClient, path: str, body: object = None, status: int = 200, key: str | None = None
) -> dict[str, Any]:
    """Have something done."""
    headers = {"Idempotency-Key": key} if key else {}
    answer = client.post(f"/api/v1{path}", json={} if body is None else body, headers=headers)
    assert answer.status_code == status, answer.text
    document: dict[str, Any] = answer.json()
    return document


def made_program(folder: Path) -> Program:
    """Make a repository and no images yet, told by a configuration file alone."""
    (folder / "images").mkdir()
    program = Program(folder)
    (folder / "passphrase").touch(mode=0o600)
    (folder / "passphrase").write_text(PASSPHRASE)
    (folder / "hotspare.toml").write_text(
        f'repository = "{folder}/repository"\n'
        f'passphrase_file = "{folder}/passphrase"\n'
        f'platform = "images://{folder}/images"\n'
        f'state_folder = "{folder}/state"\n'
        f'policy_folder = "{folder}/policies"\n'
    )
    program.expect("repo", "create")
    return program


def make_machines(folder: Path) -> None:
    """Make the images of two machines, one of them with files."""
    make_image(folder / "images/web.raw")
    make_guest_image(folder / "images/guest.raw")


@contextmanager
def served(program: Program, users: Iterable[str] = tuple(GRANTS)) -> Iterator[World]:
    """Open the server on what a program has."""
    options = Options(config=program.folder / "hotspare.toml")
    with ExitStack() as stack:
        estate = Estate(lambda: Session(options))
        stack.callback(estate.close)
        access = Access(program.folder / "state")
        stack.callback(access.close)
        actions = Actions(PROGRAM, program.environment, estate.look_again)
        stack.callback(actions.close)
        for name in users:
            access.users.add(name, PASSWORD, [GRANTS[name]])
        yield World(program, whole_app(estate, access, actions), access, estate, actions)
