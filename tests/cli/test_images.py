"""The way from an image to a repository and back, with the real program, real files and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from hotspare.units import MIB
from tests.cli.images import change_image, make_image
from tests.cli.program import Program


@pytest.fixture
def disk(program: Program) -> Path:
    """Give an image, and make the repository for it."""
    path = program.folder / "server.raw"
    make_image(path)
    program.expect("repo", "create")
    return path


def back_up(program: Program, disk: Path, name: str = "server") -> dict[str, Any]:
    done = program.expect("backup", "--image", disk, "--name", name, "-o", "json")
    (result,) = done.document()["results"]
    assert result["outcome"] == "ok"
    point: dict[str, Any] = result["point"]
    return point


def points(program: Program, *words: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = program.expect("point", "list", "-o", "json", *words).document()["points"]
    return listed


def restored(program: Program, reference: str, target: Path, *words: str) -> bytes:
    (shown,) = program.expect("point", "show", reference, "-o", "json").document()["point"]["disks"]
    program.expect("restore", reference, "--disk", f"{shown['name']}={target}", *words)
    return target.read_bytes()


def test_an_image_there_and_back_at_two_times(program: Program, disk: Path) -> None:
    before = disk.read_bytes()
    first = back_up(program, disk)
    after = change_image(disk)
    second = back_up(program, disk)
    assert second["parent"] == first["id"]
    assert 0 < second["bytes_stored"] < first["bytes_stored"] / 2
    assert [point["id"] for point in points(program)] == [first["id"], second["id"]]
    assert restored(program, first["id"], program.folder / "first.raw") == before
    assert restored(program, "server", program.folder / "second.raw") == after
    assert restored(program, "server@latest", program.folder / "third.img") == after


def test_a_short_id_will_do(program: Program, disk: Path) -> None:
    point = back_up(program, disk)
    shown = program.expect("point", "show", point["id"][:10], "-o", "json").document()
    assert shown["point"] == {**point, "boot": None, "scan": None}
    assert shown["description"]["name"] == "server"


def test_text_for_people(program: Program, disk: Path) -> None:
    done = program.run_process("backup", "--image", disk, "--name", "server")
    assert (done.status, done.err) == (0, "")
    assert "server: restore point " in done.out
    assert "DEDUPLICATED" in done.out
    identity = points(program)[0]["id"]
    assert identity in program.expect("point", "list").out
    assert "Compared with:" in program.expect("point", "show", "server").out
    assert "Restore points: 1, of machines: 1" in program.expect("repo", "info").out
    assert "No problem was found" in program.expect("repo", "check").out
    assert "No problem was found" in program.expect("verify").out


def test_a_full_says_why_and_stores_nothing_twice(program: Program, disk: Path) -> None:
    first = back_up(program, disk)
    done = program.expect("backup", "--image", disk, "--name", "server", "--full", "-o", "json")
    second = done.document()["results"][0]["point"]
    assert second["disks"][0]["mode"] == "full"
    assert second["disks"][0]["full_because"]
    assert second["bytes_stored"] < first["bytes_stored"] / 10


def test_a_dry_run_stores_nothing(program: Program, disk: Path) -> None:
    done = program.expect("backup", "--image", disk, "--name", "server", "--dry-run")
    assert "server" in done.out
    assert "for the first time" in done.out
    assert points(program) == []
    assert program.expect("run", "list", "-o", "json").document()["runs"] == []


def test_points_of_one_machine(program: Program, disk: Path) -> None:
    back_up(program, disk, "one")
    back_up(program, disk, "two")
    assert [point["machine"] for point in points(program, "--machine", "two")] == ["two"]


def test_forgetting_asks_or_needs_yes(program: Program, disk: Path) -> None:
    point = back_up(program, disk)
    refused = program.run("point", "forget", point["id"], typed="y\n")
    assert (refused.status, len(points(program))) == (2, 1)
    assert "--yes" in refused.err
    assert "Would forget" in program.expect("point", "forget", point["id"], "--dry-run").out
    status, _ = program.on_terminal("point", "forget", "server", answers=[("[y/N]", "n")])
    assert (status, len(points(program))) == (1, 1)
    status, screen = program.on_terminal("point", "forget", "server", answers=[("[y/N]", "y")])
    assert (status, len(points(program))) == (0, 0)
    assert "prune" in screen


def test_forgetting_with_yes_leaves_the_others_whole(program: Program, disk: Path) -> None:
    first = back_up(program, disk)
    after = change_image(disk)
    back_up(program, disk)
    program.expect("point", "forget", first["id"], "--yes")
    assert len(points(program)) == 1
    program.expect("verify")
    assert restored(program, "server", program.folder / "again.raw") == after


def test_several_points_are_forgotten_in_one_go_or_none(program: Program, disk: Path) -> None:
    first, second, third = (back_up(program, disk) for _ in range(3))
    program.expect("point", "keep", second["id"])
    refused = program.run("point", "forget", first["id"], second["id"], "--yes")
    assert (refused.status != 0, len(points(program))) == (True, 3)
    program.expect("point", "forget", first["id"], third["id"], first["id"], "--yes")
    assert [point["id"] for point in points(program)] == [second["id"]]


def test_an_existing_file_is_overwritten_only_by_force(program: Program, disk: Path) -> None:
    name = back_up(program, disk)["disks"][0]["name"]
    target = program.folder / "precious.raw"
    target.write_text("precious")
    refused = program.run("restore", "server", "--disk", f"{name}={target}")
    assert refused.status == 26
    assert target.read_text() == "precious"
    assert restored(program, "server", target, "--force") == disk.read_bytes()


def test_a_disk_that_the_point_lacks_is_refused(program: Program, disk: Path) -> None:
    name = back_up(program, disk)["disks"][0]["name"]
    refused = program.run("restore", "server", "--disk", f"nope={program.folder}/x.raw")
    assert refused.status == 2
    assert f"Its disks: {name}" in refused.err


def test_runs_are_remembered_with_their_ends(program: Program, disk: Path) -> None:
    point = back_up(program, disk)
    program.run("backup", "--image", program.folder / "absent.raw", "--name", "absent")
    restored(program, "server", program.folder / "x.raw")
    program.expect("verify", "server")
    runs = program.expect("run", "list", "-o", "json").document()["runs"]
    ended = {(run["kind"], run["machine"]): run for run in runs}
    assert [run["id"] for run in runs] == sorted((run["id"] for run in runs), reverse=True)
    assert ended["backup", "server"]["point"] == point["id"]
    assert ended["backup", "server"]["bytes_stored"] == point["bytes_stored"]
    assert {
        ended[key]["outcome"] for key in [("backup", "server"), ("restore", "server"), ("verify", "server")]
    } == {"ok"}
    assert "server" in program.expect("run", "list").out


def test_bars_on_a_terminal_and_silence_without(program: Program, disk: Path) -> None:
    words = ("backup", "--image", str(disk), "--name", "server")
    status, screen = program.on_terminal(*words)
    assert status == 0
    assert "\x1b[" in screen
    assert "8.0 MiB" in screen
    assert "restore point" in screen
    _, plain = program.on_terminal(*words, NO_COLOR="1", TERM="dumb")
    assert "\x1b[" not in plain
    _, quiet = program.on_terminal(*words, "--no-progress")
    assert "\x1b[" not in quiet


def test_progress_as_json_lines(program: Program, disk: Path) -> None:
    done = program.expect("backup", "--image", disk, "--name", "server", "--progress", "jsonl", "-o", "json")
    events = [json.loads(line) for line in done.err.splitlines()]
    assert events[0]["type"] == "phase-started"
    (started,) = [event for event in events if event["type"] == "disk-started"]
    assert started["size"] == 8 * MIB
    assert events[-1]["type"] in {"phase-started", "disk-finished", "stages-timed"}
    assert done.document()["type"] == "backup"


def test_machines_of_a_folder_and_their_state(program: Program) -> None:
    program.expect("repo", "create")
    make_image(program.folder / "images" / "web.raw")
    make_image(program.folder / "images" / "db.raw", seed=2)

    def listed() -> dict[str, dict[str, Any]]:
        machines = program.expect("machine", "list", "-o", "json").document()["machines"]
        return {machine["name"]: machine for machine in machines}

    assert {machine["state"] for machine in listed().values()} == {"never-backed-up"}
    done = program.expect("backup", *listed(), "-o", "json")
    made = {result["machine"]: result["point"]["id"] for result in done.document()["results"]}
    assert {name: machine["last_point"] for name, machine in listed().items()} == made
    assert {machine["state"] for machine in listed().values()} == {"ok"}
    (program.folder / "images" / "web.raw").unlink()
    assert sorted(machine["state"] for machine in listed().values()) == ["gone", "ok"]
    assert "gone" in program.expect("machine", "list").out


def test_a_machine_whose_last_backup_failed_says_so(program: Program) -> None:
    program.expect("repo", "create")
    make_image(program.folder / "images" / "web.raw")
    (machine,) = program.expect("machine", "list", "-o", "json").document()["machines"]
    program.expect("backup", machine["name"])
    blocked = program.repository / "points"
    blocked.rename(program.folder / "aside")
    blocked.touch()
    assert program.run("backup", machine["name"]).status != 0
    (failed,) = program.expect("machine", "list", "-o", "json").document()["machines"]
    assert (failed["state"], failed["last_point"] is not None) == ("failed", True)
    assert failed["last_error"]
    blocked.unlink()
    (program.folder / "aside").rename(blocked)
    program.expect("backup", machine["name"])
    (mended,) = program.expect("machine", "list", "-o", "json").document()["machines"]
    assert (mended["state"], mended["last_error"]) == ("ok", None)


def test_the_list_of_points_fills_a_lost_catalog(program: Program) -> None:
    program.expect("repo", "create")
    make_image(program.folder / "images" / "web.raw")
    (machine,) = program.expect("machine", "list", "-o", "json").document()["machines"]
    program.expect("backup", machine["name"])
    catalog = program.folder / "state" / "catalog.sqlite"
    catalog.write_bytes(b"garbage" * 1000)
    done = program.expect("machine", "list", "-o", "json")
    assert "catalog was damaged" in done.err
    assert done.document()["machines"][0]["state"] == "never-backed-up"
    program.expect("point", "list")
    (found,) = program.expect("machine", "list", "-o", "json").document()["machines"]
    assert found["state"] == "ok"


def test_a_machine_restored_to_a_folder_of_images(program: Program) -> None:
    program.expect("repo", "create")
    content = make_image(program.folder / "images" / "web.raw")
    (machine,) = program.expect("machine", "list", "-o", "json").document()["machines"]
    program.expect("backup", machine["name"])
    done = program.expect("restore", machine["name"], "--to", "again", "-o", "json")
    (disk,) = done.document()["machine"]["disks"]
    assert Path(disk["source"]).read_bytes() == content
    refused = program.run("restore", machine["name"], "--to", "again")
    assert refused.status == 26
