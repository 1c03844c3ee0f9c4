"""The catalog: what it remembers, and what it does with files that it cannot use."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hotspare.catalog.catalog import FILE_NAME, Catalog
from hotspare.catalog.rows import PointRow, RunResult
from hotspare.catalog.schema import MIGRATIONS, VERSION
from hotspare.errors import HotspareError, NoSpace, PermissionRefused

HOST = "qemu:///system"
STORE = "file:///srv/backup"
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
POINT = PointRow(
    repository=STORE,
    id="aa01",
    machine_id="uuid-of-web",
    machine_name="web",
    platform=HOST,
    finished_at=NOON,
    consistency="filesystem",
)


def must_not_warn(message: str) -> None:
    raise AssertionError(message)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(tmp_path / "state", must_not_warn)
    yield opened
    opened.close()


def begin(catalog: Catalog, machine: str = "web", kind: str = "backup") -> int:
    return catalog.begin_run(kind=kind, machine=machine, platform=HOST, repository=STORE)


def test_the_state_folder_is_made_for_its_owner_only(catalog: Catalog) -> None:
    assert catalog.path.parent.stat().st_mode & 0o777 == 0o700


def test_the_newest_point_of_each_machine_is_given(catalog: Catalog) -> None:
    later = replace(POINT, id="aa02", finished_at=NOON + timedelta(hours=1))
    other = replace(POINT, id="bb01", machine_id="uuid-of-db", machine_name="db")
    elsewhere = replace(POINT, id="cc01", platform="qemu+ssh://other/system")
    for point in (later, POINT, other, elsewhere):
        catalog.add_point(point)
    assert catalog.last_points(HOST, STORE) == [other, later]


def test_points_of_another_repository_count_only_when_none_is_named(catalog: Catalog) -> None:
    catalog.add_point(replace(POINT, repository="file:///other"))
    assert catalog.last_points(HOST, STORE) == []
    assert [point.repository for point in catalog.last_points(HOST, None)] == ["file:///other"]


def test_replacing_points_leaves_other_repositories_alone(catalog: Catalog) -> None:
    elsewhere = replace(POINT, repository="file:///other", machine_id="uuid-of-db", machine_name="db")
    catalog.add_point(POINT)
    catalog.add_point(elsewhere)
    renewed = replace(POINT, id="aa09")
    catalog.replace_points(STORE, [renewed])
    assert catalog.last_points(HOST, None) == [elsewhere, renewed]


def test_replacing_points_fails_as_a_whole(catalog: Catalog) -> None:
    def torn() -> Iterator[PointRow]:
        yield replace(POINT, id="aa09")
        raise RuntimeError("the repository went away")

    catalog.add_point(POINT)
    with pytest.raises(RuntimeError):
        catalog.replace_points(STORE, torn())
    assert catalog.last_points(HOST, STORE) == [POINT]


def test_a_forgotten_point_is_gone(catalog: Catalog) -> None:
    catalog.add_point(POINT)
    catalog.remove_point(STORE, POINT.id)
    assert catalog.last_points(HOST, STORE) == []


def test_points_survive_reopening(tmp_path: Path) -> None:
    first = Catalog.open(tmp_path, must_not_warn)
    first.add_point(POINT)
    first.close()
    second = Catalog.open(tmp_path, must_not_warn)
    assert second.last_points(HOST, STORE) == [POINT]
    second.close()


def test_a_run_goes_from_running_to_its_end(catalog: Catalog) -> None:
    number = begin(catalog)
    running = catalog.runs(10)[0]
    assert (running.outcome, running.finished_at) == ("running", None)
    catalog.finish_run(number, RunResult(outcome="ok", point="aa01", bytes_read=7, bytes_stored=5))
    finished = catalog.runs(10)[0]
    assert (finished.outcome, finished.point) == ("ok", "aa01")
    assert (finished.bytes_read, finished.bytes_stored) == (7, 5)
    assert finished.finished_at is not None
    assert finished.finished_at >= finished.started_at


def test_runs_come_newest_first_and_limited(catalog: Catalog) -> None:
    for name in ("a", "b", "c"):
        begin(catalog, name)
    assert [run.machine for run in catalog.runs(2)] == ["c", "b"]


def test_only_backups_count_as_last_backup(catalog: Catalog) -> None:
    failed = begin(catalog)
    catalog.finish_run(failed, RunResult(outcome="failed", error_code="no-space", error="full"))
    begin(catalog, kind="restore")
    begin(catalog, machine="db")
    last = catalog.last_backups(HOST)
    assert {name: run.outcome for name, run in last.items()} == {"web": "failed", "db": "running"}
    assert last["web"].error_code == "no-space"


def test_the_run_of_a_killed_process_is_lost(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from hotspare.catalog.catalog import Catalog\n"
        "catalog = Catalog.open(Path(sys.argv[1]), print)\n"
        "catalog.begin_run(kind='backup', machine='web', platform='p', repository='r')\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    catalog = Catalog.open(tmp_path, must_not_warn)
    assert catalog.runs(1)[0].outcome == "lost"
    catalog.close()


@pytest.mark.parametrize("damage", ["not-sqlite", "torn"])
def test_a_damaged_catalog_is_set_aside(tmp_path: Path, damage: str) -> None:
    catalog = Catalog.open(tmp_path, must_not_warn)
    for number in range(200):
        catalog.add_point(replace(POINT, id=f"{number:04}"))
    catalog.close()
    path = tmp_path / FILE_NAME
    whole = path.read_bytes()
    path.write_bytes(
        b"not a database at all" if damage == "not-sqlite" else whole[:4096] + bytes(len(whole) - 4096)
    )
    before = path.read_bytes()
    warnings: list[str] = []
    fresh = Catalog.open(tmp_path, warnings.append)
    assert fresh.last_points(HOST, STORE) == []
    fresh.add_point(POINT)
    fresh.close()
    (aside,) = tmp_path.glob("*.damaged-*")
    assert aside.read_bytes() == before
    assert len(warnings) == 1
    assert str(aside) in warnings[0]


def test_an_older_catalog_keeps_its_runs(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        for statement in MIGRATIONS[0].split(";"):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO runs (kind, machine, platform, repository, process, started_at, outcome)"
            " VALUES ('backup', 'web', ?, ?, 'gone', '2026-05-04T12:00:00+00:00', 'ok')",
            (HOST, STORE),
        )
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    catalog = Catalog.open(tmp_path, must_not_warn)
    (run,) = catalog.runs(10)
    assert (run.machine, run.outcome, run.held_back_seconds) == ("web", "ok", None)
    catalog.finish_run(run.id, RunResult(outcome="ok", held_back_seconds=3.5, latency_factor=1.7))
    (run,) = catalog.runs(10)
    assert (run.held_back_seconds, run.latency_factor) == (3.5, 1.7)
    catalog.close()


def test_a_newer_catalog_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(HotspareError, match=rf"of version {VERSION + 1}; .* up to {VERSION}"):
        Catalog.open(tmp_path, must_not_warn)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [FILE_NAME]


def test_a_state_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PermissionRefused, match="HOTSPARE_STATE_FOLDER"):
        Catalog.open(tmp_path / "file" / "state", must_not_warn)


def test_a_catalog_that_cannot_be_opened_is_explained(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(PermissionRefused, match="cannot be opened"):
        Catalog.open(tmp_path, must_not_warn)


def test_a_full_file_system_is_explained(catalog: Catalog) -> None:
    pages = catalog._connection.execute("PRAGMA page_count").fetchone()[0]
    catalog._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(NoSpace, match="no space for the catalog"):
        catalog.replace_points(STORE, (replace(POINT, id=f"{number:04}") for number in range(1000)))
    assert catalog.last_points(HOST, STORE) == []


def test_two_processes_may_begin_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from hotspare.catalog.catalog import Catalog\n"
        "catalog = Catalog.open(Path(sys.argv[1]), print)\n"
        "catalog.begin_run(kind='backup', machine='web', platform='p', repository='r')"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
    catalog = Catalog.open(tmp_path, must_not_warn)
    assert len(catalog.runs(10)) == 4
    catalog.close()
