"""Asks a store again when it failed in a way that may pass.

Exponential backoff with full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/):
the wait is anything between nothing and a limit that doubles, so that many clients do not come back at once.
Every method of the contract may be repeated, since a ``put`` replaces and a ``delete`` forgives.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from typing_extensions import Buffer

from hotspare.errors import StorageError
from hotspare.storage.backend import Backend, Capabilities, Durability, ObjectInfo, ObjectLocks, ObjectVersion
from hotspare.storage.wrappers.forwarding import ForwardingBackend, ForwardingLocks

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to go on; all in seconds."""

    first_wait: float = 0.2
    """Limit of the first wait."""
    longest_wait: float = 30.0
    total: float = 300.0
    """From the first attempt of a call on: no wait begins that would end later."""
    total_at_first: float = 20.0
    """The same until a call has succeeded once: a store that never answered is more likely misspelt."""


class RetryBackend(ForwardingBackend):
    """Repeats calls that raise a ``StorageError`` with ``may_pass``; gives up with the last error."""

    def __init__(
        self,
        inner: Backend,
        policy: RetryPolicy | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        super().__init__(inner)
        self._policy = policy or RetryPolicy()
        self._clock = clock
        self._sleep = sleep
        self._uniform = uniform
        self._has_answered = False

    @property
    def durability(self) -> Durability:
        """See ``Backend.durability``."""
        return self._persist(lambda: self.inner.durability)

    def wrap_locks(self, locks: ObjectLocks) -> ObjectLocks:
        """See ``ForwardingBackend.wrap_locks``."""
        return _RetryingLocks(locks, self._persist)

    @property
    def capabilities(self) -> Capabilities:
        """See ``Backend.capabilities``."""
        return self._persist(lambda: super(RetryBackend, self).capabilities)

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        """See ``Backend.put``."""
        self._persist(lambda: self.inner.put(name, parts))

    def get(self, name: str) -> bytes:
        """See ``Backend.get``."""
        return self._persist(lambda: self.inner.get(name))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """See ``Backend.get_range``."""
        return self._persist(lambda: self.inner.get_range(name, offset, length))

    def size(self, name: str) -> int:
        """See ``Backend.size``."""
        return self._persist(lambda: self.inner.size(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``Backend.list``; nothing is given before the end, as a broken listing begins again."""
        return iter(self._persist(lambda: list(self.inner.list(prefix))))

    def delete(self, name: str) -> None:
        """See ``Backend.delete``."""
        self._persist(lambda: self.inner.delete(name))

    def _persist(self, call: Callable[[], Answer]) -> Answer:
        began = self._clock()
        limit = self._policy.first_wait
        while True:
            try:
                answer = call()
            except StorageError as error:
                wait = self._uniform(0, limit)
                total = self._policy.total if self._has_answered else self._policy.total_at_first
                if not error.may_pass or self._clock() + wait > began + total:
                    raise
            else:
                self._has_answered = True
                return answer
            self._sleep(wait)
            limit = min(limit * 2, self._policy.longest_wait)


class _Persist(Protocol):
    def __call__(self, call: Callable[[], Answer], /) -> Answer: ...


class _RetryingLocks(ForwardingLocks):
    """Repeats in the same way; a PUT whose answer was lost leaves a second version, which does no harm."""

    def __init__(self, inner: ObjectLocks, persist: _Persist) -> None:
        super().__init__(inner)
        self._persist = persist

    def put_locked(self, name: str, parts: Sequence[Buffer], until: datetime) -> str:
        return self._persist(lambda: self.inner.put_locked(name, parts, until))

    def extend(self, name: str, until: datetime, version: str | None = None) -> None:
        self._persist(lambda: self.inner.extend(name, until, version))

    def locked_until(self, name: str, version: str | None = None) -> datetime | None:
        return self._persist(lambda: self.inner.locked_until(name, version))

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        return iter(self._persist(lambda: list(self.inner.versions(prefix))))

    def get_version(self, name: str, version: str) -> bytes:
        return self._persist(lambda: self.inner.get_version(name, version))

    def delete_version(self, name: str, version: str) -> None:
        self._persist(lambda: self.inner.delete_version(name, version))

    def has_version(self, name: str, version: str) -> bool:
        return self._persist(lambda: self.inner.has_version(name, version))
