"""``hotspare report`` upon a real repository: what ran, what is promised and what is protected."""

import csv
import io
from pathlib import Path

import pytest

from hotspare.catalog.catalog import Catalog
from tests.cli.images import change_image, make_image
from tests.cli.program import Program

MIB = 1024 * 1024


@pytest.fixture
def program(program: Program) -> Program:
    for number, name in enumerate(("web", "db"), 1):
        make_image(program.folder / "images" / f"{name}.raw", MIB, data=MIB, seed=number)
    program.expect("repo", "create")
    program.expect("policy", "add", "nightly", "--include", "web", "--when", "22:00", "--rpo", "26h")
    return program


def test_a_report_has_what_was_done_and_what_was_not(program: Program) -> None:
    image = program.folder / "images/web.raw"
    program.expect("policy", "run", "nightly")
    first = image.stat().st_size
    change_image(image)
    program.expect("policy", "run", "nightly")
    program.expect("backup", "db")
    (program.folder / "images/db.raw").rename(program.folder / "db.raw")
    assert program.run("backup", "db").status != 0

    size = image.stat().st_size
    found = program.expect("report", "-o", "json").document()
    machines = {one["machine"]: one for one in found["machines"]}
    web, db = machines["web"], machines["db"]
    assert (web["runs_ok"], web["runs_failed"], web["policies"], web["rpo_kept"]) == (2, 0, ["nightly"], 1.0)
    assert (web["protected_bytes"], web["points"], web["bytes_read"]) == (size, 2, first + size)
    assert (db["runs_ok"], db["policies"], db["rpo_kept"], db["tags"]) == (1, [], None, [])
    assert db["runs_failed"] == 1
    assert [one["policy"] for one in found["policies"]] == ["nightly", None]
    assert {one["tag"]: one["points"] for one in found["tags"]} == {None: 3}
    assert (found["totals"]["machines"], found["totals"]["points"], found["problems"]) == (2, 3, [])

    text = program.expect("report").out
    assert "(by hand)" in text
    assert "100.0%" in text
    only = program.expect("report", "--by", "policy").out
    assert "TESTED" not in only
    rows = list(csv.DictReader(io.StringIO(program.expect("report", "--csv").out)))
    assert [(row["machine"], row["runs_ok"], row["rpo_kept"]) for row in rows] == [
        ("db", "1", ""),
        ("web", "2", "1.0"),
    ]
    tags = list(csv.DictReader(io.StringIO(program.expect("report", "--csv", "--by", "tag").out)))
    assert [(row["tag"], row["points"]) for row in tags] == [("", "3")]


def test_points_of_an_older_version_are_measured_when_they_are_listed(program: Program) -> None:
    program.expect("backup", "web")
    catalog = Catalog.open(program.folder / "state", print)
    catalog._connection.execute("UPDATE points SET size = NULL, bytes_stored = NULL, tags = NULL")
    catalog.close()
    finished = program.expect("report")
    assert "What 1 restore points took is not known" in finished.err
    program.expect("point", "list")
    finished = program.expect("report", "-o", "json")
    assert (
        finished.document()["totals"]["protected_bytes"] == (program.folder / "images/web.raw").stat().st_size
    )
    assert finished.err == ""


def test_a_platform_that_does_not_answer_is_named(program: Program, tmp_path: Path) -> None:
    program.expect("backup", "web")
    gone = f"images://{tmp_path}/not-there"
    program.expect("policy", "add", "other", "--platform", gone, "--when", "22:00", "--rpo", "1d")
    finished = program.expect("report", "-o", "json")
    assert [one["platform"] for one in finished.document()["problems"]] == [gone]
    assert "does not answer" in finished.err or gone in finished.err
    assert finished.document()["totals"]["runs_ok"] == 1


def test_what_is_no_period_is_refused(program: Program) -> None:
    for words in (
        ("--from", "2020-02-01", "--to", "2020-01-01"),
        ("--from", "yesterday"),
        ("--csv", "-o", "json"),
    ):
        assert program.run("report", *words).status == 2
