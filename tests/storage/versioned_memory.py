"""A store in memory that keeps versions and locks, with a clock that tests can turn.

Not a real server: the lock suite holds it to what a real SeaweedFS does, so that what takes weeks can be
tried with it in no time.
"""

import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from typing_extensions import Buffer

from hotspare.errors import ObjectNotFound, PermissionRefused, StorageError
from hotspare.storage.backend import Capabilities, Durability, ObjectInfo, ObjectVersion


class Clock:
    """Begins now, and goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)

    def time(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.advance(timedelta(seconds=seconds))

    def advance(self, duration: timedelta) -> None:
        self.now += duration


@dataclass
class _Stored:
    version: str
    data: bytes | None
    """None of a marker."""
    modified: datetime
    until: datetime | None = None


class VersionedMemory:
    """Both a ``Backend`` and its ``ObjectLocks``; ``requests`` counts calls by name."""

    url = "memory:"
    durability: Durability = "store"

    def __init__(self, clock: Clock) -> None:
        self.objects: dict[str, list[_Stored]] = {}
        self.requests: dict[str, int] = {}
        self._clock = clock
        self._lock = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(locks=self)

    def count(self, *kinds: str) -> int:
        return sum(self.requests.get(kind, 0) for kind in kinds)

    # As a backend.

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        self._add("put", name, b"".join(parts), None)

    def get(self, name: str) -> bytes:
        return self._newest("get", name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        data = self._newest("get", name)[offset : offset + length]
        if len(data) != length:
            raise StorageError(f"{name} is too short")
        return data

    def size(self, name: str) -> int:
        return len(self._newest("head", name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._lock:
            self._note("list")
            found = [
                ObjectInfo(name, len(stored[-1].data))
                for name, stored in self.objects.items()
                if name.startswith(prefix) and stored[-1].data is not None
            ]
        return iter(sorted(found))

    def delete(self, name: str) -> None:
        self._add("delete", name, None, None)

    def close(self) -> None:
        pass

    # As its locks.

    def put_locked(self, name: str, parts: Sequence[Buffer], until: datetime) -> str:
        if until <= self._clock.now:
            raise StorageError("a lock must end in the future")
        return self._add("put_locked", name, b"".join(parts), until)

    def extend(self, name: str, until: datetime, version: str | None = None) -> None:
        with self._lock:
            self._note("extend")
            found = self._find(name, version)
            if found.until and found.until > max(until, self._clock.now):
                raise PermissionRefused("a lock cannot be shortened")
            found.until = until

    def locked_until(self, name: str, version: str | None = None) -> datetime | None:
        with self._lock:
            self._note("locked_until")
            return self._find(name, version).until

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        with self._lock:
            self._note("versions")
            found = [
                ObjectVersion(
                    name=name,
                    version=one.version,
                    size=len(one.data or b""),
                    modified=one.modified,
                    newest=one is stored[-1],
                    marker=one.data is None,
                )
                for name, stored in sorted(self.objects.items())
                if name.startswith(prefix)
                for one in reversed(stored)
            ]
        return iter(found)

    def get_version(self, name: str, version: str) -> bytes:
        with self._lock:
            self._note("get_version")
            data = self._find(name, version).data
        if data is None:
            raise ObjectNotFound(f"{name} is a marker")
        return data

    def delete_version(self, name: str, version: str) -> None:
        with self._lock:
            self._note("delete_version")
            stored = self.objects.get(name, [])
            for one in stored:
                if one.version == version:
                    if one.until and one.until > self._clock.now:
                        raise PermissionRefused(f"{name} is locked")
                    stored.remove(one)
                    break
            if not stored:
                self.objects.pop(name, None)

    def has_version(self, name: str, version: str) -> bool:
        with self._lock:
            return any(one.version == version for one in self.objects.get(name, []))

    def _add(self, kind: str, name: str, data: bytes | None, until: datetime | None) -> str:
        with self._lock:
            self._note(kind)
            version = secrets.token_hex(8)
            one = _Stored(version, data, self._clock.now, until)
            self.objects.setdefault(name, []).append(one)
            return version

    def _newest(self, kind: str, name: str) -> bytes:
        with self._lock:
            self._note(kind)
            stored = self.objects.get(name)
            if not stored or stored[-1].data is None:
                raise ObjectNotFound(f"{name} is not there")
            return stored[-1].data

    def _find(self, name: str, version: str | None) -> _Stored:
        stored = self.objects.get(name, [])
        if version is None and stored and stored[-1].data is not None:
            return stored[-1]
        for one in stored:
            if one.version == version:
                return one
        raise ObjectNotFound(f"{name} has no such version")

    def _note(self, kind: str) -> None:
        self.requests[kind] = self.requests.get(kind, 0) + 1
