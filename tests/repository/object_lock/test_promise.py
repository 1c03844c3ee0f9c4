"""What is promised of locks holds at any moment, and costs few requests."""

import random
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from hotspare.backup.plan import plan_transfer
from hotspare.backup.transfer import transfer_disk
from hotspare.block.extent import Extent, ExtentKind
from hotspare.cancellation import Cancellation
from hotspare.errors import RepositoryDamaged, StorageError
from hotspare.repository.check import check_structure
from hotspare.repository.format import is_locked_kind
from hotspare.repository.object_lock.inspect import lock_problems, needed_names
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from hotspare.storage.wrappers.faults import FaultRules, FaultyBackend
from hotspare.storage.wrappers.retry import RetryBackend, RetryPolicy
from tests.memory_disk import MemoryDisk
from tests.repository.conftest import CHUNK, store
from tests.repository.object_lock.conftest import HOLDS, KEY, PERIOD, Locked, noise

DAY = timedelta(days=1)


def test_what_a_restore_needs_is_stored_locked_and_nothing_else(locked: Locked) -> None:
    point = locked.store(noise(1))

    for name, stored in locked.memory.objects.items():
        assert [one.until for one in stored] == (
            [locked.clock.now + PERIOD] if is_locked_kind(name) else [None]
        )
    assert all(is_locked_kind(name) for name in locked.needed(point))
    kinds = {name.partition("/")[0] for name in locked.memory.objects}
    assert kinds == {"config", "keys", "data", "meta", "points", "index", "locks"}
    assert lock_problems(locked.open(), Cancellation()) == []


def test_the_promise_holds_for_months(locked: Locked) -> None:
    """A prune every second day, backups at random, old points forgotten: every lock is looked at each day."""
    source = random.Random(7)
    disk = noise(2)
    points = [locked.store(disk)]
    for day in range(60):
        locked.clock.advance(DAY)
        assert locked.left(*points) >= HOLDS
        if source.random() < 0.6:
            at = source.randrange(len(disk) - 4000)
            disk[at : at + 4000] = source.randbytes(4000)
            points.append(locked.store(disk, parent=points[-1]))
            assert locked.left(points[-1]) > HOLDS + PERIOD / 4 - DAY
        if len(points) > 4:
            locked.open().forget(points.pop(0))
        if day % 2:
            locked.prune()
    assert locked.content(points[-1]) == disk
    ages = {name: len(stored) for name, stored in locked.memory.objects.items() if len(stored) > 1}
    assert ages.keys() == locked.hidden(), "nothing has versions but what is hidden"
    assert all(locked.lock_versions_end(name) > locked.clock.now - 2 * DAY for name in locked.hidden())


def test_a_prune_renews_what_is_due_once(locked: Locked) -> None:
    points = [locked.store(noise(seed)) for seed in range(3)]
    locked.clock.advance(PERIOD * 0.3)
    locked.memory.requests.clear()

    assert locked.prune().locks_renewed == locked.memory.count("extend") == len(locked.needed(*points))
    assert locked.left(*points) == PERIOD
    locked.clock.advance(PERIOD * 0.2)
    locked.memory.requests.clear()
    assert locked.prune().locks_renewed == 0
    assert locked.memory.count("extend", "locked_until", "get_version") == 0, "the ledger knows all dates"
    assert locked.memory.count("versions") <= 4


def test_a_dry_run_renews_nothing(locked: Locked) -> None:
    point = locked.store(noise(1))
    locked.clock.advance(PERIOD * 0.3)
    left = locked.left(point)

    assert locked.prune(dry_run=True).locks_renewed == len(locked.needed(point))
    assert locked.left(point) == left


def test_a_backup_looks_only_at_the_ledger_while_nothing_is_due(locked: Locked) -> None:
    disk = noise(1)
    first = locked.store(disk)
    disk[:100] = bytes(100)
    locked.memory.requests.clear()
    locked.store(disk, parent=first)

    assert locked.memory.count("extend", "locked_until", "get_version") == 0


def test_what_a_point_inherits_is_locked_when_it_is_published(locked: Locked) -> None:
    """Nobody has pruned: the locks of the parent's packs are near their end."""
    disk = noise(1)
    first = locked.store(disk)
    locked.clock.advance(PERIOD * 0.95)
    disk[:100] = bytes(100)
    second = locked.store(disk, parent=first)

    assert locked.left(second) == PERIOD
    assert locked.lock_of(locked.needed(first)[-1]) - locked.clock.now < PERIOD / 10, "the old point is not"


def test_chunks_of_a_pack_whose_lock_has_ended_are_locked_again(locked: Locked) -> None:
    """The point that needed them was forgotten long ago, and nobody has pruned."""
    disk = noise(1)
    locked.open().forget(locked.store(disk))
    locked.clock.advance(2 * PERIOD)
    before = locked.memory.count("put_locked")
    point = locked.store(disk)

    assert locked.memory.count("put_locked") == before + 1, "all was there already but the point"
    assert locked.left(point) == PERIOD


def test_no_point_is_published_upon_a_pack_that_cannot_be_locked(locked: Locked) -> None:
    """The increment needs it for what did not change only, so that nobody else looks at it."""
    disk = noise(1)
    first = locked.store(disk)
    locked.clock.advance(2 * PERIOD)
    pack = next(name for name in locked.memory.objects if name.startswith("data/"))
    (only,) = list(locked.memory.versions(pack))
    locked.memory.delete_version(pack, only.version)
    disk[:CHUNK] = noise(2, 1)
    changed = MemoryDisk(disk)
    plan = plan_transfer([Extent(0, CHUNK, ExtentKind.DATA)], len(disk), CHUNK)
    repository = locked.open()

    with repository.writer() as writer:
        parent = repository.disk(first.disks[0]).map
        root, _ = transfer_disk(changed, writer, plan, parent, CHUNK, lambda: None, lambda _: None)
        writer.flush()
        disks = (msgspec.structs.replace(first.disks[0], root=root),)
        second = msgspec.structs.replace(first, id="second", disks=disks, session=writer.session_id)
        with pytest.raises(RepositoryDamaged, match="gone or replaced"):
            writer.publish(second)
    assert [point.id for point in locked.open().points()] == [first.id]


def test_somebody_replaces_a_pack_and_waits(locked: Locked) -> None:
    """What counts stays locked, below what was put over it; that is seen by a check."""
    point = locked.store(noise(1))
    name = next(name for name in locked.memory.objects if name.startswith("data/"))
    locked.memory.put(name, [bytes(locked.memory.size(name))])
    for _ in range(6):
        locked.clock.advance(PERIOD / 4)
        locked.keeper().renew(needed_names(locked.open(), [point], Cancellation()), Cancellation())

    mine, foreign = locked.memory.objects[name]
    assert mine.until == locked.clock.now + PERIOD
    assert foreign.until is None
    found = {problem.object: problem.detail for problem in lock_problems(locked.open(), Cancellation())}
    assert found.keys() == {name}
    assert "was replaced" in found[name]


def test_a_check_names_what_is_locked_for_too_short(locked: Locked) -> None:
    point = locked.store(noise(1))
    locked.clock.advance(PERIOD * 0.45)
    assert lock_problems(locked.open(), Cancellation()) == []
    locked.clock.advance(PERIOD * 0.1)
    problems = lock_problems(locked.open(), Cancellation())

    assert {problem.object for problem in problems} == set(locked.needed(point))
    assert all("for less than is promised" in problem.detail for problem in problems)
    locked.clock.advance(PERIOD)
    assert all("less" in problem.detail for problem in lock_problems(locked.open(), Cancellation()))


def test_a_lost_ledger_costs_requests_and_nothing_else(locked: Locked) -> None:
    point = locked.store(noise(1))
    for name in [name for name in locked.memory.objects if name.startswith("locks/")]:
        locked.memory.put(name, [b"garbage"])
    locked.clock.advance(PERIOD * 0.1)

    renewal = locked.keeper().renew(needed_names(locked.open(), [point], Cancellation()), Cancellation())
    assert renewal.renewed == renewal.objects == len(locked.needed(point))
    assert locked.left(point) == PERIOD


def test_locks_are_kept_by_a_store_that_fails_now_and_then(locked: Locked) -> None:
    faulty = FaultyBackend(locked.memory, FaultRules(seed=11, error=0.1))
    flaky = RetryBackend(faulty, RetryPolicy(first_wait=0.0))
    disk = noise(1)
    first = store(locked.open(flaky), "web", disk)
    locked.clock.advance(PERIOD * 0.6)
    disk[:100] = bytes(100)
    second = store(locked.open(flaky), "web", disk, parent=first)
    keeper = locked.open(flaky).lock_keeper
    assert keeper
    keeper.renew(needed_names(locked.open(), [first, second], Cancellation()), Cancellation())

    assert locked.left(first, second) == PERIOD


def test_a_copy_in_a_store_without_locks_is_read_and_not_written(locked: Locked, tmp_path: Path) -> None:
    point = locked.store(noise(1))
    local = LocalBackend(tmp_path / "copy")
    for item in locked.memory.list(""):
        local.put(item.name, [locked.memory.get(item.name)])
    copy = Repository.open(local, KEY)

    assert check_structure(copy, lambda _event: None, Cancellation()).problems == []
    assert [one.id for one in copy.points()] == [point.id]
    with pytest.raises(StorageError, match="store without locks"):
        copy.writer()
    with pytest.raises(StorageError, match="store without locks"):
        Repository.create(LocalBackend(tmp_path / "new"), KEY, chunk_size=CHUNK, lock=PERIOD)
