"""What a client and its clones have written together."""

import threading
from typing import Protocol

from hotspare.errors import HotspareError


class Member(Protocol):
    """One of the connections."""

    def settle(self, *, flush: bool) -> None:
        """Wait for the writes in flight and, if asked to, make them durable."""
        ...


class SharedWrites:
    """The connections whose writes a flush of any of them makes durable; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members: list[Member] = []
        self._failure: HotspareError | None = None

    def join(self, member: Member) -> None:
        """Add an open connection."""
        with self._lock:
            self._members.append(member)

    def leave(self, member: Member) -> None:
        """Remove a connection that closes."""
        with self._lock:
            self._members = [other for other in self._members if other is not member]

    def members(self) -> list[Member]:
        """Give the open connections."""
        with self._lock:
            return list(self._members)

    def fail(self, failure: HotspareError) -> None:
        """Remember the first write that failed; from then on nothing here can be made durable."""
        with self._lock:
            self._failure = self._failure or failure

    def check(self) -> None:
        """Raise what has failed."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
