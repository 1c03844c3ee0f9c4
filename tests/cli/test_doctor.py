"""What ``hotspare doctor`` finds on hosts that lack something."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import Finished, Program


def findings(done: Finished) -> dict[str, dict[str, Any]]:
    return {finding["subject"]: finding for finding in done.document()["findings"]}


@pytest.fixture
def healthy(program: Program) -> Program:
    program.expect("repo", "create")
    return program


def test_a_host_with_everything(healthy: Program) -> None:
    done = healthy.run("doctor", "-o", "json")
    assert (done.status, done.document()["ok"]) == (0, True)
    found = findings(done)
    assert {
        "hotspare",
        "qemu-img",
        "qemu-nbd",
        "configuration",
        "catalog",
        "repository",
        "folder",
    } <= found.keys()
    needed = [finding for finding in found.values() if finding["needed"]]
    assert all(finding["ok"] and not finding["hint"] for finding in needed)
    assert len(done.document()["findings"]) == len(found)


def test_in_words(healthy: Program) -> None:
    done = healthy.expect("doctor")
    assert "MISSING" not in done.out
    assert "0 restore points" in done.out


def test_programs_that_are_missing(healthy: Program) -> None:
    done = healthy.run("doctor", PATH="/nowhere")
    assert done.status == 1
    assert "apt install qemu-utils" in done.out
    assert "qemu-img, qemu-nbd" in done.err


def test_no_repository_is_set(program: Program) -> None:
    done = program.run("doctor", "-o", "json", HOTSPARE_REPOSITORY=None)
    assert done.status == 1
    assert "hotspare repo create" in findings(done)["repository"]["hint"]


@pytest.mark.parametrize("passphrase", [None, "wrong"])
def test_a_repository_that_does_not_open(healthy: Program, passphrase: str | None) -> None:
    found = findings(healthy.run("doctor", "-o", "json", HOTSPARE_PASSPHRASE=passphrase))
    assert not found["repository"]["ok"]
    assert "HOTSPARE_PASSPHRASE" in found["repository"]["hint"]


def test_a_configuration_that_is_broken_does_not_hide_the_rest(healthy: Program) -> None:
    config = healthy.folder / "hotspare.toml"
    config.write_text("colour = 1\n")
    done = healthy.run("doctor", "-o", "json")
    assert done.status == 1
    assert "line 1" in findings(done)["configuration"]["detail"]
    assert findings(done)["hotspare"]["ok"]


def test_a_platform_that_is_not_there(healthy: Program, tmp_path: Path) -> None:
    done = healthy.run("doctor", "--platform", str(tmp_path / "absent"), "-o", "json")
    assert done.status == 1
    assert "absent" in findings(done)["folder"]["detail"]


def test_a_state_folder_that_cannot_be_made(healthy: Program) -> None:
    (healthy.folder / "blocked").touch()
    done = healthy.run(
        "doctor", "-o", "json", HOTSPARE_STATE_FOLDER=str(healthy.folder / "blocked" / "state")
    )
    assert not findings(done)["catalog"]["ok"]
    assert findings(done)["repository"]["ok"]
