"""A whole repository on each remote store, through the program: made, filled, restored, collected.

All that a repository goes through is done on one of them. tests/contracts shows that a store is as good
as any other, so on the others it is enough that everything gets there and back, and goes.
"""

from pathlib import Path

import pytest

from tests.cli.images import change_image, make_image
from tests.cli.program import Program
from tests.storage.servers import Seaweed, Sshd


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "images").mkdir()
    return Program(tmp_path)


def fill_restore_collect(program: Program, tmp_path: Path) -> None:
    image = program.folder / "images" / "web.raw"
    content = make_image(image)
    program.expect("repo", "create")
    program.expect("backup", "web")
    first = program.expect("point", "list", "-o", "json").document()["points"][0]["id"]
    changed = change_image(image)
    program.expect("backup", "web", HOTSPARE_UPLOAD_LIMIT="100MiB/s")

    for reference, expected in ((first, content), ("web", changed)):
        out = tmp_path / f"{reference}.raw"
        program.expect("restore", reference, "--disk", f"disk0={out}")
        assert out.read_bytes() == expected
    program.expect("verify")
    program.expect("point", "forget", first, "--yes")
    program.expect("repo", "prune")
    assert program.expect("repo", "check", "-o", "json").document()["problems"] == []
    again = tmp_path / "again.raw"
    program.expect("restore", "web", "--disk", f"disk0={again}")
    assert again.read_bytes() == changed


def fill_collect_restore(program: Program, tmp_path: Path) -> None:
    """The shorter way: each command over SSH begins with a connection and a program over there."""
    image = program.folder / "images" / "web.raw"
    make_image(image)
    program.expect("repo", "create")
    (first,) = program.expect("backup", "web", "-o", "json").document()["results"]
    changed = change_image(image)
    program.expect("backup", "web")
    program.expect("point", "forget", first["point"]["id"], "--yes")
    program.expect("repo", "prune")
    out = tmp_path / "web.raw"
    program.expect("restore", "web", "--disk", f"disk0={out}")
    assert out.read_bytes() == changed


def test_a_repository_on_s3(program: Program, seaweed: Seaweed, tmp_path: Path) -> None:
    url = seaweed.url("plain/whole-repository")
    program.environment = {**program.environment, **seaweed.environment, "HOTSPARE_REPOSITORY": url}
    fill_restore_collect(program, tmp_path)
    info = program.expect("repo", "info", "-o", "json").document()
    assert info["durability"] == "store"
    assert list((program.folder / "state" / "cache").rglob("*")), "metadata is kept on this host"


def test_a_repository_over_sftp(program: Program, sshd: Sshd, tmp_path: Path) -> None:
    program.environment |= {
        "HOTSPARE_REPOSITORY": sshd.url(tmp_path / "whole-repository"),
        "HOME": str(sshd.home),
    }
    fill_collect_restore(program, tmp_path)
    assert program.expect("repo", "info", "-o", "json").document()["durability"] == "fsync"


def test_a_repository_served_over_ssh(program: Program, any_sshd: Sshd, tmp_path: Path) -> None:
    program.environment |= {
        "HOTSPARE_REPOSITORY": any_sshd.served_url(tmp_path / "whole-repository"),
        **any_sshd.served_environment(),
    }
    fill_collect_restore(program, tmp_path)
    info = program.expect("repo", "info", "-o", "json").document()
    assert (info["durability"], info["access"]) == ("fsync", "full")


def test_a_client_with_an_append_only_key(program: Program, any_sshd: Sshd, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    program.expect("repo", "create", folder)
    image = program.folder / "images" / "web.raw"
    make_image(image)
    environment = any_sshd.served_environment(f"repo serve --append-only {folder}")
    client = {"HOTSPARE_REPOSITORY": any_sshd.served_url(folder), **environment}
    program.expect("backup", "web", **client)
    changed = change_image(image)
    program.expect("backup", "web", **client)

    out = tmp_path / "web.raw"
    program.expect("restore", "web", "--disk", f"disk0={out}", **client)
    assert out.read_bytes() == changed
    told = program.expect("repo", "info", **client).out
    assert "append-only: restore points can be added from here" in told
    before = {str(path) for path in folder.rglob("*") if path.is_file()}
    point = program.expect("point", "list", "-o", "json").document()["points"][0]["id"]
    for words in (
        ["point", "forget", point, "--yes"],
        ["repo", "prune"],
        ["key", "add", "--passphrase"],
    ):
        done = program.run(*words, **client, HOTSPARE_NEW_PASSPHRASE="another one, long enough")
        assert done.status == 23, done.err
        assert "on the server itself" in done.err
    assert {str(path) for path in folder.rglob("*") if path.is_file()} == before

    program.expect("point", "forget", point, "--yes", HOTSPARE_REPOSITORY=str(folder))
    program.expect("repo", "prune", HOTSPARE_REPOSITORY=str(folder))
    program.expect("verify", **client)


def test_a_client_with_a_read_only_key(program: Program, any_sshd: Sshd, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    program.expect("repo", "create", folder)
    image = program.folder / "images" / "web.raw"
    content = make_image(image)
    program.expect("backup", "web", HOTSPARE_REPOSITORY=str(folder))
    environment = any_sshd.served_environment(f"repo serve --read-only {folder}")
    client = {"HOTSPARE_REPOSITORY": any_sshd.served_url(folder), **environment}

    refused = program.run("backup", "web", **client)
    assert refused.status == 23
    assert "can only be read over this connection" in refused.err
    out = tmp_path / "web.raw"
    program.expect("restore", "web", "--disk", f"disk0={out}", **client)
    assert out.read_bytes() == content


def test_serving_is_not_for_people(program: Program, tmp_path: Path) -> None:
    both = program.run("repo", "serve", "--append-only", "--read-only", tmp_path)
    assert both.status == 2
    assert "exclude each other" in both.err
    status, screen = program.on_terminal("repo", "serve", str(tmp_path))
    assert status == 2
    assert "this is a terminal" in screen
