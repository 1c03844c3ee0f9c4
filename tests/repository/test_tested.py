"""What was found out about restore points: kept beside them, gone with them, copied with them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import PermissionRefused, RepositoryDamaged
from hotspare.repository.check import check_structure
from hotspare.repository.copy import copy_points
from hotspare.repository.format import BOOT, SCANS, SCREENS
from hotspare.repository.object_lock.genuine import Judge
from hotspare.repository.repository import Repository
from hotspare.repository.tested import (
    BootRecord,
    CheckRecord,
    ScanRecord,
    Tested,
    drop_orphans,
    put_boot,
    put_scan,
    read_all_tested,
    read_boot,
    read_screen,
    read_tested,
)
from hotspare.storage.local import LocalBackend
from hotspare.storage.served.client import ServedBackend
from tests.compat.independent_reader import IndependentReader
from tests.repository.conftest import PASSPHRASE, collect_all, store

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)
PICTURE = b"\x89PNG a picture"
BOOTED = BootRecord(
    at=NOW,
    passed=False,
    life="agent",
    life_seconds=9.5,
    checks=(CheckRecord(name="tcp:80", outcome="failed", seconds=2.5, detail="refuses"),),
)
CLEAN = ScanRecord(at=NOW, verdict="clean", scanner="yara", since=None, files=3, bytes=12)


def note(repository: Repository, point_id: str, boot: BootRecord = BOOTED) -> None:
    put_boot(repository.backend, repository.keyring, point_id, boot, PICTURE)
    put_scan(repository.backend, repository.keyring, point_id, CLEAN)


def records(repository: Repository) -> list[str]:
    return sorted(item.name for prefix in (BOOT, SCREENS, SCANS) for item in repository.backend.list(prefix))


def test_the_last_test_of_a_point_counts(repository: Repository) -> None:
    backend, keyring = repository.backend, repository.keyring
    assert read_tested(backend, keyring, "a-point") == Tested()
    note(repository, "a-point")
    assert read_tested(backend, keyring, "a-point") == Tested(boot=BOOTED, scan=CLEAN)
    assert read_screen(backend, keyring, "a-point") == PICTURE
    again = msgspec.structs.replace(BOOTED, passed=True)
    put_boot(backend, keyring, "a-point", again, None)
    assert read_all_tested(backend, keyring) == {"a-point": Tested(boot=again, scan=CLEAN)}
    assert read_screen(backend, keyring, "a-point") is None  # an older picture would be of another test


def test_records_go_with_their_point(repository: Repository) -> None:
    first, second = (store(repository, "web", noise) for noise in (b"a" * 5000, b"b" * 5000))
    note(repository, first.id)
    note(repository, second.id)
    repository.forget(first)
    assert records(repository) == sorted(f"{prefix}{second.id}" for prefix in (BOOT, SCREENS, SCANS))
    assert read_boot(repository.backend, repository.keyring, second.id) == BOOTED


def test_a_prune_removes_what_is_left_of_forgotten_points(repository: Repository) -> None:
    point = store(repository, "web", b"a" * 5000)
    note(repository, point.id)
    note(repository, "20261101-000000-aaaaa")
    backend = repository.backend
    assert isinstance(backend, LocalBackend)
    collect_all(backend)
    assert records(repository) == sorted(f"{prefix}{point.id}" for prefix in (BOOT, SCREENS, SCANS))


def test_orphans_are_told_by_the_points_that_are_there_after_the_records_were_listed(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A point that is made, and tested, while a collector looks, keeps its record."""
    backend = repository.backend
    listed = type(backend).list
    made: list[str] = []

    def make_one_meanwhile(self: LocalBackend, prefix: str) -> object:
        found = list(listed(self, prefix))
        if prefix == SCANS and not made:
            made.append("")
            point = store(repository, "late", b"x" * 5000)
            made[0] = point.id
            note(repository, point.id)
        return iter(found)

    note(repository, "20261101-000000-aaaaa")
    monkeypatch.setattr(type(backend), "list", make_one_meanwhile)
    drop_orphans(backend)
    monkeypatch.undo()
    assert {name.partition("/")[2] for name in records(repository)} == {made[0]}


def test_a_copy_has_the_results_unless_it_has_newer_ones(repository: Repository, tmp_path: Path) -> None:
    first, second = (store(repository, "web", noise) for noise in (b"a" * 5000, b"b" * 5000))
    target = Repository.create(LocalBackend(tmp_path / "target"), "the other one")

    def copy() -> dict[str, Tested]:
        copy_points(repository, target, [first, second], events.ignore, Cancellation())
        return read_all_tested(target.backend, target.keyring)

    note(repository, first.id)
    assert copy() == {first.id: Tested(boot=BOOTED, scan=CLEAN)}
    assert read_screen(target.backend, target.keyring, first.id) == PICTURE
    newer = msgspec.structs.replace(BOOTED, at=NOW + timedelta(hours=1), passed=True)
    put_boot(target.backend, target.keyring, first.id, newer, None)
    note(repository, second.id)
    assert copy() == {
        first.id: Tested(boot=newer, scan=CLEAN),
        second.id: Tested(boot=BOOTED, scan=CLEAN),
    }


def test_damage_is_told_and_passed_over_in_lists(repository: Repository) -> None:
    point = store(repository, "web", b"a" * 5000)
    note(repository, point.id)
    repository.backend.put(BOOT + point.id, [b"something else"])
    with pytest.raises(RepositoryDamaged, match="boot/"):
        read_tested(repository.backend, repository.keyring, point.id)
    assert read_all_tested(repository.backend, repository.keyring) == {point.id: Tested(scan=CLEAN)}
    (problem,) = check_structure(repository, events.ignore, Cancellation()).problems
    assert (problem.object, problem.points) == (BOOT + point.id, (point.id,))


def test_an_append_only_client_cannot_make_a_point_look_good(
    repository: Repository, client: ServedBackend
) -> None:
    point = store(repository, "web", b"a" * 5000)
    note(repository, point.id)
    theirs = Repository.open(client, PASSPHRASE)
    good = msgspec.structs.replace(BOOTED, passed=True)
    with pytest.raises(PermissionRefused):
        put_boot(theirs.backend, theirs.keyring, point.id, good, PICTURE)
    with pytest.raises(PermissionRefused):
        put_scan(theirs.backend, theirs.keyring, point.id, CLEAN)
    assert read_boot(theirs.backend, theirs.keyring, point.id) == BOOTED


def test_a_program_written_from_the_specification_reads_them(repository: Repository, tmp_path: Path) -> None:
    note(repository, "a-point")
    reader = IndependentReader(tmp_path / "repository", PASSPHRASE)
    boot = reader.record("boot/a-point")
    assert (boot["at"], boot["passed"], boot["life"]) == (NOW, False, "agent")
    assert boot["checks"] == [
        {"name": "tcp:80", "outcome": "failed", "seconds": 2.5, "detail": "refuses", "output": ""}
    ]
    assert reader.record("screens/a-point") == PICTURE
    assert reader.record("scans/a-point")["verdict"] == "clean"


def test_who_looks_for_replaced_objects_knows_them(repository: Repository) -> None:
    note(repository, "a-point")
    judge = Judge(repository.keyring)
    for name in records(repository):
        assert judge.knows(name)
        assert judge.is_genuine(name, repository.backend.get(name))
        assert not judge.is_genuine(name.replace("a-point", "b-point"), repository.backend.get(name))
