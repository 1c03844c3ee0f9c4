"""Made-up requests by the description of the interface, over HTTP: no accidents, and all answers fit it."""

import threading
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis.checks import (
    CHECKS,
    load_all_checks,
)
from schemathesis.generation import GenerationMode

from hotspare.api.serving import listen, server_for
from tests.api.test_jobs import Working, working
from tests.api.world import World

__all__ = ["working"]  # a world whose job database is there

load_all_checks()
_CHECKED = [
    CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
    )
]
_EXAMPLES = 2
"""Good and bad ones each, for every route."""
_LEFT_OUT = {"log_out", "change_password", "watch_events"}
"""They end the login by which everything else is asked; a stream of events has no end."""


@pytest.fixture(scope="module")
def address(working: Working) -> Iterator[str]:
    with listen("127.0.0.1", 0) as socket:
        server = server_for(working.world.app, None)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        server.should_exit = True
        thread.join()


# The mover beside it draws from the random module in threads of its own, which hypothesis takes for ours.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
def test_made_up_requests_are_no_accidents(
    working: Working, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = working.world
    # Thousands of entries would each wait for the disk, and what is made up here must not be begun.
    monkeypatch.setattr(world.access.audit, "add", lambda *_, **__: None)
    schema = schemathesis.openapi.from_dict(world.app.openapi())
    schema.config.update(base_url=address)
    asked = set()
    for result in schema.get_all_operations():
        operation = result.ok()  # type: ignore[union-attr]
        name = operation.definition.raw["operationId"]
        if name in _LEFT_OUT:
            continue
        asked.add(name)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            with suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else nullcontext():
                # Where nothing is given, nothing can be given wrongly.
                _ask(operation.as_strategy(generation_mode=mode), world, address)
    assert len(asked) > 40


def _ask(cases: SearchStrategy[schemathesis.Case[Any]], world: World, address: str) -> None:
    headers = {"Authorization": f"Bearer {world.login('anna')}"}

    @seed(1)
    @settings(
        max_examples=_EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(base_url=address, headers=headers, checks=_CHECKED)  # type: ignore[arg-type]

    ask()
