"""Who watches what happens: one thread looks, however many watch, and only what has changed is pushed.

What a look has found is written down once for all who may see the same. Nobody is waited for: a watcher that
is too far behind is let go, and sees how things stand when it comes again.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec

from hotspare.access.roles import EVERYTHING, Permission, Target
from hotspare.access.tokens import Caller
from hotspare.api.actions import Actions
from hotspare.api.estate import Estate, target_of_order
from hotspare.documents.form import document
from hotspare.errors import HotspareError
from hotspare.jobs.document import job_fields
from hotspare.jobs.orders import Job

LOOK_SECONDS = 1.0
_BEHIND_MAX = 64
"""Changes that a watcher may be behind."""
_SHOWN = timedelta(minutes=5)
"""What has ended is told to who comes within this time: who was cut off misses nothing."""
_log = logging.getLogger("hotspare.api")

Key = tuple[str, str]
"""Kind and id."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A job or an action, as a look found it."""

    event: bytes
    target: Callable[[], Target]
    """To what scopes it belongs; asked only where somebody is held to one."""
    asked_by: str = ""


class Watcher:
    """One who watches; belongs to the event loop that made it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._coming: asyncio.Queue[bytes | None] = asyncio.Queue(_BEHIND_MAX)
        self._over = False

    def push(self, events: bytes | None) -> None:
        """Have events told; None to end. Called in its loop. Who is too far behind is told nothing more."""
        if self._over:
            return
        if events is None or self._coming.full():
            self._over = True
            while not self._coming.empty():
                self._coming.get_nowait()
            events = None
        self._coming.put_nowait(events)

    async def next(self) -> bytes | None:
        """Wait for the next events; None when there will be no more."""
        return await self._coming.get()


@dataclass(slots=True)
class _Audience:
    """Those who may see the same."""

    sees: Callable[[Thing], bool]
    watchers: set[Watcher] = field(default_factory=set)
    waiting: int = 0
    """How many jobs wait, as they were told last."""


@dataclass(frozen=True, slots=True)
class _Look:
    things: Mapping[Key, Thing]
    waiting: tuple[Thing, ...] = ()
    """Jobs that are not told one by one: thousands may wait."""


class Watching:
    """All who watch. Safe for several threads."""

    def __init__(self, estate: Estate, actions: Actions) -> None:
        """Begin with nobody; nothing is looked at before somebody comes."""
        self._estate = estate
        self._actions = actions
        self._looking = threading.Lock()
        """Held by who looks, and who comes, so that nothing is told twice or left out."""
        self._lock = threading.Lock()
        """Of who watches. Held for moments only, as those who leave wait for it in their loop."""
        self._audiences: dict[object, _Audience] = {}
        self._last = _Look({})
        self._looked_at = float("-inf")
        self._closed = threading.Event()
        self._somebody = threading.Event()
        self._thread: threading.Thread | None = None

    def join(self, watcher: Watcher, caller: Caller) -> bytes:
        """Take somebody in; gives the events that tell how things stand. May take as long as a look."""
        with self._looking:
            if time.monotonic() - self._looked_at > 2 * LOOK_SECONDS:
                self._look()
            sees = _sight_of(caller)
            waiting = sum(map(sees, self._last.waiting))
            things = b"".join(thing.event for thing in self._last.things.values() if sees(thing))
            with self._lock:
                audience = self._audiences.setdefault(audience_of(caller), _Audience(sees))
                audience.waiting = waiting
                audience.watchers.add(watcher)
                self._somebody.set()
            self._begin_looking()
        if self._closed.is_set():
            self._push([(watcher, None)])
        return _waiting_event(waiting) + things

    def leave(self, watcher: Watcher) -> None:
        """Let somebody go; who is not there any more, is."""
        with self._lock:
            for key, audience in list(self._audiences.items()):
                audience.watchers.discard(watcher)
                if not audience.watchers:
                    del self._audiences[key]
            if not self._audiences:
                self._somebody.clear()

    @property
    def count(self) -> int:
        """How many watch."""
        with self._lock:
            return sum(len(audience.watchers) for audience in self._audiences.values())

    def close(self) -> None:
        """End it for all who watch, and who come."""
        self._closed.set()
        self._somebody.set()
        with self._lock:
            self._push((watcher, None) for one in self._audiences.values() for watcher in one.watchers)

    def _begin_looking(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._look_again_and_again, name="watching", daemon=True)
            self._thread.start()

    def _look_again_and_again(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            self._somebody.wait()
            try:
                with self._looking:
                    self._look()
            except Exception:  # noqa: BLE001 - those who watch must see what comes after a mistake of ours
                _log.exception("What happens could not be looked at")

    def _look(self) -> None:
        """Look once, and push what has changed; ``_looking`` is held."""
        before, self._last = self._last, self._found()
        self._looked_at = time.monotonic()
        with self._lock:
            told = [(audience, list(audience.watchers)) for audience in self._audiences.values()]
        changed = [
            thing
            for key, thing in self._last.things.items()
            if key not in before.things or before.things[key].event != thing.event
        ]
        for audience, watchers in told:
            events = b"".join(thing.event for thing in changed if audience.sees(thing))
            waiting = sum(map(audience.sees, self._last.waiting))
            if waiting != audience.waiting:
                audience.waiting = waiting
                events += _waiting_event(waiting)
            if events:
                self._push((watcher, events) for watcher in watchers)

    def _push(self, told: Iterable[tuple[Watcher, bytes | None]]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Watcher, bytes | None]]] = {}
        for watcher, events in told:
            by_loop.setdefault(watcher.loop, []).append((watcher, events))
        for loop, pairs in by_loop.items():
            with suppress(RuntimeError):  # the loop has ended, and all who watched with it
                loop.call_soon_threadsafe(_push_all, pairs)

    def _found(self) -> _Look:
        """Look at how things stand now; jobs that cannot be asked for are as they were."""
        since = datetime.now(UTC) - _SHOWN
        things = {}
        for action in self._actions.all():
            if action.finished_at is None or action.finished_at > since:
                event = _event("action", document("action", action=action.fields()))
                target = action.target
                things["action", action.id] = Thing(event, partial(_given, target), action.asked_by)
        try:
            book = self._estate.jobs()
            waiting = tuple(Thing(b"", self._target(job)) for job in book.waiting())
            jobs = [*book.ended_since(since), *book.active()]
        except HotspareError:
            told = {key: thing for key, thing in self._last.things.items() if key[0] == "job"}
            return _Look(told | things, self._last.waiting)
        return _Look({("job", job.id): self._thing(job) for job in jobs} | things, waiting)

    def _thing(self, job: Job) -> Thing:
        return Thing(_event("job", document("job", **job_fields(job))), self._target(job))

    def _target(self, job: Job) -> Callable[[], Target]:
        return partial(target_of_order, self._estate, job.order)


def audience_of(caller: Caller) -> object:
    """Give what is the same for all who may see the same."""
    if caller.may(Permission.READ, EVERYTHING):
        return None
    return caller.name, caller.user.grants, caller.token.grants


def _sight_of(caller: Caller) -> Callable[[Thing], bool]:
    if caller.may(Permission.READ, EVERYTHING):
        return lambda _thing: True
    return lambda thing: thing.asked_by == caller.name or caller.may(Permission.READ, thing.target())


def _given(target: Target) -> Target:
    return target


def _push_all(pairs: Iterable[tuple[Watcher, bytes | None]]) -> None:
    for watcher, events in pairs:
        watcher.push(events)


def _waiting_event(count: int) -> bytes:
    return _event("waiting", document("waiting", jobs=count))


def _event(kind: str, content: Mapping[str, object]) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode(content) + b"\n\n"
