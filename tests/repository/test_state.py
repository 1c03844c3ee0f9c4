"""State outside of disks, in a repository: kept, marked, checked, verified, repaired, copied like disks."""

import os
from pathlib import Path

import msgspec
import pytest

from hotspare import events
from hotspare.backup.machine import backup_machine
from hotspare.backup.options import BackupOptions
from hotspare.cancellation import Cancellation
from hotspare.platforms.platform import StateFile
from hotspare.repository.check import check_structure
from hotspare.repository.copy import copy_points
from hotspare.repository.gc.collect import prune
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.repository.verify import verify_points
from hotspare.storage.local import LocalBackend
from tests.backup.scripted_platform import ScriptedPlatform
from tests.repository.conftest import CHUNK, PASSPHRASE, store

NVRAM = os.urandom(3 * CHUNK + 100) + bytes(5 * CHUNK) + b"end"
STATE = (StateFile(name="nvram", content=NVRAM), StateFile(name="tpm/tpm2-00.permall", content=b"secret"))


def contents(repository: Repository, point: RestorePoint) -> dict[str, bytes]:
    found = {}
    for one in point.state:
        buffer = bytearray(one.size)
        repository.disk(one).read_into(0, memoryview(buffer))
        found[one.name] = bytes(buffer)
    return found


def whole(state: tuple[StateFile, ...] = STATE) -> dict[str, bytes]:
    return {one.name: one.content for one in state}


def test_state_reads_back_and_costs_nothing_when_it_stays(repository: Repository) -> None:
    first = store(repository, "vm", bytes(CHUNK), state=STATE)
    second = store(repository, "vm", bytes(CHUNK), state=STATE)

    assert contents(repository, first) == contents(repository, second) == whole()
    assert first.state[0].bytes_new == 4 * CHUNK + len(NVRAM) % CHUNK
    assert [one.bytes_stored for one in second.state] == [0, 0]


def test_garbage_collection_keeps_it(repository: Repository, tmp_path: Path) -> None:
    kept = store(repository, "vm", os.urandom(CHUNK), state=STATE)
    gone = store(
        repository, "vm", os.urandom(CHUNK), state=(StateFile(name="nvram", content=os.urandom(CHUNK)),)
    )
    repository.forget(gone)
    before = repository.statistics().stored_bytes
    prune(repository, events.ignore, Cancellation(), keep_waste=0)

    fresh = Repository.open(LocalBackend(tmp_path / "repository"), PASSPHRASE)
    assert fresh.statistics().stored_bytes < before - CHUNK
    assert contents(fresh, kept) == whole()


def test_damage_to_it_is_named(repository: Repository, tmp_path: Path) -> None:
    point = store(repository, "vm", bytes(CHUNK), state=STATE)
    for pack in (tmp_path / "repository" / "data").glob("*/*"):
        data = bytearray(pack.read_bytes())
        data[50] ^= 1
        pack.write_bytes(data)
    fresh = Repository.open(LocalBackend(tmp_path / "repository"), PASSPHRASE)

    (problem,) = verify_points(fresh, [point], events.ignore, Cancellation()).problems
    assert {(one.point, one.disk) for one in problem.affected} == {(point.id, "nvram")}


def test_a_missing_map_of_it_is_found_by_the_check(repository: Repository, tmp_path: Path) -> None:
    store(repository, "vm", bytes(CHUNK), state=STATE)
    for pack in (tmp_path / "repository" / "meta").glob("*/*"):
        pack.unlink()
    fresh = Repository.open(LocalBackend(tmp_path / "repository"), PASSPHRASE)

    problems = check_structure(fresh, events.ignore, Cancellation()).problems
    assert any(affected.disk == "nvram" for problem in problems for affected in problem.affected)


@pytest.mark.parametrize("chunk_size", [CHUNK, 4 * CHUNK])
def test_a_copy_has_it(repository: Repository, tmp_path: Path, chunk_size: int) -> None:
    point = store(repository, "vm", os.urandom(CHUNK), state=STATE)
    target = Repository.create(LocalBackend(tmp_path / "second"), PASSPHRASE, chunk_size=chunk_size)

    (copy,) = copy_points(repository, target, [point], events.ignore, Cancellation()).copied

    assert contents(target, copy) == whole()
    assert verify_points(target, target.points(), events.ignore, Cancellation()).problems == []


def without_the_feature(repository: Repository) -> Repository:
    """Give the repository as one that a version without state has made."""
    config = msgspec.structs.replace(
        repository.config, features=msgspec.structs.replace(repository.config.features, gc=())
    )
    return Repository(repository.backend, config, repository.keyring)


def test_an_old_repository_gets_no_state_and_says_so(repository: Repository, tmp_path: Path) -> None:
    point = store(repository, "vm", os.urandom(CHUNK), state=STATE)
    second = Repository.create(LocalBackend(tmp_path / "second"), PASSPHRASE, chunk_size=CHUNK)
    old = without_the_feature(second)
    heard: list[events.Event] = []

    (copy,) = copy_points(repository, old, [point], heard.append, Cancellation()).copied
    platform = ScriptedPlatform(CHUNK)
    platform.state = STATE
    made = backup_machine(old, platform, "web01", BackupOptions(), heard.append, Cancellation())

    assert copy.state == made.state == ()
    assert any("UEFI variables" in warning for warning in made.warnings)
    assert sum(isinstance(one, events.Warned) and "UEFI" in one.message for one in heard) == 2


def test_a_backup_stores_it_and_changes_become_deltas(repository: Repository) -> None:
    platform = ScriptedPlatform(CHUNK)
    platform.state = STATE
    backup_machine(repository, platform, "web01", BackupOptions(), events.ignore, Cancellation())
    changed = bytearray(NVRAM)
    changed[2 * CHUNK : 2 * CHUNK + 4] = b"boot"
    platform.state = (StateFile(name="nvram", content=bytes(changed)),)
    point = backup_machine(repository, platform, "web01", BackupOptions(), events.ignore, Cancellation())

    assert contents(repository, point) == whole(platform.state)
    assert 0 < point.state[0].bytes_stored < CHUNK // 2
