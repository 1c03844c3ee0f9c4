"""Waiting for the sessions that may not know of a condemned set, and expelling those that stand still.

Only this process's monotonic clock is looked at: a session is dead when its object stayed the same for
``limit`` seconds of *our* time, or at once when its process was one of this host and is gone. Should it be
alive after all, it finds its tombstone before it reports success.
"""

from collections.abc import Callable

from hotspare.cancellation import Cancellation
from hotspare.errors import ObjectNotFound, RepositoryDamaged
from hotspare.repository.format import EXPELLED, SESSIONS
from hotspare.repository.keys import Keyring
from hotspare.repository.liveness import is_known_dead
from hotspare.repository.record import open_record
from hotspare.repository.session import Clock, SessionRecord, is_collector
from hotspare.storage.backend import Backend

EXPEL_AFTER = 30 * 60.0
"""Seconds without a heartbeat."""
POLL_INTERVAL = 30.0
"""Seconds, at most."""


def live_sessions(backend: Backend, own: str) -> set[str]:
    """List the sessions of others, the dead ones included."""
    names = (item.name.removeprefix(SESSIONS) for item in backend.list(SESSIONS))
    return {name for name in names if name != own}


class Watch:
    """Watches some sessions until each is over, one way or the other."""

    def __init__(
        self,
        backend: Backend,
        keyring: Keyring,
        clock: Clock,
        limit: float,
        beat: Callable[[], None],
        to_end: bool,
    ) -> None:
        """Watch for ``limit`` seconds without a heartbeat at most; call ``beat`` meanwhile.

        ``to_end`` tells whether a writer's session must be over, or only be known to be alive. Collectors
        never wait for each other's end, which could last for ever.
        """
        self.expelled: list[str] = []
        self._backend = backend
        self._keyring = keyring
        self._clock = clock
        self._limit = limit
        self._beat = beat
        self._to_end = to_end

    def wait(self, sessions: set[str], cancellation: Cancellation) -> None:
        """Return once all sessions have ended, were expelled or, where that suffices, have shown life."""
        seen = {session: (self._look(session), self._clock.monotonic()) for session in sorted(sessions)}
        while seen:
            cancellation.check()
            for session, (before, since) in list(seen.items()):
                now = self._look(session)
                if now is None or self._is_expelled(session):
                    del seen[session]
                elif now != before:
                    seen[session] = now, self._clock.monotonic()
                    if is_collector(session) or not self._to_end:
                        del seen[session]
                elif self._clock.monotonic() - since >= self._limit or self._is_dead(session, now):
                    self._expel(session)
                    del seen[session]
            if seen:
                self._clock.sleep(min(POLL_INTERVAL, self._limit / 4))
                self._beat()

    def _look(self, session: str) -> bytes | None:
        try:
            return self._backend.get(SESSIONS + session)
        except ObjectNotFound:
            return None

    def _is_dead(self, session: str, data: bytes) -> bool:
        try:
            record = open_record(self._keyring, SESSIONS + session, data, SessionRecord)
        except RepositoryDamaged:
            return False
        return is_known_dead(record.life)

    def _is_expelled(self, session: str) -> bool:
        return any(self._backend.list(EXPELLED + session))

    def _expel(self, session: str) -> None:
        self._backend.put(EXPELLED + session, [b"\n"])
        self.expelled.append(session)
