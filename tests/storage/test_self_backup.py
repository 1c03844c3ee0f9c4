"""A lost server made again from each kind of remote store; and where nothing can be taken away."""

from pathlib import Path

import pytest

from tests.cli.control_plane import empty_host, furnish, log_in, written_by_people
from tests.cli.program import Program
from tests.storage.servers import Seaweed, Sshd


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "images").mkdir()
    return Program(tmp_path)


def lose_and_rebuild(program: Program) -> list[str]:
    """Gives the remedies for what does not come back."""
    program.expect("self", "backup")
    new = empty_host(program)
    document = new.expect("self", "rebuild", "-o", "json").document()
    assert written_by_people(new) == written_by_people(program)
    assert log_in(new)
    return [one["what"] for one in document["not_kept"]]


def test_from_s3(program: Program, seaweed: Seaweed) -> None:
    program.environment |= {**seaweed.environment, "HOTSPARE_REPOSITORY": seaweed.url("plain/self-backup")}
    furnish(program)
    assert any("S3" in what for what in lose_and_rebuild(program))


def test_from_s3_with_object_lock(program: Program, seaweed: Seaweed) -> None:
    program.environment |= {**seaweed.environment, "HOTSPARE_REPOSITORY": seaweed.url("locked/self-backup")}
    furnish(program, lock=1)
    lose_and_rebuild(program)
    forgotten = [program.expect("self", "backup", "-o", "json").document()["forgotten"] for _ in range(3)]
    assert [len(one) for one in forgotten] == [0, 0, 1], "forgotten is hidden, until its lock ends"
    assert program.expect("repo", "check", "-o", "json").document()["problems"] == []


def test_over_sftp(program: Program, sshd: Sshd, tmp_path: Path) -> None:
    program.environment |= {
        "HOTSPARE_REPOSITORY": sshd.url(tmp_path / "repository"),
        "HOME": str(sshd.home),
    }
    furnish(program)
    assert any("SSH keys" in what for what in lose_and_rebuild(program))


def test_with_a_key_that_can_only_append(program: Program, any_sshd: Sshd, tmp_path: Path) -> None:
    folder = tmp_path / "appended"
    furnish(program, repository=folder)
    environment = any_sshd.served_environment(f"repo serve --append-only {folder}")
    program.environment |= {"HOTSPARE_REPOSITORY": any_sshd.served_url(folder), **environment}
    for _ in range(4):
        program.expect("self", "backup")
    assert len(program.expect("self", "list", "-o", "json").document()["self_backups"]) == 4
    lose_and_rebuild(program)
