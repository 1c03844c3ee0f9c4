"""Files inside restore points, with the real program and images that a kernel wrote."""

import base64
import io
import os
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.cli.guest_image import make_guest_image, mounted
from tests.cli.program import HOTSPARE, Program, interrupt


@pytest.fixture
def image(program: Program) -> Path:
    path = program.folder / "web.raw"
    make_guest_image(path)
    program.expect("repo", "create")
    return path


def back_up(program: Program, image: Path, *words: str) -> str:
    done = program.expect("backup", "--image", image, "--name", "web", *words, "-o", "json")
    identity: str = done.document()["results"][0]["point"]["id"]
    return identity


def found(program: Program, *words: str | Path) -> dict[str, Any]:
    return program.expect("files", "find", *words, "-o", "json").document()


def paths(document: dict[str, Any]) -> list[str]:
    return [one["path"] for one in document["files"]]


def test_looking_around(program: Program, image: Path) -> None:
    back_up(program, image)
    (volume,) = program.expect("files", "ls", "web", "-o", "json").document()["volumes"]
    assert (volume["name"], volume["content"], volume["mounted_at"]) == ("disk0", "ext", ["/"])
    listed = program.expect("files", "ls", "web", "/etc/nginx/", "-o", "json").document()["entries"]
    assert [(one["path"], one["kind"], one["target"]) for one in listed] == [
        ("/etc/nginx/link", "link", "../hosts"),
        ("/etc/nginx/nginx.conf", "file", None),
    ]
    text = program.expect("files", "ls", "web", "disk0:/etc").out
    assert "drwxr-xr-x" in text
    assert "fstab" in text
    done = program.run_process("files", "cat", "web", "/etc/nginx/link")
    assert (done.status, done.out) == (0, "127.0.0.1 localhost\n")
    content = program.expect("files", "cat", "web", "disk0:/srv/big", "-o", "json").document()
    assert base64.b64decode(content["base64"]) == b"big" * (content["size"] // 3)


def test_what_is_not_there_is_said(program: Program, image: Path) -> None:
    back_up(program, image)
    for words in (
        ["ls", "web", "/nothing"],
        ["cat", "web", "vdz1:/etc/hosts"],
        ["cat", "web", "/etc/hosts/x"],
    ):
        refused = program.run("files", *words)
        assert refused.status == 31, refused.err
    assert program.run("files", "cat", "web", "/etc").status == 30
    assert program.run("files", "versions", "/nothing", "--machine", "web").status == 31
    assert program.run("files", "ls", "nobody").status == 22
    assert program.run("files", "find", "*").status == 2
    assert program.run("files", "restore", "web", "/nothing", "--to", program.folder / "o").status == 31
    assert not (program.folder / "o").exists()


def test_restoring_to_a_folder(program: Program, image: Path) -> None:
    back_up(program, image)
    out = program.folder / "out"
    plan = program.expect("files", "restore", "web", "/etc", "/srv/", "--to", out, "--dry-run", "-o", "json")
    done = program.expect("files", "restore", "web", "/etc", "/srv/", "--to", out, "-o", "json").document()
    assert (done["entries"], done["failed"]) == (8, 0)
    assert plan.document()["bytes"] == done["bytes"]
    with mounted(image) as root:
        subprocess.run(["diff", "-r", "--no-dereference", root / "etc", out / "etc"], check=True)
        assert (out / "big").stat().st_mtime_ns == (root / "srv/big").stat().st_mtime_ns
    assert (out / "big").stat().st_ino == (out / "again").stat().st_ino
    assert program.run("files", "restore", "web", "/etc", "--to", out).status == 26
    again = program.expect("files", "restore", "web", "/etc", "--to", out, "--overwrite", "-o", "json")
    assert again.document()["skipped"] == 3


def test_restoring_as_an_archive(program: Program, image: Path) -> None:
    back_up(program, image)
    archive = program.folder / "out.tar"
    program.expect("files", "restore", "web", "/etc", "--tar", archive)
    assert archive.stat().st_mode & 0o777 == 0o600
    with tarfile.open(archive) as read:
        assert "etc/nginx/nginx.conf" in read.getnames()
    assert program.run("files", "restore", "web", "/etc", "--tar", archive).status == 26
    piped = subprocess.run(
        [HOTSPARE, "files", "restore", "web", "/srv", "--tar", "-"],
        stdout=subprocess.PIPE,
        env=program.environment,
        check=True,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(piped)) as read:
        assert read.getmember("srv/big").islnk() != read.getmember("srv/again").islnk()


def test_an_index_answers_what_walking_does(program: Program, image: Path) -> None:
    first = back_up(program, image, "--index-files")
    with mounted(image) as root:
        (root / "etc/nginx/new.conf").write_text("new")
        (root / "etc/hosts").write_text("changed, and longer than before")
    second = back_up(program, image, "--index-files")
    for words in (
        ["*"],
        ["*.conf"],
        ["nginx/*"],
        ["/etc/**/n*"],
        ["*", "--type", "d"],
        ["*", "--larger", "1MiB"],
        ["[hn]*"],
        ["HOSTS", "--ignore-case"],
        ["*", "--in", "/etc/nginx"],
        ["*", "--newer", "1h"],
    ):
        indexed = found(program, *words, "--machine", "web")
        walked = found(program, *words, "--machine", "web", "--no-index")
        assert indexed["walked"] == []
        assert walked["walked"] == [first, second]
        assert indexed["files"] == walked["files"]
        assert indexed["files"]
    (row,) = found(program, "new.conf", "--machine", "web")["files"]
    assert row["points"] == [second]
    hosts = [one["points"] for one in found(program, "hosts", "--machine", "web")["files"]]
    assert sorted(hosts) == [[first], [second]]
    assert found(program, "*", "web", "--larger", "100GiB")["files"] == []


def test_points_without_an_index_are_walked(program: Program, image: Path) -> None:
    first = back_up(program, image)
    second = back_up(program, image, "--index-files")
    document = found(program, "*.conf", "--machine", "web")
    assert document["walked"] == [first]
    assert document["files"][0]["points"] == [first, second]


def test_what_cannot_be_indexed_is_said_and_backed_up(program: Program) -> None:
    program.expect("repo", "create")
    disk = program.folder / "xfs.raw"
    with disk.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run(["mkfs.xfs", "-q", disk], check=True)
    done = program.expect("backup", "--image", disk, "--name", "xfs", "--index-files", "-o", "json")
    assert any("file index" in one for one in done.document()["results"][0]["point"]["warnings"])
    refused = program.run("files", "ls", "xfs", "/", "--appliance", "never")
    assert refused.status in {30, 31}
    assert "kernel" in refused.err
    assert found(program, "*", "xfs")["remarks"]


def test_versions_of_one_file(program: Program, image: Path) -> None:
    points = [back_up(program, image), back_up(program, image)]
    with mounted(image) as root:
        (root / "etc/hosts").write_text("new")
    points.append(back_up(program, image))
    with mounted(image) as root:
        (root / "etc/hosts").unlink()
    points.append(back_up(program, image))
    document = program.expect(
        "files", "versions", "/etc/hosts", "--machine", "web", "--hash", "-o", "json"
    ).document()
    rows = document["versions"]
    assert [row["point"] for row in rows] == points
    assert [row["same_as_before"] for row in rows] == [False, True, False, False]
    assert [row["size"] for row in rows] == [20, 20, 3, None]
    assert rows[0]["sha256"] == rows[1]["sha256"] != rows[2]["sha256"]
    assert "same as before" in program.expect("files", "versions", "/etc/hosts", "--machine", "web").out


def test_what_changed(program: Program, image: Path) -> None:
    before = back_up(program, image)
    with mounted(image) as root:
        (root / "etc/hosts").write_text("new")
        (root / "srv/again").unlink()
        (root / "srv/more").mkdir()
        (root / "srv/more/file").write_text("more")
    after = back_up(program, image)
    document = program.expect("point", "diff", before, after, "-o", "json").document()
    assert [(one["change"], one["path"]) for one in document["changes"]] == [
        ("changed", "/etc/hosts"),
        ("removed", "/srv/again"),
        ("added", "/srv/more"),
        ("added", "/srv/more/file"),
    ]
    assert document["disks"][0]["bytes_changed"] > 0
    text = program.expect("point", "diff", before, after, "/srv").out
    assert "+ /srv/more/file" in text
    assert "/etc/hosts" not in text
    assert "Files:" in program.expect("point", "diff", before, after, "--disks").out
    same = program.expect("point", "diff", after, after, "--content", "-o", "json").document()
    assert (same["changes"], same["disks"][0]["bytes_changed"]) == ([], 0)


@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs FUSE")
def test_files_as_a_folder(program: Program, image: Path) -> None:
    first, second = back_up(program, image), back_up(program, image)
    folder = program.folder / "mnt"
    folder.mkdir()
    process = program.start("mount", first, second, str(folder))
    try:
        assert process.stderr is not None
        assert "Mounted" in process.stderr.readline()
        assert {path.name for path in folder.iterdir()} == {first, second}
        assert (folder / first / "disk0/etc/hosts").read_text() == "127.0.0.1 localhost\n"
        with pytest.raises(OSError, match="Read-only"):
            (folder / first / "disk0/etc/hosts").write_text("x")
    finally:
        done = interrupt(process, signal.SIGINT)
    assert done.status == 0, done.err
    assert not os.path.ismount(folder)
