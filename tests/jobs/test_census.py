"""Counting jobs and movers."""

from pathlib import Path

from hotspare.jobs.census import take_census


def test_a_database_that_nobody_used_has_none_and_is_not_made(tmp_path: Path) -> None:
    assert take_census(f"sqlite:///{tmp_path}/jobs.sqlite") is None
    assert list(tmp_path.iterdir()) == []
