"""The description of the interface: committed, so that a change of it is seen in review."""

import json
import os
from pathlib import Path

from hotspare import __version__
from hotspare.api.routes import PREFIX, ROUTES
from tests.api.world import World

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_committed_description_is_that_of_the_program(world: World) -> None:
    described = dict(world.app.openapi())
    described["info"] = dict(described["info"])
    assert described["info"].pop("version") == __version__
    text = json.dumps(described, indent=1, sort_keys=True) + "\n"
    if os.environ.get("WRITE_OPENAPI"):
        (DOCS / "openapi.json").write_text(text)
    assert (DOCS / "openapi.json").read_text() == text, (
        "run this test with WRITE_OPENAPI=1, and look at the diff"
    )


def test_every_route_is_in_the_document() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    missing = [f"{one.method} {one.path}" for one in ROUTES if f"| `{one.method} {one.path}` |" not in text]
    assert missing == []
    assert PREFIX in text
