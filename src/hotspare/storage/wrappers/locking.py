"""Stores objects of some kinds locked, and keeps the rest of a store with versions clean.

What is stored locked stays below whatever is put over it, or hides it, until its lock ends: a store with
versions never forgets. To all who read and list, it behaves like one without versions: what was deleted is
gone from sight at once. Objects that are not stored locked are removed with all their versions.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from typing_extensions import Buffer

from hotspare.errors import PermissionRefused
from hotspare.storage.backend import Backend, ObjectLocks
from hotspare.storage.wrappers.forwarding import ForwardingBackend


class LockingBackend(ForwardingBackend):
    """Locks what is put.

    Args:
        inner: the store; it has locks.
        locks: its locks.
        period: for how long objects are locked.
        is_locked: tells by its name whether an object is.
        now: the time.
    """

    def __init__(
        self,
        inner: Backend,
        locks: ObjectLocks,
        period: timedelta,
        is_locked: Callable[[str], bool],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(inner)
        self.locks = locks
        self.period = period
        self.now = now
        self._is_locked = is_locked
        self._stored: dict[str, datetime] = {}
        self._noting = threading.Lock()

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        """See ``Backend.put``."""
        if not self._is_locked(name):
            super().put(name, parts)
            return
        until = self.now().replace(microsecond=0) + self.period
        self.locks.put_locked(name, parts, until)
        with self._noting:
            self._stored[name] = until

    def take_stored(self) -> dict[str, datetime]:
        """Give what was stored locked since this was called last, and until when it is."""
        with self._noting:
            stored, self._stored = self._stored, {}
        return stored

    def delete(self, name: str) -> None:
        """See ``Backend.delete``; what is stored locked is only hidden."""
        super().delete(name)
        if self._is_locked(name):
            return
        # Who may not remove versions leaves them to who may: they are out of sight.
        with suppress(PermissionRefused):
            self._remove_versions(name)

    def _remove_versions(self, name: str) -> None:
        found = [one for one in self.locks.versions(name) if one.name == name]
        # The newest marker last: without it, an older version would be seen again. What is newest and no
        # marker was stored since, by somebody else.
        for one in sorted(found, key=lambda one: one.newest):
            if one.marker or not one.newest:
                self.locks.delete_version(name, one.version)
