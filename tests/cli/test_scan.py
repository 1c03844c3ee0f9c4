"""Restore points given to a malware scanner: YARA with a rule of our own, and programs of two lines."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.cli.guest_image import make_guest_image, mounted
from tests.cli.program import Program, interrupt

RULE = 'rule Marked { strings: $mark = "THIS-IS-THE-MARK-OF-A-TEST" condition: $mark }\n'
MARK = b"MZ... THIS-IS-THE-MARK-OF-A-TEST ..."


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yar"
    path.write_text(RULE)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "guest.raw"
    make_guest_image(path)
    return path


@pytest.fixture
def protected(program: Program, image: Path) -> Program:
    program.expect("repo", "create")
    back_up(program, image)
    return program


def back_up(program: Program, image: Path) -> str:
    (result,) = program.expect("backup", "--image", image, "--name", "guest", "-o", "json").document()[
        "results"
    ]
    return str(result["point"]["id"])


def scan(program: Program, *words: str | Path, status: int = 0) -> dict[str, object]:
    done = program.run("verify", *words, "-o", "json")
    assert done.status == status, done.err
    (result,) = done.document()["results"]
    found: dict[str, object] = result["scan"]
    return found


def test_only_what_changed_since_the_last_clean_point_is_scanned(
    protected: Program, image: Path, rules: Path
) -> None:
    first = scan(protected, "guest", "--yara", rules)
    assert (first["verdict"], first["since"], first["not_scanned"]) == ("clean", None, 0)
    assert first["files"] == 5
    clean = back_up(protected, image)
    assert scan(protected, "guest", "--yara", rules)["files"] == 0

    with mounted(image) as root:
        (root / "srv/invoice.exe").write_bytes(MARK)
        (root / "etc/hosts").write_text("127.0.0.1 localhost.localdomain\n")
    back_up(protected, image)
    done = protected.run("verify", "guest", "--yara", rules, "-o", "json")
    assert done.status == 33
    assert done.error()["code"] == "suspicious"
    found = done.document()["results"][0]["scan"]
    assert (found["verdict"], found["since"], found["files"]) == ("suspicious", clean, 2)
    assert found["findings"] == [{"path": "/srv/invoice.exe", "said": "Marked"}]

    # The file stays, unchanged: a point that was not clean is nothing to go on from.
    back_up(protected, image)
    again = scan(protected, "guest", "--yara", rules, status=33)
    assert (again["verdict"], again["since"]) == ("suspicious", clean)
    # Another scanner does not know what this one has seen.
    assert scan(protected, "guest", "--scan", "true")["files"] == 6
    listed = protected.expect("point", "list").out
    assert "SUSPICIOUS" in listed
    assert list((protected.folder / "state/scan").iterdir()) == []


def test_a_command_tells_by_its_status_and_the_files_it_names(protected: Program, tmp_path: Path) -> None:
    scanner = tmp_path / "scanner"
    scanner.write_text(
        '#!/bin/sh\nfor f in "$1"/*; do echo "$f: OK"; done\ngrep -l worker "$1"/* && exit 1\nexit 0\n'
    )
    scanner.chmod(0o755)
    found = scan(protected, "guest", "--scan", str(scanner), status=33)
    assert found["findings"] == [{"path": "/etc/nginx/nginx.conf", "said": ""}]


@pytest.mark.parametrize(
    ("command", "status"), [("false", 33), ("sh -c 'echo bad day; exit 2'", 1), ("/nowhere", 20)]
)
def test_a_scanner_that_fails_is_not_one_that_finds(protected: Program, command: str, status: int) -> None:
    done = protected.run("verify", "guest", "--scan", command)
    assert done.status == status
    shown = protected.expect("point", "show", "guest", "-o", "json").document()["point"]["scan"]
    assert (shown is None) == (status != 33)


@pytest.mark.parametrize("content", [b"LUKS\xba\xbe\0\x02", b"nothing that anybody knows"])
def test_what_cannot_be_looked_at_is_not_called_clean(
    program: Program, tmp_path: Path, content: bytes
) -> None:
    image = tmp_path / "locked.raw"
    image.write_bytes(content + bytes(4 * 1024 * 1024))
    program.expect("repo", "create")
    back_up(program, image)
    found = scan(program, "guest", "--scan", "true")
    assert (found["verdict"], found["files"], found["not_scanned"]) == ("not-scanned", 0, 1)


def test_an_interrupted_scan_leaves_nothing(protected: Program) -> None:
    process = protected.start("verify", "guest", "--scan", "sleep 60")
    folder = protected.folder / "state/scan"
    deadline = time.monotonic() + 60
    while not list(folder.glob("*/*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert interrupt(process).status == 130
    assert list(folder.iterdir()) == []


def test_what_a_killed_scan_left_goes_with_the_next(protected: Program) -> None:
    process = protected.start("verify", "guest", "--scan", "sleep 60")
    folder = protected.folder / "state/scan"
    deadline = time.monotonic() + 60
    while not list(folder.glob("*/*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(list(folder.iterdir())) == 1
    scan(protected, "guest", "--scan", "true")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["--boot", "--scan", "true", "guest"],
        ["--scan", "true"],
        ["--scan", "true", "--all", "guest"],
        ["--scan", "true", "--yara", "x", "guest"],
        ["--scan-all", "guest"],
        ["--newest"],
        ["guest", "--check", "agent"],
        ["--boot", "guest", "--check", "http"],
        ["--boot", "guest", "--memory", "1MiB"],
    ],
)
def test_what_makes_no_sense_together(program: Program, words: list[str]) -> None:
    program.expect("repo", "create")
    done = program.run("verify", *words)
    assert done.status == 2
    assert "Nothing was" in done.err


def test_machines_cannot_be_started_where_there_is_only_a_folder_of_images(protected: Program) -> None:
    done = protected.run("verify", "--boot", "guest", "-o", "json")
    assert done.status == 2
    assert json.loads(done.err.splitlines()[-1])["what"].startswith("Machines cannot be started at images://")
