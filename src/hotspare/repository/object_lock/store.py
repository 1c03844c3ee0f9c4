"""The store of a repository with object lock: what a restore needs is locked as it is stored."""

from datetime import timedelta

from hotspare.errors import RepositoryExists, StorageError
from hotspare.repository.format import CONFIG, RepositoryConfig, is_locked_kind
from hotspare.storage.backend import Backend
from hotspare.storage.wrappers.locking import LockingBackend


def with_locks(backend: Backend, config: RepositoryConfig) -> Backend:
    """Give the store as a repository of this config has to use it.

    A copy of such a repository may lie in a store without locks, and can be read there.
    """
    locks = backend.capabilities.locks if config.lock_seconds else None
    if locks is None or isinstance(backend, LockingBackend):
        return backend
    return LockingBackend(backend, locks, timedelta(seconds=config.lock_seconds), is_locked_kind)


def refuse_buried(backend: Backend) -> None:
    """Raise ``RepositoryExists`` where a repository was, and is hidden: a new one would bury it."""
    locks = backend.capabilities.locks
    if locks and any(one.name == CONFIG and not one.marker for one in locks.versions(CONFIG)):
        raise RepositoryExists(
            f"There was a repository at {backend.url}, and its deleted objects are still in the store",
            meaning="Nothing was written",
            hint="Bring it back with 'hotspare repo recover', or choose another prefix",
        )


def refuse_without_locks(backend: Backend, config: RepositoryConfig) -> None:
    """Raise ``StorageError`` when the repository promises locks and its store has none."""
    if config.lock_seconds and not isinstance(backend, LockingBackend):
        raise StorageError(
            f"The repository locks its objects, and {backend.url} is a store without locks",
            meaning="It can be read there; nothing was written",
            hint="Use the repository in its bucket, or copy its restore points into another repository",
        )
