"""Checking packs, repairing, verifying in turns and copying, from the command line."""

from pathlib import Path

import pytest

from hotspare.cli.quantities import parse_bytes, parse_duration, parse_moment
from hotspare.errors import UsageError
from hotspare.units import GIB, MIB
from tests.cli.images import change_image, make_image
from tests.cli.program import Program


@pytest.fixture
def image(program: Program) -> Path:
    path = program.folder / "images" / "web.raw"
    make_image(path)
    return path


def data_pack(program: Program) -> Path:
    return max((program.repository / "data").glob("*/*"), key=lambda path: path.stat().st_size)


def flip(path: Path, *places: int) -> None:
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 1
    path.write_bytes(data)


def back_up(program: Program) -> str:
    name: str = program.expect("machine", "list", "-o", "json").document()["machines"][0]["name"]
    program.expect("backup", name)
    return name


def test_packs_are_checked_without_any_key(program: Program, image: Path) -> None:
    program.expect("repo", "create", "--parity", "4")
    back_up(program)
    assert (
        "No problem" in program.expect("repo", "check", "--packs", "--no-key", HOTSPARE_PASSPHRASE=None).out
    )
    flip(data_pack(program), 100_000)
    done = program.run("repo", "check", "--packs", "--no-key", HOTSPARE_PASSPHRASE=None)
    assert done.status == 14
    assert "parity can repair it" in done.out
    assert program.run("repo", "check", "--no-key").status == 2


def test_parity_repairs_flipped_bits(program: Program, image: Path) -> None:
    program.expect("repo", "create", "--parity", "4")
    name = back_up(program)
    whole = data_pack(program).read_bytes()
    flip(data_pack(program), 100_000, 2_000_000)
    assert program.run("verify").status == 14
    assert "would be repaired" in program.expect("repo", "repair", "--dry-run").out
    assert "repaired from parity" in program.expect("repo", "repair").out
    assert data_pack(program).read_bytes() == whole
    program.expect("verify")
    assert name


def test_what_cannot_be_repaired_is_told_with_ranges_and_healed_by_the_next_backup(
    program: Program, image: Path
) -> None:
    program.expect("repo", "create")
    name = back_up(program)
    flip(data_pack(program), 300_000)
    done = program.run("repo", "repair", "-o", "json")
    assert done.status == 14
    (problem,) = done.document()["problems"]
    (affected,) = problem["affected"]
    assert affected["machine"] == name
    assert affected["ranges"] == [{"offset": 256 * 1024, "length": 256 * 1024}]
    assert "bytes 262144 to 524288" in program.run("repo", "check").out

    program.expect("backup", name)
    program.expect("repo", "check")
    program.expect("verify", name)
    old = program.expect("point", "list", "-o", "json").document()["points"][0]
    disk = old["disks"][0]["name"]
    program.expect("restore", old["id"], "--disk", f"{disk}={program.folder}/out.raw")
    assert (program.folder / "out.raw").read_bytes() == image.read_bytes()


def test_verify_goes_on_where_it_was(program: Program, image: Path) -> None:
    program.expect("repo", "create")
    name = back_up(program)
    change_image(image)
    program.expect("backup", name)
    first = program.expect("verify", "--max-bytes", "1KiB", "-o", "json").document()
    assert (first["packs"], first["packs_left"]) == (1, 3)
    assert program.expect("verify", "--for", "1h", "-o", "json").document()["packs"] == 4
    assert program.run("verify", name, "--for", "1h").status == 2
    assert program.run("verify", "--for", "soon").status == 2


def test_an_unreadable_point_is_forgotten_by_its_id(program: Program, image: Path) -> None:
    program.expect("repo", "create")
    back_up(program)
    (path,) = (program.repository / "points").glob("*/*")
    assert program.run("point", "forget", path.name, "--damaged", "--yes").status == 22
    assert path.exists()
    flip(path, 60)
    assert program.run("point", "forget", path.name, "--yes").status == 22
    program.expect("point", "forget", path.name, "--damaged", "--dry-run")
    assert path.exists()
    program.expect("point", "forget", path.name, "--damaged", "--yes")
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "amount"), [("1000", 1000), ("50MiB", 50 * MIB), ("1.5g", GIB * 3 // 2), ("20 MB/s", 20 * MIB)]
)
def test_amounts_of_bytes(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("30s", 30), ("1h30m", 5400), ("2 d", 172800)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "0", "5 apples", "1h30x"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    for parse in (parse_bytes, parse_duration, parse_moment):
        with pytest.raises(UsageError):
            parse(text)


def test_a_forgotten_point_that_comes_back_is_named_and_removed(program: Program, image: Path) -> None:
    program.expect("repo", "create")
    name = back_up(program)
    (stored,) = (program.repository / "points").glob("*/*")
    data = stored.read_bytes()
    change_image(image)
    program.expect("backup", name)
    program.expect("point", "forget", stored.name, "--yes")
    stored.write_bytes(data)  # as a late duplicate of its PUT does
    assert len(program.expect("point", "list", "-o", "json").document()["points"]) == 1
    assert program.expect("repo", "check", "-o", "json").document()["void"] == [stored.name]
    assert stored.name in program.expect("repo", "check").out
    program.expect("repo", "prune")
    assert not stored.exists()
    assert program.expect("repo", "check", "-o", "json").document()["void"] == []
