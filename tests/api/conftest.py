"""What the tests of the server share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.world import World, made_program, make_machines, served
from tests.cli.program import Program


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give a server with two machines, each of which was backed up at least once."""
    program = made_program(tmp_path_factory.mktemp("world"))
    make_machines(program.folder)
    program.expect("backup", "web", "guest")
    with served(program) as world:
        yield world


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Give the real program, without a repository."""
    return Program(tmp_path)
