"""Restores on the command line that need no machine: killed and gone on with, planned, over what is there."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from hotspare.units import MIB
from tests.cli.images import change_image, make_image
from tests.cli.program import Program

SIZE = 48 * MIB


@pytest.fixture
def disk(program: Program) -> Path:
    """An image of which there is a restore point, ``web``."""
    path = program.folder / "web.raw"
    make_image(path, SIZE, data=40 * MIB)
    program.expect("repo", "create")
    program.expect("backup", "--image", path, "--name", "web")
    return path


def name_of_disk(program: Program) -> str:
    shown = program.expect("point", "show", "web", "-o", "json").document()
    name: str = shown["point"]["disks"][0]["name"]
    return name


def restore(program: Program, target: Path, *words: str) -> dict[str, Any]:
    done = program.expect(
        "restore", "web", "--disk", f"{name_of_disk(program)}={target}", *words, "-o", "json"
    )
    (one,) = done.document()["disks"]
    described: dict[str, Any] = one
    return described


def space_taken(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.glob("*"))


@pytest.mark.parametrize("name", ["out.raw", "out.qcow2"])
def test_a_killed_restore_goes_on_where_it_was(program: Program, disk: Path, name: str) -> None:
    target = program.folder / name
    partial = program.folder / f".{name}.hotspare-partial"
    words = ("restore", "web", "--disk", f"{name_of_disk(program)}={target}")
    process = program.start(*words, HOTSPARE_DOWNLOAD_LIMIT="6MiB/s")
    deadline = time.monotonic() + 60
    while space_taken(partial) < 12 * MIB:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not target.exists()

    again = restore(program, target)

    assert again["bytes_compared"] >= 8 * MIB
    assert again["bytes_written"] <= 32 * MIB, (
        "of 40 MiB at least 12 were there, up to a stripe of each worker"
    )
    compare = ["qemu-img", "compare", "-f", "raw", "-F", again["format"], str(disk), str(target)]
    subprocess.run(compare, check=True)
    assert not partial.exists()


def test_two_restores_to_one_place_do_not_meet(program: Program, disk: Path) -> None:
    target = program.folder / "out.raw"
    partial = program.folder / ".out.raw.hotspare-partial"
    words = ("restore", "web", "--disk", f"{name_of_disk(program)}={target}")
    first = program.start(*words, HOTSPARE_DOWNLOAD_LIMIT="3MiB/s")
    deadline = time.monotonic() + 60
    while not space_taken(partial):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    refused = program.run(*words)
    assert (refused.status, "Another restore" in refused.err) == (26, True)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130, said
    assert not partial.exists(), "what was asked to stop leaves nothing"


def test_over_an_image_only_what_differs(program: Program, disk: Path) -> None:
    target = program.folder / "copy.raw"
    target.write_bytes(disk.read_bytes())
    change_image(target)
    done = restore(program, target, "--differential")
    assert (done["bytes_compared"], done["bytes_written"]) == (SIZE, 64 * 1024)
    assert target.read_bytes() == disk.read_bytes()


def test_a_plan_makes_nothing(program: Program, disk: Path) -> None:
    before = sorted(path.name for path in (program.folder / "images").iterdir())
    plan = program.expect("restore", "web", "--to", "again", "--dry-run", "-o", "json").document()["plan"]
    (planned,) = plan["disks"]
    assert (planned["size"], planned["bytes_data"], plan["id"]) == (SIZE, 40 * MIB, None)
    shown = program.expect("restore", "web", "--to", "again", "--dry-run").out
    assert "Would restore web" in shown
    assert planned["path"] in shown
    assert sorted(path.name for path in (program.folder / "images").iterdir()) == before


def test_too_little_space_is_known_before(program: Program, disk: Path) -> None:
    small = program.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", small], check=True)
    try:
        refused = program.run("restore", "web", "--to", "again", "--folder", small)
        assert (refused.status, "40.0 MiB" in refused.err) == (24, True)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "One of"),
        (["--to", "x", "--in-place"], "One of"),
        (["--to", "x", "--force"], "--disk only"),
        (["--disk", "a=/b", "--keep-macs"], "--to only"),
        (["--in-place", "--folder", "/x"], "--to only"),
        (["--to", "x", "--yes"], "--in-place only"),
        (["--disk", "a=/b", "--start"], "do not go with --disk"),
        (["--disk", "a=/b", "--force", "--differential"], "exclude each other"),
        (["--disk", "a"], "is not of the form"),
        (["--disk", "a=/b", "--disk", "b=/b"], "second time"),
        (["--disk", "a=/b", "--disk", "a=/c"], "second time"),
        (["--to", "x", "--place", "vda"], "is not of the form"),
        (["--to", "x", "--pool", "fast"], "have no pools"),
        (["--in-place", "--yes"], "no machine can be restored in place"),
    ],
)
def test_options_that_do_not_go_together(program: Program, words: list[str], says: str) -> None:
    program.expect("repo", "create")
    make_image(program.folder / "web.raw", 4 * MIB)
    program.expect("backup", "--image", program.folder / "web.raw", "--name", "web")
    refused = program.run("restore", "web", *words)
    assert (refused.status, says in refused.err) == (2, True), refused.err


def test_the_definition_of_an_image_is_said_in_neutral_words(program: Program) -> None:
    program.expect("repo", "create")
    make_image(program.folder / "web.raw", 4 * MIB)
    program.expect("backup", "--image", program.folder / "web.raw", "--name", "web")
    refused = program.run("point", "definition", "web")
    assert (refused.status, "-o json" in refused.err) == (2, True)
    document = program.expect("point", "definition", "web", "-o", "json").document()
    assert (document["machine"]["name"], document["native"]) == ("web", None)
