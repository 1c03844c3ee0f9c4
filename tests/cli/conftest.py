"""What the tests of the command line share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.program import Program
from tests.notices.receivers import HttpReceiver, http_receiver


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Give the real program, without a repository yet."""
    (tmp_path / "images").mkdir()
    return Program(tmp_path)


@pytest.fixture
def http() -> Iterator[HttpReceiver]:
    """Give a real receiver of notices, that takes all."""
    with http_receiver() as receiver:
        yield receiver
