"""What the tests of the command line share."""

from pathlib import Path

import pytest

from tests.cli.program import Program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Give the real program, without a repository yet."""
    (tmp_path / "images").mkdir()
    return Program(tmp_path)
