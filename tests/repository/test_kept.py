"""Restore points that are not to be forgotten."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from hotspare.errors import PointKept, RepositoryDamaged
from hotspare.repository.format import FORGOTTEN_SESSIONS, KEPT
from hotspare.repository.gc.forgotten import KEPT_FOR, drop_old, list_forgotten, put_forgotten
from hotspare.repository.kept import keep_point, read_kept, refuse_kept, release_point
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend

NOW = datetime(2026, 11, 23, tzinfo=UTC)
HOUR = timedelta(hours=1)


def keep(repository: Repository, until: datetime | None) -> None:
    keep_point(repository.backend, repository.keyring, "a-point", NOW, until)


def refuse(repository: Repository, now: datetime) -> None:
    refuse_kept(repository.backend, repository.keyring, "a-point", now)


def test_a_kept_point_is_kept_until_it_is_released(repository: Repository) -> None:
    refuse(repository, NOW)
    keep(repository, None)
    with pytest.raises(PointKept, match="until it is released"):
        refuse(repository, NOW + 10_000 * HOUR)
    release_point(repository.backend, "a-point")
    refuse(repository, NOW)
    release_point(repository.backend, "a-point")


def test_a_term_ends(repository: Repository) -> None:
    keep(repository, NOW + HOUR)
    with pytest.raises(PointKept, match="2026-11-23T01:00:00"):
        refuse(repository, NOW)
    refuse(repository, NOW + HOUR)


def test_a_later_term_replaces_the_first(repository: Repository) -> None:
    keep(repository, NOW)
    keep(repository, NOW + HOUR)
    kept = read_kept(repository.backend, repository.keyring, "a-point")
    assert kept is not None
    assert kept.until == NOW + HOUR


def test_a_broken_record_is_no_leave_to_forget(repository: Repository) -> None:
    keep(repository, None)
    repository.backend.put(f"{KEPT}a-point", [b"something else"])
    with pytest.raises(RepositoryDamaged):
        refuse(repository, NOW)


def test_forgetting_a_kept_point_takes_force(
    repository: Repository, store_point: Callable[..., RestorePoint]
) -> None:
    point = store_point(repository, "web", b"x" * 5000)
    keep_point(repository.backend, repository.keyring, point.id, NOW)
    with pytest.raises(PointKept):
        repository.forget(point)
    assert repository.points() == [point]
    repository.forget(point, force=True)
    assert repository.points() == []
    assert list(repository.backend.list(KEPT)) == []


def test_notes_of_forgotten_points_go_after_a_while(backend: LocalBackend) -> None:
    put_forgotten(backend, "w-old", "points/m/1", NOW - KEPT_FOR - timedelta(days=1))
    put_forgotten(backend, "w-new", "points/m/2", NOW - KEPT_FOR)
    drop_old(backend, NOW)
    assert [note.session for note in list_forgotten(backend)] == ["w-new"]
    assert [item.name for item in backend.list(FORGOTTEN_SESSIONS)] == [
        f"{FORGOTTEN_SESSIONS}20261024/w-new/m/2"
    ]
