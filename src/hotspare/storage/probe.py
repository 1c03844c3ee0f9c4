"""What a store really does, found out by doing it.

Servers that speak a protocol do not all keep its promises: some answer a conditional PUT with 200 and
overwrite, or acknowledge an object lock that has no effect. Nothing that is said is believed here, only
what can be seen afterwards.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hotspare.errors import HotspareError, ObjectNotFound, PermissionRefused, StorageError
from hotspare.storage.backend import Backend, ConditionalPuts, Durability, ObjectLocks

_ROUNDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreTraits:
    """What a store was seen to do."""

    read_after_write: bool
    """Every read shows what was put, replaced or deleted just before."""
    list_after_write: bool
    """Every listing does."""
    conditional_put: bool | None
    """An object can be put only where there is none; None where the protocol has no such thing."""
    object_lock: bool | None
    """A locked object withstands deletion and shortening; None when it was not tried, or cannot be."""
    durability: Durability
    """What the store says; no probe can see it."""


def probe_store(
    backend: Backend,
    *,
    try_lock: bool = False,
    lock_seconds: float = 15,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    sleep: Callable[[float], None] = time.sleep,
) -> StoreTraits:
    """Try a store out under ``probe/``, and remove what was put there.

    Args:
        backend: the store, without a cache in front.
        try_lock: whether to lock an object, which takes ``lock_seconds``, since only then it can be removed.
        lock_seconds: for how long; more than the clocks of the two hosts may differ.
        now: the time.
        sleep: waits so many seconds.

    Raises:
        StorageError: the store does not even work.
        PermissionRefused: it may not be written to.
        NoSpace: it is full.
    """
    folder = f"probe/{secrets.token_hex(8)}"
    capabilities = backend.capabilities
    conditional = locks = None
    with _cleaned_up(backend, folder):
        read, listed = _visibility(backend, folder)
        if capabilities.conditional_puts:
            conditional = _conditional_put(capabilities.conditional_puts, f"{folder}/once")
        if try_lock and capabilities.locks:
            locks = _Lock(capabilities.locks, f"{folder}/locked", lock_seconds, now, sleep).holds()
    return StoreTraits(
        read_after_write=read,
        list_after_write=listed,
        conditional_put=conditional,
        object_lock=locks,
        durability=backend.durability,
    )


def _visibility(backend: Backend, folder: str) -> tuple[bool, bool]:
    """Put, replace and delete objects; tell whether reads and whether listings show it at once."""
    read = listed = True
    for number in range(_ROUNDS):
        name = f"{folder}/{number}"
        for content in (b"first", b"replaced by something longer"):
            backend.put(name, [content])
            read &= _read(backend, name) == content
            listed &= _listed(backend, folder, name) == len(content)
        backend.delete(name)
        read &= _read(backend, name) is None
        listed &= _listed(backend, folder, name) is None
    return read, listed


def _read(backend: Backend, name: str) -> bytes | None:
    try:
        content = backend.get(name)
        return content if backend.size(name) == len(content) else b""
    except ObjectNotFound:
        return None


def _listed(backend: Backend, folder: str, name: str) -> int | None:
    return {item.name: item.size for item in backend.list(f"{folder}/")}.get(name)


def _conditional_put(puts: ConditionalPuts, name: str) -> bool:
    try:
        return puts.put_new(name, [b"first"]) and not puts.put_new(name, [b"second"])
    except StorageError:
        # Some servers answer that they do not implement it.
        return False


class _Lock:
    """One locked object, and what may be done to it."""

    def __init__(
        self,
        locks: ObjectLocks,
        name: str,
        seconds: float,
        now: Callable[[], datetime],
        sleep: Callable[[float], None],
    ) -> None:
        self._locks = locks
        self._name = name
        self._now = now
        self._sleep = sleep
        # Locks are kept to the second, so a fraction would be lost and look like a lie.
        self._until = now().replace(microsecond=0) + timedelta(seconds=seconds)

    def holds(self) -> bool:
        """Tell whether the lock is kept, by attempts to break it."""
        try:
            version = self._locks.put_locked(self._name, [b"locked"], self._until)
        except (StorageError, PermissionRefused):
            return False
        try:
            return (
                self._shows(self._until)
                and self._refuses(lambda: self._locks.extend(self._name, self._until - timedelta(seconds=2)))
                and self._extends()
                and self._refuses(lambda: self._locks.delete_version(self._name, version))
                and self._locks.has_version(self._name, version)
            )
        except (StorageError, PermissionRefused):
            return False
        finally:
            self._remove(version)

    def _shows(self, until: datetime) -> bool:
        return self._locks.locked_until(self._name) == until

    def _extends(self) -> bool:
        later = self._until + timedelta(seconds=1)
        self._locks.extend(self._name, later)
        self._until = later
        return self._shows(later)

    def _refuses(self, attempt: Callable[[], object]) -> bool:
        try:
            attempt()
        except (PermissionRefused, StorageError):
            return True
        return False

    def _remove(self, version: str) -> None:
        with suppress(HotspareError):
            try:
                self._locks.delete_version(self._name, version)
            except (PermissionRefused, StorageError):
                self._sleep(max(0.0, (self._until - self._now()).total_seconds() + 1))
                self._locks.delete_version(self._name, version)


@contextmanager
def _cleaned_up(backend: Backend, folder: str) -> Iterator[None]:
    """Remove what is left below a folder, even when the probe failed; that it failed is what matters then."""
    try:
        yield
    finally:
        with suppress(HotspareError):
            for item in list(backend.list(f"{folder}/")):
                backend.delete(item.name)
