"""A store that hands every call on; the wrappers override what they change."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from typing_extensions import Buffer

from hotspare.storage.backend import (
    Backend,
    Capabilities,
    Durability,
    ObjectInfo,
    ObjectLocks,
    ObjectVersion,
)


class ForwardingBackend:
    """Does what ``inner`` does."""

    def __init__(self, inner: Backend) -> None:
        self.url = inner.url
        self.inner = inner

    @property
    def durability(self) -> Durability:
        """See ``Backend.durability``."""
        return self.inner.durability

    @property
    def capabilities(self) -> Capabilities:
        """See ``Backend.capabilities``; conditional PUTs pass all wrappers by, locks do not."""
        offered = self.inner.capabilities
        return offered if offered.locks is None else replace(offered, locks=self.wrap_locks(offered.locks))

    def wrap_locks(self, locks: ObjectLocks) -> ObjectLocks:
        """Give the inner store's locks as this wrapper changes them."""
        return locks

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        """See ``Backend.put``."""
        self.inner.put(name, parts)

    def get(self, name: str) -> bytes:
        """See ``Backend.get``."""
        return self.inner.get(name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """See ``Backend.get_range``."""
        return self.inner.get_range(name, offset, length)

    def size(self, name: str) -> int:
        """See ``Backend.size``."""
        return self.inner.size(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``Backend.list``."""
        return self.inner.list(prefix)

    def delete(self, name: str) -> None:
        """See ``Backend.delete``."""
        self.inner.delete(name)

    def close(self) -> None:
        """See ``Backend.close``."""
        self.inner.close()


class ForwardingLocks:
    """Does what the locks ``inner`` do."""

    def __init__(self, inner: ObjectLocks) -> None:
        self.inner = inner

    def put_locked(self, name: str, parts: Sequence[Buffer], until: datetime) -> str:
        """See ``ObjectLocks.put_locked``."""
        return self.inner.put_locked(name, parts, until)

    def extend(self, name: str, until: datetime, version: str | None = None) -> None:
        """See ``ObjectLocks.extend``."""
        self.inner.extend(name, until, version)

    def locked_until(self, name: str, version: str | None = None) -> datetime | None:
        """See ``ObjectLocks.locked_until``."""
        return self.inner.locked_until(name, version)

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """See ``ObjectLocks.versions``."""
        return self.inner.versions(prefix)

    def get_version(self, name: str, version: str) -> bytes:
        """See ``ObjectLocks.get_version``."""
        return self.inner.get_version(name, version)

    def delete_version(self, name: str, version: str) -> None:
        """See ``ObjectLocks.delete_version``."""
        self.inner.delete_version(name, version)

    def has_version(self, name: str, version: str) -> bool:
        """See ``ObjectLocks.has_version``."""
        return self.inner.has_version(name, version)
