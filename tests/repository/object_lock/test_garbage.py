"""Collecting garbage where deleting only hides: what is not needed goes when its lock has ended."""

from datetime import timedelta

import pytest

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import RepositoryDamaged
from hotspare.repository.check import check_structure
from hotspare.repository.gc.state import put_settled
from hotspare.repository.object_lock.inspect import lock_problems
from hotspare.repository.session import Session, SessionKind
from tests.repository.object_lock.conftest import PERIOD, Locked, noise

HOUR = timedelta(hours=1)


def packs(locked: Locked) -> set[str]:
    return {name for name in locked.memory.objects if name.startswith(("data/", "meta/"))}


def test_a_forgotten_point_goes_when_its_lock_has_ended(locked: Locked) -> None:
    kept, gone = locked.store(noise(1)), locked.store(noise(2))
    needed = set(locked.needed(kept))
    locked.open().forget(gone)
    report = locked.prune()

    hidden = packs(locked) - needed
    assert locked.hidden() >= hidden
    assert report.packs_deleted == len(hidden) > 0
    assert report.bytes_locked >= report.bytes_deleted > 0
    assert report.locked_until == locked.clock.now + PERIOD
    locked.clock.advance(PERIOD - HOUR)
    assert locked.prune().bytes_locked == report.bytes_locked
    assert packs(locked) - needed == hidden

    locked.clock.advance(2 * HOUR)
    report = locked.prune()
    assert report.versions_removed >= 2 * len(hidden), "contents and markers"
    assert report.bytes_locked == 0
    assert report.locked_until is None
    assert packs(locked) <= needed
    assert locked.hidden() == set()
    assert not any(name.startswith("forgotten/") for name in locked.memory.objects)
    assert all(len(stored) == 1 for stored in locked.memory.objects.values())
    assert locked.content(kept) == noise(1)


def test_a_run_leaves_no_versions_of_its_session(locked: Locked) -> None:
    session = Session(locked.backend(), locked.open().keyring, SessionKind.WRITER)
    session.begin()
    for _ in range(5):
        session.beat()
    assert len(locked.memory.objects[session.name]) == 6
    session.end()

    assert session.name not in locked.memory.objects


def test_what_a_crash_left_hidden_is_removed(locked: Locked) -> None:
    locked.store(noise(1))
    locked.memory.put("sessions/w-0", [b"x"])
    locked.memory.delete("sessions/w-0")
    locked.prune()

    assert "sessions/w-0" not in locked.memory.objects


def test_copies_of_an_object_that_was_stored_twice_go(locked: Locked) -> None:
    """As after a PUT whose answer was lost; the oldest stays, since nobody can have put it there later."""
    locked.store(noise(1))
    name = next(name for name in locked.memory.objects if name.startswith("data/"))
    locked.memory.put_locked(name, [locked.memory.get(name)], locked.clock.now + HOUR)
    locked.memory.put_locked(name, [locked.memory.get(name)], locked.clock.now + HOUR)
    first, _, last = (one.version for one in locked.memory.objects[name])
    for _ in range(5):
        locked.clock.advance(PERIOD / 4)
        locked.prune()

    assert [one.version for one in locked.memory.objects[name]] == [first, last]
    until = locked.memory.locked_until(name, first)
    assert until
    assert until - locked.clock.now >= PERIOD / 2


def test_garbage_that_is_locked_does_not_stand_in_the_way(locked: Locked) -> None:
    """A chunk whose pack is deleted and locked is stored again, and the old one goes all the same."""
    disk = noise(1)
    locked.open().forget(locked.store(disk))
    locked.prune()
    assert locked.hidden() & packs(locked)
    again = locked.store(disk)

    assert locked.content(again) == disk
    assert check_structure(locked.open(), events.ignore, Cancellation()).problems == []
    locked.clock.advance(PERIOD / 4 + HOUR)
    locked.prune()
    locked.clock.advance(PERIOD)
    locked.prune()
    assert locked.hidden() == set()
    assert locked.content(again) == disk


def test_a_point_that_somebody_else_deleted_is_missed(locked: Locked) -> None:
    kept, gone = locked.store(noise(1)), locked.store(noise(2))
    (name,) = [name for name in locked.memory.objects if name.endswith(gone.id)]
    locked.memory.delete(name)

    with pytest.raises(RepositoryDamaged, match=gone.id):
        locked.prune()
    with pytest.raises(RepositoryDamaged, match=gone.id):
        locked.prune(dry_run=True)
    assert locked.hidden() == {name}, "nothing was collected"
    (problem,) = lock_problems(locked.open(), Cancellation())
    assert (problem.object, "not by Hotspare" in problem.detail) == (name, True)
    assert [point.id for point in locked.open().points()] == [kept.id]


def test_a_forged_note_excuses_nothing(locked: Locked) -> None:
    gone, other = locked.store(noise(2)), locked.store(noise(3))
    locked.open().forget(other)
    locked.memory.put(f"forgotten/{gone.id}", [locked.memory.get(f"forgotten/{other.id}")])
    (name,) = [name for name in locked.memory.objects if name.startswith("points/") and gone.id in name]
    locked.memory.delete(name)

    with pytest.raises(RepositoryDamaged, match="1 restore points were deleted"):
        locked.prune()


def test_points_of_runs_that_failed_are_not_missed(locked: Locked) -> None:
    """A collector has expelled the run and settled that it has no point; then the point came to light."""
    kept = locked.store(noise(1))
    late = locked.store(noise(2))
    backend, keyring = locked.backend(), locked.open().keyring
    backend.put(f"gc/expelled/{late.session}", [b"\n"])
    put_settled(backend, keyring, "c-0", late.session, [])
    locked.prune()
    assert any(name.endswith(late.id) for name in locked.hidden())

    assert locked.prune().points == 1
    assert [point.id for point in locked.open().points()] == [kept.id]
