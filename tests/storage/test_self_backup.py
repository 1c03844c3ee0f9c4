"""A lost server made again from each kind of remote store; and where nothing can be taken away."""

from pathlib import Path

import pytest

from hotspare.policy.retention import Retention
from hotspare.self_backup import make
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


def test_from_s3_with_object_lock(
    program: Program, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.environment |= {**seaweed.environment, "HOTSPARE_REPOSITORY": seaweed.url("locked/self-backup")}
    monkeypatch.setattr(make, "RETENTION", Retention(last=1))
    furnish(program, lock=1)
    lose_and_rebuild(program)
    (hidden,) = program.expect("self", "backup", "-o", "json").document()["forgotten"]
    listed = program.expect("self", "list", "-o", "json").document()["self_backups"]
    assert hidden not in {one["id"] for one in listed}
    program.expect("repo", "recover", "--forgotten")
    listed = program.expect("self", "list", "-o", "json").document()["self_backups"]
    assert hidden in {one["id"] for one in listed}, "it was hidden, and its lock has not ended"
    assert program.expect("repo", "check", "-o", "json").document()["problems"] == []


def test_over_sftp(program: Program, sshd: Sshd, tmp_path: Path) -> None:
    program.environment |= {
        "HOTSPARE_REPOSITORY": sshd.url(tmp_path / "repository"),
        "HOME": str(sshd.home),
    }
    furnish(program)
    assert any("SSH keys" in what for what in lose_and_rebuild(program))


def test_with_a_key_that_can_only_append(
    program: Program, any_sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "RETENTION", Retention(last=1))
    folder = tmp_path / "appended"
    furnish(program, repository=folder)
    environment = any_sshd.served_environment(f"repo serve --append-only {folder}")
    program.environment |= {"HOTSPARE_REPOSITORY": any_sshd.served_url(folder), **environment}
    program.expect("self", "backup")
    lose_and_rebuild(program)
    assert len(program.expect("self", "list", "-o", "json").document()["self_backups"]) == 2
