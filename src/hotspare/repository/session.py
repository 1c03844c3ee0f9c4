"""Sessions: how writers and collectors of garbage know of each other without a lock.

Whoever writes first puts ``sessions/<id>``, then reads ``gc/``, and only then loads the index. While it
lives it puts its session again and again; a collector that sees it stand still for long enough *by the
collector's own monotonic clock* may expel it. So no two clocks are ever compared. See
docs/repository-format.md, "Sessions", for the protocol and why it is safe.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import msgspec

from hotspare.errors import HotspareError, RunExpelled
from hotspare.repository.format import EXPELLED, SESSIONS, SETTLED
from hotspare.repository.keys import Keyring
from hotspare.repository.liveness import own_life
from hotspare.repository.pack import PACK_TARGET
from hotspare.repository.record import seal_record
from hotspare.storage.backend import Backend

HEARTBEAT_INTERVAL = 60.0
"""Seconds between two refreshes of a session."""
PUTS_MAX = 2
"""Packs that may be on their way to the store while the next one is filled: bounds memory."""


class Clock(Protocol):
    """Time as it passes for this process; nobody else's is ever compared with it."""

    def monotonic(self) -> float:
        """Give seconds since some moment."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after that long."""
        ...


class SystemClock:
    """The clock of the operating system."""

    def monotonic(self) -> float:
        """See ``Clock``."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See ``Clock``."""
        time.sleep(seconds)


@contextmanager
def heart_in_background(beat: Callable[[], None]) -> Iterator[None]:
    """Call ``beat`` every ``HEARTBEAT_INTERVAL`` in a thread of its own while the block runs."""
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(HEARTBEAT_INTERVAL):
            beat()

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a repository needs of the world besides its store; tests put a world of their own here."""

    clock: Clock = field(default_factory=SystemClock)
    heart: Callable[[Callable[[], None]], AbstractContextManager[None]] = heart_in_background
    executor: Callable[[], Executor] = lambda: ThreadPoolExecutor(PUTS_MAX, thread_name_prefix="put")
    """Makes what a writer stores its packs with."""
    pack_target: int = PACK_TARGET


class SessionKind(StrEnum):
    """What a session is of; the first letter begins its id."""

    WRITER = "writer"
    COLLECTOR = "collector"


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Content of ``sessions/<id>``: for people, but for the fact that it changes, and ``life``."""

    kind: str
    host: str
    process: int
    beats: int
    life: str = ""
    """Name of the process, see ``liveness.py``."""


class Session:
    """One run's presence in the repository. Thread-safe."""

    def __init__(self, backend: Backend, keyring: Keyring, kind: SessionKind) -> None:
        self.id = f"{kind.value[0]}-{secrets.token_hex(16)}"
        self.kind = kind
        self._backend = backend
        self._keyring = keyring
        self._beats = 0
        self._stores = False

    @property
    def name(self) -> str:
        """The object's name."""
        return SESSIONS + self.id

    def begin(self) -> None:
        """Make the session known; everything that is to be protected by it comes after."""
        self._put()

    def beat(self) -> None:
        """Show that the run is alive. A failure is passed over: the next beat may succeed."""
        with suppress(HotspareError):
            self._put()

    def expelled(self) -> bool:
        """Tell whether a collector has given this session up."""
        return any(item.name == EXPELLED + self.id for item in self._backend.list(EXPELLED + self.id))

    def refuse_expelled(self, meaning: str) -> None:
        """Raise ``RunExpelled`` when a collector has given this session up."""
        if self.expelled():
            raise run_expelled(meaning)

    def stores(self) -> None:
        """Note that from now on the run stores what must not be trusted should it fail."""
        self._stores = True

    def leave_failed(self) -> None:
        """End as a run that failed."""
        if self._stores:
            self.give_up()
        else:
            self.end()

    def end(self) -> None:
        """Take the session back: nothing that it stored is in doubt."""
        self._backend.delete(self.name)

    def give_up(self) -> None:
        """End as a run that failed.

        What it stored, and what of it may yet arrive in the store, is not to be trusted: so it expels
        itself, and settles that it has no restore point.
        """
        self._backend.put(EXPELLED + self.id, [b"\n"])
        settled = settled_name(self.id, self.id)
        self._backend.put(settled, [seal_record(self._keyring, settled, [])])
        self.end()

    def _put(self) -> None:
        self._beats += 1
        record = SessionRecord(
            kind=self.kind.value,
            host=socket.gethostname(),
            process=os.getpid(),
            beats=self._beats,
            life=own_life(),
        )
        self._backend.put(self.name, [seal_record(self._keyring, self.name, record)])


@contextmanager
def session_held(
    backend: Backend, keyring: Keyring, heart: Callable[[Callable[[], None]], AbstractContextManager[None]]
) -> Iterator[Session]:
    """Be a writer while the block runs: collectors wait for its end before they delete."""
    session = Session(backend, keyring, SessionKind.WRITER)
    session.begin()
    try:
        with heart(session.beat):
            yield session
    except BaseException:
        with suppress(HotspareError):
            session.leave_failed()
        raise
    # All is done; a session that cannot be removed is a collector's to clear away.
    with suppress(HotspareError):
        session.end()


def run_expelled(meaning: str) -> RunExpelled:
    """Give the error of a run that was given up; ``meaning`` is for what it did."""
    return RunExpelled(
        "This run was suspended for too long, and a collector of garbage has given it up",
        meaning=meaning,
        hint="Run it again",
    )


def settled_name(session: str, run: str) -> str:
    """Give the name of the record in which ``run`` lists the restore points it adopted of ``session``."""
    return f"{SETTLED}{session}/{run}"


def is_collector(session: str) -> bool:
    """Tell a collector's session id from a writer's."""
    return session.startswith(SessionKind.COLLECTOR.value[0] + "-")
