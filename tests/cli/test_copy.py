"""``hotspare repo copy``: into another repository, again, and after it was killed."""

import signal
import time
from pathlib import Path

import msgspec
import pytest

from hotspare.repository.point import point_name, seal_point
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from hotspare.units import MIB
from tests.cli.images import change_image, make_image
from tests.cli.program import PASSPHRASE, Program

TO = {"HOTSPARE_TO_PASSPHRASE": "other"}


@pytest.fixture
def source(program: Program) -> Program:
    image = program.folder / "images" / "web.raw"
    make_image(image)
    program.expect("repo", "create")
    name = program.expect("machine", "list", "-o", "json").document()["machines"][0]["name"]
    program.expect("backup", name)
    change_image(image)
    program.expect("backup", name)
    return program


def restored(program: Program, repository: Path) -> bytes:
    variables = {"HOTSPARE_REPOSITORY": str(repository), "HOTSPARE_PASSPHRASE": "other"}
    program.expect("verify", **variables)
    point = program.expect("point", "list", "-o", "json", **variables).document()["points"][-1]
    out = program.folder / "out.raw"
    program.expect(
        "restore", point["id"], "--disk", f"{point['disks'][0]['name']}={out}", "--force", **variables
    )
    return out.read_bytes()


@pytest.mark.parametrize("like", [False, True])
def test_all_points_are_copied_and_restore_the_same(source: Program, like: bool) -> None:
    target = source.folder / "second"
    if like:
        source.expect("repo", "create", target, "--like", source.repository, **TO)
    else:
        source.expect("repo", "create", target, HOTSPARE_PASSPHRASE="other")
    planned = source.expect("repo", "copy", "--to", target, "--dry-run", "-o", "json", **TO).document()
    assert len(planned["copied"]) == 2
    done = source.expect("repo", "copy", "--to", target, "-o", "json", **TO).document()
    assert done["copied"] == planned["copied"]
    assert restored(source, target) == (source.folder / "images" / "web.raw").read_bytes()
    again = source.expect("repo", "copy", "--to", target, "-o", "json", **TO).document()
    assert (again["copied"], again["there"], again["bytes_stored"]) == ([], done["copied"], 0)


def test_points_are_chosen(source: Program) -> None:
    target = source.folder / "second"
    source.expect("repo", "create", target, HOTSPARE_PASSPHRASE="other")
    points = source.expect("point", "list", "-o", "json").document()["points"]

    def copied(*words: str) -> list[str]:
        found: list[str] = source.expect(
            "repo", "copy", "--to", target, "--dry-run", "-o", "json", *words, **TO
        ).document()["copied"]
        return found

    assert copied("--point", points[0]["id"]) == [points[0]["id"]]
    assert copied("--since", "2100-01-01") == []
    assert len(copied("--machine", points[0]["machine"])) == 2
    assert source.run("repo", "copy", "--to", target, "--machine", "nobody", **TO).status == 2
    assert (
        source.run("repo", "copy", "--to", target, "--point", "x", "--since", "2026-01-01", **TO).status == 2
    )
    assert source.run("repo", "copy", "--to", target, HOTSPARE_TO_PASSPHRASE="wrong").status == 12
    assert (
        source.run("repo", "copy", "--to", source.repository, HOTSPARE_TO_PASSPHRASE=PASSPHRASE).status == 2
    )


def test_points_are_chosen_by_the_tags_that_their_machine_had(source: Program) -> None:
    """Images have no tags, so points of a platform that has are put beside theirs."""
    repository = Repository.open(LocalBackend(source.repository), PASSPHRASE)
    (model, *_) = repository.points()
    wanted = list[str]()
    for number, tags in enumerate([["prod"], ["prod", "db"], ["test"], []]):
        marked = msgspec.structs.replace(
            model,
            id=f"20300101-00000{number}-aaaaa",
            machine={**model.machine, "marks": {"tags": tags}},
            session="",
        )
        name = point_name(repository.keyring, marked)
        repository.backend.put(name, [seal_point(repository.keyring, marked)])
        wanted += [marked.id] * ("prod" in tags or "test" in tags)
    target = source.folder / "second"
    source.expect("repo", "create", target, HOTSPARE_PASSPHRASE="other")
    copy = ("repo", "copy", "--to", target, "-o", "json")
    assert source.expect(*copy, "--tag", "prod", "--dry-run", **TO).document()["copied"] == wanted[:2]
    assert source.run(*copy, "--tag", "nothing", **TO).status == 2
    assert source.run(*copy, "--tag", "prod", "--point", wanted[0], **TO).status == 2
    assert source.expect(*copy, "--tag", "prod", "--tag", "test", **TO).document()["copied"] == wanted
    assert not source.expect(*copy, "--tag", "test", "--since", "2100-01-01", **TO).document()["there"]


def test_a_copy_that_was_killed_goes_on_and_ends_whole(source: Program) -> None:
    """Killed without warning as soon as the first pack is there, more than once."""
    image = source.folder / "images" / "big.raw"
    make_image(image, 160 * MIB, data=150 * MIB, seed=9)
    source.expect("backup", "big.raw") if source.run("backup", "big.raw").status == 0 else source.expect(
        "backup", "big"
    )
    target = source.folder / "second"
    source.expect("repo", "create", target, HOTSPARE_PASSPHRASE="other")
    for round_ in range(2):
        process = source.start("repo", "copy", "--to", target, **TO)
        before = len(list(target.glob("data/*/*")))
        while process.poll() is None and len(list(target.glob("data/*/*"))) <= before + round_:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    source.expect("repo", "copy", "--to", target, **TO)
    assert restored(source, target) == image.read_bytes()
