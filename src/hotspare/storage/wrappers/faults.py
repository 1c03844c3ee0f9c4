"""A store that fails on purpose, by rules and from a seed, to see what a run makes of it.

For tests, and for rehearsals with a real store: ``HOTSPARE_FAULTS="seed=7,error=0.01,delay=50ms"`` puts it
in front of every store that is opened (compare nbdkit's error and delay filters). The numbers are
probabilities per call. With one thread, the same seed gives the same faults.
"""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Self, TypeVar

from typing_extensions import Buffer

from hotspare.errors import ConfigError, ObjectNotFound, StorageError
from hotspare.storage.backend import Backend, ObjectInfo, ObjectLocks, ObjectVersion
from hotspare.storage.wrappers.forwarding import ForwardingBackend, ForwardingLocks

Answer = TypeVar("Answer")

_LATENESS_MAX = 12
"""Calls until a late PUT arrives, at most."""
_STALENESS_MAX = 4
"""Listings until a change shows, at most."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRules:
    """How often what goes wrong; probabilities between 0 and 1."""

    seed: int = 0
    error: float = 0.0
    """A call fails with an error that may pass; half of the time it took effect all the same."""
    truncate: float = 0.0
    """A read gives less than there is: ``get`` silently, ``get_range`` with the contract's error."""
    lose_put: float = 0.0
    """A PUT is acknowledged and stores nothing."""
    late_put: float = 0.0
    """A PUT fails, and its object appears some calls later."""
    duplicate_put: float = 0.0
    """A PUT takes effect, and once more some calls later, over whatever was done meanwhile."""
    stale_list: float = 0.0
    """A PUT or delete does not show in the next few listings."""
    delay: float = 0.0
    """Seconds that each call takes longer."""
    prefix: str = ""
    """Only objects whose names begin so are touched."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name=value,...``; a delay may end in ``ms`` or ``s``. Raises ``ConfigError``."""
        known = {item.name: item.type for item in fields(cls)}
        values: dict[str, int | float | str] = {}
        for rule in filter(None, text.split(",")):
            name, _, value = rule.strip().partition("=")
            try:
                values[name] = _value(name, value, known)
            except (KeyError, ValueError) as error:
                raise ConfigError(
                    f"HOTSPARE_FAULTS: '{rule.strip()}' is no rule",
                    hint=f"Give NAME=VALUE, separated by commas; the names are {', '.join(known)}",
                ) from error
        return cls(**values)  # type: ignore[arg-type]  # _value gave each the type of its field


def _value(name: str, text: str, known: dict[str, object]) -> int | float | str:
    if known[name] is str:
        return text
    if known[name] is int:
        return int(text)
    if name == "delay":
        match = _DURATION.fullmatch(text)
        if not match:
            raise ValueError(text)
        return float(match[1]) / (1000 if match[2] == "ms" else 1)
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError(text)
    return number


@dataclass(slots=True)
class _Pending:
    """A PUT on its way."""

    due: int
    store: Callable[[], object]


@dataclass(slots=True)
class _Stale:
    """What listings still say of an object: its old size, or None when it is not to be seen."""

    listings_left: int
    size: int | None


@dataclass(slots=True)
class _State:
    calls: int = 0
    pending: list[_Pending] = field(default_factory=list)
    stale: dict[str, _Stale] = field(default_factory=dict)


class FaultyBackend(ForwardingBackend):
    """Breaks the contract of ``inner`` as the rules say."""

    def __init__(
        self, inner: Backend, rules: FaultRules, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__(inner)
        self.rules = rules
        self._sleep = sleep
        self._random = random.Random(rules.seed)  # noqa: S311 - nothing secret comes of it
        self._state = _State()
        self._lock = threading.RLock()

    def wrap_locks(self, locks: ObjectLocks) -> ObjectLocks:
        """See ``ForwardingBackend.wrap_locks``."""
        return _FaultyLocks(locks, self)

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        """See ``Backend.put``, and do not believe it."""
        data = b"".join(bytes(part) for part in parts)
        self.put_with(name, lambda: self.inner.put(name, [data]))

    def put_with(self, name: str, store: Callable[[], Answer]) -> Answer | None:
        """Do what a PUT of ``name`` does, or something else; None when it was lost."""
        if not self._begin(name):
            return store()
        fails, took_effect = self._error()
        if fails and not took_effect:
            raise _failure("PUT", name, self.url)
        if self._happens(self.rules.late_put):
            self._later(store)
            raise _failure("PUT", name, self.url)
        answer = None
        if not self._happens(self.rules.lose_put):
            self._hide_change(name)
            answer = store()
            if self._happens(self.rules.duplicate_put):
                self._later(store)
        if fails:
            raise _failure("PUT", name, self.url)
        return answer

    def may_fail(self, verb: str, name: str) -> None:
        """Raise the error that a call may end in, before it has any effect."""
        if self._begin(name) and self._error()[0]:
            raise _failure(verb, name, self.url)

    def get(self, name: str) -> bytes:
        """See ``Backend.get``."""
        touched = self._begin(name)
        if touched and self._error()[0]:
            raise _failure("GET", name, self.url)
        data = super().get(name)
        if touched and data and self._happens(self.rules.truncate):
            return data[: self._below(len(data))]
        return data

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """See ``Backend.get_range``."""
        touched = self._begin(name)
        if touched and (self._error()[0] or self._happens(self.rules.truncate)):
            raise _failure("GET", name, self.url)
        return super().get_range(name, offset, length)

    def size(self, name: str) -> int:
        """See ``Backend.size``."""
        if self._begin(name) and self._error()[0]:
            raise _failure("HEAD", name, self.url)
        return super().size(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``Backend.list``."""
        if self._begin(prefix) and self._error()[0]:
            raise _failure("LIST", prefix, self.url)
        found = {item.name: item.size for item in super().list(prefix)}
        with self._lock:
            for name, stale in [*self._state.stale.items()]:
                if not name.startswith(prefix):
                    continue
                if stale.size is None:
                    found.pop(name, None)
                else:
                    found[name] = stale.size
                stale.listings_left -= 1
                if stale.listings_left == 0:
                    del self._state.stale[name]
        return (ObjectInfo(name, size) for name, size in sorted(found.items()))

    def delete(self, name: str) -> None:
        """See ``Backend.delete``."""
        if not self._begin(name):
            super().delete(name)
            return
        fails, took_effect = self._error()
        if took_effect or not fails:
            self._hide_change(name)
            super().delete(name)
        if fails:
            raise _failure("DELETE", name, self.url)

    def settle(self) -> None:
        """Let every PUT that is on its way arrive, and listings be current."""
        with self._lock:
            pending, self._state.pending = self._state.pending, []
            self._state.stale.clear()
        for late in pending:
            late.store()

    def _begin(self, name: str) -> bool:
        """Count a call, let what is due arrive, and tell whether the rules touch this object."""
        with self._lock:
            self._state.calls += 1
            due = [late for late in self._state.pending if late.due <= self._state.calls]
            self._state.pending = [late for late in self._state.pending if late.due > self._state.calls]
        for late in due:
            late.store()
        touched = name.startswith(self.rules.prefix)
        if touched and self.rules.delay:
            self._sleep(self.rules.delay)
        return touched

    def _error(self) -> tuple[bool, bool]:
        """Tell whether the call fails, and whether it takes effect though it does."""
        with self._lock:
            return self._happens(self.rules.error), self._happens(0.5)

    def _happens(self, probability: float) -> bool:
        with self._lock:
            return self._random.random() < probability

    def _below(self, limit: int) -> int:
        with self._lock:
            return self._random.randrange(limit)

    def _later(self, store: Callable[[], object]) -> None:
        with self._lock:
            due = self._state.calls + self._random.randint(1, _LATENESS_MAX)
            self._state.pending.append(_Pending(due, store))

    def _hide_change(self, name: str) -> None:
        """Let listings show the object as it is now for a while."""
        if not self._happens(self.rules.stale_list):
            return
        try:
            size: int | None = self.inner.size(name)
        except ObjectNotFound:
            size = None
        with self._lock:
            listings = self._random.randint(1, _STALENESS_MAX)
            self._state.stale.setdefault(name, _Stale(listings, size))


class _FaultyLocks(ForwardingLocks):
    """Breaks the contract of locks: a PUT like any other, everything else fails now and then."""

    def __init__(self, inner: ObjectLocks, backend: FaultyBackend) -> None:
        super().__init__(inner)
        self._backend = backend

    def put_locked(self, name: str, parts: Sequence[Buffer], until: datetime) -> str:
        data = b"".join(bytes(part) for part in parts)
        return self._backend.put_with(name, lambda: self.inner.put_locked(name, [data], until)) or "lost"

    def extend(self, name: str, until: datetime, version: str | None = None) -> None:
        self._backend.may_fail("retention PUT", name)
        super().extend(name, until, version)

    def locked_until(self, name: str, version: str | None = None) -> datetime | None:
        self._backend.may_fail("retention GET", name)
        return super().locked_until(name, version)

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        self._backend.may_fail("versions LIST", prefix)
        return super().versions(prefix)

    def get_version(self, name: str, version: str) -> bytes:
        self._backend.may_fail("GET", name)
        return super().get_version(name, version)

    def delete_version(self, name: str, version: str) -> None:
        self._backend.may_fail("DELETE", name)
        super().delete_version(name, version)


def _failure(verb: str, name: str, url: str) -> StorageError:
    return StorageError(
        f"{verb} of {name} in {url} failed on purpose",
        hint="Unset HOTSPARE_FAULTS for a store that does its best",
        may_pass=True,
    )
