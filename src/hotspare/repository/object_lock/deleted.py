"""Telling restore points that were forgotten from those that somebody else has deleted.

Deleting only hides a locked restore point. Who forgets one with Hotspare leaves the sealed record
``forgotten/<point id>``, which takes the repository's keys. So who has only the store's credentials, and
deletes restore points, is noticed, and no garbage is collected until it is clear what becomes of them.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from hotspare.errors import ObjectNotFound, RepositoryDamaged
from hotspare.repository.decode import Moment
from hotspare.repository.format import FORGOTTEN, POINTS
from hotspare.repository.gc.state import read_expulsions
from hotspare.repository.keys import Keyring
from hotspare.repository.object_lock.genuine import contents, versions_by_name
from hotspare.repository.point import RestorePoint, open_point
from hotspare.repository.record import open_record, seal_record
from hotspare.storage.backend import Backend, ObjectLocks
from hotspare.storage.wrappers.locking import LockingBackend


class ForgottenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Content of ``forgotten/<point id>``."""

    at: Moment


def note_forgotten(backend: Backend, keyring: Keyring, point: str) -> None:
    """Write down that the restore point of this object name is to be deleted."""
    name = FORGOTTEN + point.rpartition("/")[2]
    backend.put(name, [seal_record(keyring, name, ForgottenRecord(at=datetime.now(UTC)))])


def read_forgotten(backend: Backend, keyring: Keyring) -> set[str]:
    """Give the ids of restore points that were forgotten, and may still be hidden."""
    found = set()
    for item in backend.list(FORGOTTEN):
        try:
            open_record(keyring, item.name, backend.get(item.name), ForgottenRecord)
        except (ObjectNotFound, RepositoryDamaged):
            continue
        found.add(item.name.removeprefix(FORGOTTEN))
    return found


def deleted_points(backend: LockingBackend, keyring: Keyring) -> dict[str, RestorePoint]:
    """Give the hidden restore points that were neither forgotten nor of a run that failed, by name."""
    hidden = {
        name: contents(versions)
        for name, versions in versions_by_name(backend.locks, POINTS).items()
        if versions[0].marker
    }
    if not any(hidden.values()):
        return {}
    forgotten = read_forgotten(backend, keyring)
    expulsions = read_expulsions(backend, keyring)
    found = {}
    for name, versions in hidden.items():
        if name.rpartition("/")[2] in forgotten:
            continue
        for point in _opened(backend.locks, keyring, name, [one.version for one in versions]):
            if expulsions.counts(name, point.session):
                found[name] = point
    return found


def _opened(locks: ObjectLocks, keyring: Keyring, name: str, versions: list[str]) -> Iterator[RestorePoint]:
    for version in versions:
        try:
            yield open_point(keyring, name, locks.get_version(name, version))
        except (ObjectNotFound, RepositoryDamaged):
            continue


def refuse_deleted_points(backend: Backend, keyring: Keyring) -> None:
    """Raise ``RepositoryDamaged`` when somebody has deleted restore points without Hotspare."""
    if not isinstance(backend, LockingBackend):
        return
    deleted = deleted_points(backend, keyring)
    if deleted:
        names = ", ".join(sorted(point.id for point in deleted.values())[:5])
        raise RepositoryDamaged(
            f"{len(deleted)} restore points were deleted, but not by Hotspare: {names}",
            meaning="No garbage was collected. They are hidden, and stay in the store until their locks end",
            hint="Look for who did it, change the store's credentials, and run 'hotspare repo recover'",
        )
