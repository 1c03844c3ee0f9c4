"""Somebody at the console without a browser: keeps cookies, sends forms with the proof that pages hold."""

import re
from typing import Any

from httpx2 import Response
from starlette.testclient import TestClient

from hotspare.console.browser import FORGERY, LOGIN
from tests.api.world import World

_PROOF = re.compile(rf'name="{FORGERY}" value="([0-9a-f]+)"')


class Visitor:
    """One browser's worth of cookies."""

    def __init__(self, world: World, name: str | None = None) -> None:
        self.client = TestClient(world.app, world.url, follow_redirects=False, raise_server_exceptions=False)
        if name is not None:
            self.client.cookies.set(LOGIN, world.login(name), domain="testserver.local")

    def get(self, path: str, status: int = 200, **headers: str) -> str:
        """Load a page."""
        answer = self.client.get(path, headers={"Accept": "text/html", **headers})
        assert answer.status_code == status, answer.text
        return answer.text

    def post(self, path: str, fields: dict[str, Any] | None = None, status: int = 303) -> Response:
        """Send a form, as a page of ours would."""
        form = {FORGERY: self.proof(), **(fields or {})}
        answer = self.client.post(path, data=form, headers={"Sec-Fetch-Site": "same-origin"})
        assert answer.status_code == status, answer.text
        return answer

    def proof(self) -> str:
        """Give what forms have to hold."""
        found = _PROOF.search(self.client.get("/no-such-page", headers={"Accept": "text/html"}).text)
        assert found
        return found[1]
