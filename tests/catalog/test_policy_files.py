"""The folder of policies: whole files or none, and words for what goes wrong."""

import os
from pathlib import Path

import pytest

from hotspare.catalog.policy_files import PolicyFiles
from hotspare.errors import ConfigError, NoSpace, PermissionRefused, PolicyNotFound
from hotspare.policy.limits import Limits
from hotspare.policy.policy import Policy
from hotspare.policy.retention import Retention

NIGHTLY = Policy(name="nightly", retention=Retention(daily=7))


@pytest.fixture
def files(tmp_path: Path) -> PolicyFiles:
    return PolicyFiles(tmp_path / "policies")


def test_nothing_is_there_at_first(files: PolicyFiles) -> None:
    assert files.all() == {}
    assert files.limits() == Limits()
    with pytest.raises(PolicyNotFound):
        files.get("nightly")
    with pytest.raises(PolicyNotFound):
        files.get("../../etc/passwd")
    assert not files.folder.exists()


def test_what_is_put_is_read_again_and_other_files_are_none(files: PolicyFiles) -> None:
    files.put(NIGHTLY)
    files.put_limits(Limits(host=3))
    for other in (".nightly.yaml.1.new", "notes.txt", "Upper.yaml", "nightly.yaml~"):
        (files.folder / other).write_text("nothing of ours")
    assert files.all() == {"nightly": NIGHTLY}
    assert files.limits() == Limits(host=3)
    files.remove("nightly")
    assert files.names() == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(13, "Permission denied")])
def test_a_write_that_fails_leaves_what_was_there(
    files: PolicyFiles, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    files.put(NIGHTLY)

    def fail(_descriptor: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(NoSpace if error.errno == 28 else PermissionRefused) as refused:
        files.put(Policy(name="nightly"))
    assert "as they were" in refused.value.meaning
    assert files.all() == {"nightly": NIGHTLY}
    assert [path.name for path in files.folder.iterdir()] == ["nightly.yaml"]


def test_a_file_with_a_mistake_is_replaced_by_a_good_one(files: PolicyFiles) -> None:
    files.put(NIGHTLY)
    files.path("nightly").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError):
        files.get("nightly")
    files.put(NIGHTLY)
    assert files.get("nightly") == NIGHTLY


def test_what_says_the_same_is_not_written_again(files: PolicyFiles) -> None:
    files.put(NIGHTLY)
    files.path("nightly").write_text("# why seven\nretention: {daily: 7}\n")
    files.put(NIGHTLY)
    assert files.text("nightly").startswith("# why seven")
