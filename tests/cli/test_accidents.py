"""Bad input and accidents: the documented exit status, words that help, nothing half-written left behind."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.units import MIB
from tests.cli.images import make_image
from tests.cli.program import PASSPHRASE, Finished, Program, interrupt


@pytest.fixture
def disk(program: Program) -> Path:
    """Give an image, and make the repository for it."""
    path = program.folder / "server.raw"
    make_image(path)
    program.expect("repo", "create")
    return path


def back_up(program: Program, disk: Path, **variables: str | None) -> Finished:
    return program.run("backup", "--image", disk, "--name", "server", typed="", **variables)


def point_count(program: Program) -> int:
    return len(program.expect("point", "list", "-o", "json").document()["points"])


def test_no_repository(program: Program) -> None:
    for words in (
        ("point", "list"),
        ("verify",),
        ("repo", "check"),
        ("restore", "x", "--disk", "vda=/tmp/x.raw"),
    ):
        done = program.run(*words)
        assert done.status == 10, words
        assert "hotspare repo create" in done.err


def test_an_error_of_a_process_is_one_line_on_stderr(program: Program) -> None:
    done = program.run_process("repo", "info")
    assert (done.status, done.out) == (10, "")
    assert len(done.err.splitlines()) == 1


def test_no_repository_is_set(program: Program) -> None:
    done = program.run("point", "list", HOTSPARE_REPOSITORY=None)
    assert done.status == 2
    assert "--repository" in done.err


def test_a_second_repository_at_the_same_place(program: Program, disk: Path) -> None:
    before = {path: path.read_bytes() for path in program.repository.rglob("*") if path.is_file()}
    done = program.run("repo", "create", "-o", "json")
    assert (done.status, done.error()["code"]) == (1, "repository-exists")
    assert {path: path.read_bytes() for path in program.repository.rglob("*") if path.is_file()} == before


def test_the_wrong_passphrase(program: Program, disk: Path) -> None:
    words = ("backup", "--image", disk, "--name", "server")
    done = program.run_process(*words, HOTSPARE_PASSPHRASE="something else")
    assert done.status == 12
    assert "HOTSPARE_PASSPHRASE" in done.err


def test_a_repository_of_a_newer_version(program: Program, disk: Path) -> None:
    config = program.repository / "config"
    line, _, rest = config.read_text().partition("\n")
    config.write_text(json.dumps(json.loads(line) | {"version": 99}) + "\n" + rest)
    done = back_up(program, disk)
    assert done.status == 13
    assert "version 99" in done.err


def test_an_unknown_machine(program: Program, disk: Path) -> None:
    assert program.run("backup", "nobody").status == 21
    assert program.run("machine", "show", "nobody").status == 21


def test_an_unknown_point(program: Program, disk: Path) -> None:
    for words in (("point", "show"), ("point", "forget", "--yes"), ("verify",)):
        done = program.run(*words, "nobody")
        assert done.status == 22, words
        assert "hotspare point list" in done.err


def test_an_unknown_platform(program: Program) -> None:
    assert program.run("machine", "list", "--platform", "esx://host").status == 2


def test_an_image_that_is_not_there(program: Program) -> None:
    program.expect("repo", "create")
    done = back_up(program, program.folder / "absent.raw")
    assert done.status != 0
    assert "absent.raw" in done.err
    assert point_count(program) == 0


def test_some_machines_fail_and_the_others_are_kept(program: Program) -> None:
    program.expect("repo", "create")
    make_image(program.folder / "images" / "web.raw")
    (machine,) = program.expect("machine", "list", "-o", "json").document()["machines"]
    done = program.run("backup", "nobody", machine["name"], "-o", "json")
    assert (done.status, done.error()["code"]) == (3, "partial")
    failed, succeeded = done.document()["results"]
    assert (failed["outcome"], failed["error"]["code"], failed["point"]) == ("failed", "no-machine", None)
    assert (succeeded["outcome"], succeeded["error"]) == ("ok", None)
    assert point_count(program) == 1
    all_failed = program.run("backup", "nobody", "nothing")
    assert all_failed.status == 1
    assert "nobody: failed: " in all_failed.err


def test_damage_is_found_and_named(program: Program, disk: Path) -> None:
    back_up(program, disk)
    (identity,) = [
        point["id"] for point in program.expect("point", "list", "-o", "json").document()["points"]
    ]
    pack = max(
        (program.repository / "data").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size
    )
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)
    done = program.run("verify", "-o", "json")
    assert (done.status, done.error()["code"]) == (14, "repository-damaged")
    assert identity in done.document()["problems"][0]["points"]
    assert identity in done.error()["meaning"]
    pack.unlink()
    checked = program.run("repo", "check")
    assert checked.status == 14
    assert pack.name in checked.out
    runs = program.expect("run", "list", "-o", "json").document()["runs"]
    assert [(run["kind"], run["outcome"], run["error_code"]) for run in runs[:2]] == [
        ("check", "failed", "repository-damaged"),
        ("verify", "failed", "repository-damaged"),
    ]


@pytest.fixture
def small(program: Program) -> Iterator[Path]:
    """Give the folder of the repository: a file system of 6 MiB."""
    folder = program.repository
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_the_repository_runs_full(program: Program, small: Path) -> None:
    program.expect("repo", "create")
    disk = program.folder / "server.raw"
    make_image(disk, 24 * MIB, data=24 * MIB)
    done = back_up(program, disk)
    assert done.status == 24
    assert "full" in done.err or "space" in done.err
    assert point_count(program) == 0
    subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
    assert back_up(program, disk).status == 0
    assert program.expect("verify", "-o", "json").document()["problems"] == []


NO_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Runs a program as a root whom file permissions bind, as they do any user."""


@pytest.mark.parametrize("what", ["hotspare.toml", "passphrase", "state", "repository", "server.raw"])
def test_what_may_not_be_read_is_named(program: Program, disk: Path, what: str) -> None:
    secret = program.folder / "passphrase"
    secret.write_text(PASSPHRASE)
    program.expect("run", "list")
    forbidden = program.folder / what
    forbidden.chmod(0)
    command = ("run", "list") if what == "state" else ("backup", "--image", disk, "--name", "server")
    source = {"HOTSPARE_PASSPHRASE": None, "HOTSPARE_PASSPHRASE_FILE": str(secret)}
    done = program.run_process(*command, under=NO_PRIVILEGE, **source)
    forbidden.chmod(0o700)
    assert done.status == 23, done.err
    assert str(forbidden) in done.err
    assert point_count(program) == 0


def started_backup(program: Program, disk: Path) -> "subprocess.Popen[str]":
    """Begin a backup and wait until bytes flow."""
    process = program.start("backup", "--image", disk, "--name", "server", "--progress", "jsonl")
    wait_for_bytes(process)
    return process


def wait_for_bytes(process: "subprocess.Popen[str]") -> None:
    assert process.stderr
    for line in process.stderr:
        if json.loads(line)["type"] == "disk-started":
            break


@pytest.fixture
def large_disk(program: Program) -> Path:
    """Give an image that takes a second or more to back up, and make the repository for it."""
    path = program.folder / "server.raw"
    make_image(path, 256 * MIB, data=256 * MIB)
    program.expect("repo", "create")
    return path


def test_an_interrupted_backup_leaves_nothing_to_trip_over(program: Program, large_disk: Path) -> None:
    done = interrupt(started_backup(program, large_disk))
    assert done.status == 130
    assert "Interrupted" in done.err.splitlines()[-1]
    assert point_count(program) == 0
    assert program.expect("run", "list", "-o", "json").document()["runs"][0]["outcome"] == "interrupted"
    assert back_up(program, large_disk).status == 0
    assert program.expect("verify", "-o", "json").document()["problems"] == []


def test_a_killed_backup_leaves_nothing_to_trip_over(program: Program, large_disk: Path) -> None:
    process = started_backup(program, large_disk)
    process.kill()
    process.communicate()
    assert point_count(program) == 0
    assert program.expect("run", "list", "-o", "json").document()["runs"][0]["outcome"] == "lost"
    assert back_up(program, large_disk).status == 0
    assert program.expect("verify", "-o", "json").document()["problems"] == []


def test_an_interrupted_restore_leaves_no_file(program: Program, large_disk: Path) -> None:
    assert back_up(program, large_disk).status == 0
    folder = program.folder / "restored"
    folder.mkdir()
    target = f"disk0={folder}/server.raw"
    process = program.start("restore", "server", "--disk", target, "--progress", "jsonl")
    wait_for_bytes(process)
    assert interrupt(process).status == 130
    assert list(folder.iterdir()) == []
    program.expect("restore", "server", "--disk", target)
    assert (folder / "server.raw").read_bytes() == large_disk.read_bytes()


def test_a_catalog_that_cannot_be_used_does_not_stop_a_backup(program: Program, disk: Path) -> None:
    (program.folder / "blocked").touch()
    state = str(program.folder / "blocked" / "state")
    done = back_up(program, disk, HOTSPARE_STATE_FOLDER=state)
    assert done.status == 0
    assert "Warning: This run is not recorded" in done.err
    assert point_count(program) == 1
    assert program.run("run", "list", HOTSPARE_STATE_FOLDER=state).status == 23
