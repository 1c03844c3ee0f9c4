"""Bringing back what was deleted or replaced. tests/storage/test_object_lock.py attacks a real server."""

from pathlib import Path

import pytest

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, RepositoryDamaged, RepositoryNotFound, StorageError, WrongKey
from hotspare.repository.check import check_structure
from hotspare.repository.format import parse_pack_name
from hotspare.repository.gc.state import put_condemned
from hotspare.repository.keys.keychest import Keychest
from hotspare.repository.keys.slot import KeyFile
from hotspare.repository.object_lock.inspect import lock_problems
from hotspare.repository.object_lock.recover import RecoverReport, recover_repository
from hotspare.repository.opening import open_keys
from hotspare.repository.session import Session, SessionKind
from hotspare.storage.local import LocalBackend
from tests.repository.object_lock.conftest import KEY, PERIOD, Locked, noise
from tests.storage.versioned_memory import VersionedMemory


def recover(locked: Locked, *, forgotten: bool = False, dry_run: bool = False) -> RecoverReport:
    return recover_repository(
        locked.memory, KEY, events.ignore, Cancellation(), forgotten=forgotten, dry_run=dry_run
    )


def assert_whole(locked: Locked) -> None:
    repository = locked.open()
    assert check_structure(repository, events.ignore, Cancellation()).problems == []
    assert lock_problems(repository, Cancellation()) == []


def seen(memory: VersionedMemory) -> dict[str, bytes]:
    return {item.name: memory.get(item.name) for item in memory.list("")}


@pytest.fixture
def disks() -> list[bytearray]:
    return [noise(1), noise(2)]


def test_nothing_to_bring_back(locked: Locked) -> None:
    locked.store(noise(1))
    before = seen(locked.memory)
    report = recover(locked)

    assert (report.shown, report.put_back, report.removed, report.lost, report.problems) == ((),) * 4 + ([],)
    assert not report.reindexed
    assert {name: data for name, data in seen(locked.memory).items() if "locks/" not in name} == {
        name: data for name, data in before.items() if "locks/" not in name
    }


def test_everything_was_deleted(locked: Locked, disks: list[bytearray]) -> None:
    points = [locked.store(disk) for disk in disks]
    before = seen(locked.memory)
    for name in before:
        locked.memory.delete(name)
    with pytest.raises(RepositoryNotFound):
        locked.open()
    planned = recover(locked, dry_run=True)
    assert seen(locked.memory) == {}
    report = recover(locked)

    assert sorted(report.points) == sorted(point.id for point in points)
    assert set(report.shown) >= {name for name in before if not name.startswith("locks/")}
    assert set(planned.shown) == set(report.shown)
    assert [locked.content(point) for point in points] == disks
    assert_whole(locked)
    locked.prune()
    assert [locked.content(point) for point in points] == disks


def test_everything_was_replaced_and_then_deleted_twice(locked: Locked, disks: list[bytearray]) -> None:
    """Some of what was put over it is locked, and cannot be removed."""
    points = [locked.store(disk) for disk in disks]
    before = seen(locked.memory)
    for number, name in enumerate(before):
        if number % 2:
            locked.memory.put(name, [b"garbage"])
        else:
            locked.memory.put_locked(name, [b"garbage"], locked.clock.now + PERIOD)
        locked.memory.delete(name)
        locked.memory.delete(name)
    report = recover(locked)

    assert set(report.put_back) >= {name for name in before if not name.startswith("locks/")}
    assert report.lost == ()
    assert [locked.content(point) for point in points] == disks
    assert_whole(locked)


def test_the_index_is_gone_for_good(locked: Locked, disks: list[bytearray]) -> None:
    """It is not locked; it is made again from the packs."""
    points = [locked.store(disk) for disk in disks]
    for name in seen(locked.memory):
        locked.memory.delete(name)
        if name.startswith("index/"):
            for one in list(locked.memory.versions(name)):
                locked.memory.delete_version(name, one.version)
    report = recover(locked)

    assert report.reindexed
    assert [locked.content(point) for point in points] == disks
    assert_whole(locked)


def test_runs_that_only_sleep_are_given_up(locked: Locked, disks: list[bytearray]) -> None:
    """A collector has condemned all packs, and may wake up after its set is gone."""
    points = [locked.store(disk) for disk in disks]
    repository = locked.open()
    session = Session(repository.backend, repository.keyring, SessionKind.COLLECTOR)
    session.begin()
    packs = filter(None, map(parse_pack_name, seen(locked.memory)))
    put_condemned(repository.backend, repository.keyring, session.id, packs)
    for name in [name for name in seen(locked.memory) if name.startswith("index/")]:
        repository.backend.delete(name)
    report = recover(locked)

    assert report.reindexed
    assert session.expelled()
    assert [locked.content(point) for point in points] == disks
    locked.prune()
    assert_whole(locked)


def test_what_stands_in_the_way_is_removed(locked: Locked) -> None:
    point = locked.store(noise(1))
    planted = [f"index/{'0' * 64}", "gc/condemned/c-1", f"kept/{point.id}", "gc/settled/w-1/c-1"]
    for name in planted:
        locked.memory.put(name, [b"planted"])
    with pytest.raises(RepositoryDamaged):
        locked.prune()
    report = recover(locked)

    assert report.removed == tuple(sorted(planted))
    assert_whole(locked)
    locked.prune()


def test_what_was_forgotten_stays_so_unless_it_is_wanted(locked: Locked) -> None:
    kept, gone = locked.store(noise(1)), locked.store(noise(2))
    locked.open().forget(gone)
    locked.prune()
    assert locked.hidden()
    report = recover(locked)
    assert report.points == ()
    assert not any(name.startswith("data/") for name in report.shown), "its packs are garbage"
    assert [point.id for point in locked.open().points()] == [kept.id]

    report = recover(locked, forgotten=True)
    assert report.points == (gone.id,)
    assert locked.content(gone) == noise(2)
    assert_whole(locked)
    locked.prune()
    assert locked.content(gone) == noise(2)


def test_a_point_that_was_brought_back_can_be_deleted_and_missed_again(locked: Locked) -> None:
    point = locked.store(noise(1))
    locked.open().forget(point)
    recover(locked, forgotten=True)
    (name,) = [name for name in locked.memory.objects if name.endswith(point.id) and "points/" in name]
    locked.memory.delete(name)

    with pytest.raises(RepositoryDamaged, match=point.id):
        locked.prune()


def test_a_removed_key_does_not_come_back(locked: Locked) -> None:
    locked.store(noise(1))
    other = KeyFile(bytes(32))

    def chest() -> Keychest:
        return open_keys(locked.backend(), KEY)[1]

    slot = chest().add(other)
    chest().remove(slot)
    with pytest.raises(HotspareError):
        open_keys(locked.backend(), other)
    for name in [name for name in seen(locked.memory) if name.startswith("keys/")]:
        locked.memory.delete(name)
    recover(locked)

    assert locked.open().points()
    with pytest.raises(WrongKey):
        open_keys(locked.backend(), other)


def test_the_wrong_key_and_the_wrong_place(locked: Locked) -> None:
    with pytest.raises(WrongKey):
        recover_repository(locked.memory, KeyFile(bytes(32)), events.ignore, Cancellation())
    empty = VersionedMemory(locked.clock)
    with pytest.raises(RepositoryNotFound):
        recover_repository(empty, KEY, events.ignore, Cancellation())


def test_a_store_without_versions(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no versions"):
        recover_repository(LocalBackend(tmp_path), KEY, events.ignore, Cancellation())


def test_what_is_lost_is_named(locked: Locked) -> None:
    """The lock of a pack had ended, since nobody renewed it."""
    point = locked.store(noise(1))
    locked.clock.advance(2 * PERIOD)
    name = next(name for name in locked.memory.objects if name.startswith("data/"))
    (only,) = list(locked.memory.versions(name))
    locked.memory.put(name, [b"first"])
    locked.memory.put(name, [b"second"])
    locked.memory.delete_version(name, only.version)
    report = recover(locked)

    assert report.lost == (name,)
    assert {hurt for problem in report.problems for hurt in problem.points} == {point.id}
