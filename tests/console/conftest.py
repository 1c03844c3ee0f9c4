"""What the tests of the console share: a server with two machines, and a browser."""

from collections.abc import Iterator

import pytest

from tests.api.world import World, made_program, make_machines, served


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give a server with two machines that were backed up, one of them twice."""
    program = made_program(tmp_path_factory.mktemp("console"))
    make_machines(program.folder)
    program.expect("backup", "web", "guest")
    with served(program) as world:
        world.url = "https://testserver"  # browsers keep our cookies over TLS only
        yield world
