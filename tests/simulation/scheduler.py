"""Actors in threads of which exactly one runs at a time: who, a seed decides.

An actor gives the baton back at every call of the store and of the clock. So a run is a function of its
seed, however the operating system schedules threads.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STEPS_MAX = 60_000


class Crash(BaseException):
    """The actor's process is killed; no ``except`` of the program may catch it."""


class Stuck(Exception):
    """A run that does not come to its end."""


def _closed() -> threading.Lock:
    """Give a lock that is held: the plainest and quickest thing to wait for."""
    lock = threading.Lock()
    lock.acquire()
    return lock


class Actor:
    """One process. ``beat`` is what its heart does, while it has one."""

    def __init__(self, scheduler: "Scheduler", name: str, body: Callable[["Actor"], None]) -> None:
        self.name = name
        self.wakes_at = 0.0
        self.done = False
        self.killed = False
        self.beat: Callable[[], None] | None = None
        self.beaten_at = 0.0
        self._scheduler = scheduler
        self._body = body
        self._go = _closed()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def take_baton(self) -> None:
        """Let this actor run; the caller has to wait or to be done."""
        self._scheduler.current = self
        self._go.release()

    def give_baton(self) -> None:
        """Let others run; raises ``Crash`` when this process was killed meanwhile."""
        if self._scheduler.over:  # nobody else is to run any more
            raise Crash
        self._scheduler.between()
        following = self._scheduler.choose()
        if following is not self:
            following.take_baton()
            self._go.acquire()
        self.check_alive()

    def check_alive(self) -> None:
        if self.killed or self._scheduler.over:
            raise Crash

    def sleep(self, seconds: float) -> None:
        self.wakes_at = self._scheduler.now + seconds
        self.give_baton()

    def finish(self) -> None:
        """Join the thread; it must be done."""
        self._thread.join()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self.check_alive()
            self._body(self)
        except Crash:
            pass
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self._scheduler.end(error)
        self.done = True
        following = None if self._scheduler.over else self._scheduler.choose_or_none()
        if following is None:
            self._scheduler.finished.release()
        else:
            following.take_baton()


class Scheduler:
    """Runs actors until all are done."""

    def __init__(self, random_source: random.Random, jump: float, stickiness: float) -> None:
        """``jump``: odds of a step forward in time; ``stickiness``: that an actor keeps the baton."""
        self.now = 0.0
        self.over = False
        self.finished = _closed()
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.trace: list[str] = []
        self.between: Callable[[], None] = lambda: None
        """Called between two steps: for what happens by itself."""
        self._random = random_source
        self._jump = jump
        self._stickiness = stickiness
        self._steps = 0
        self.failure: BaseException | None = None

    def add(self, name: str, body: Callable[[Actor], None]) -> Actor:
        actor = Actor(self, name, body)
        self.actors.append(actor)
        return actor

    def tell(self, what: str) -> None:
        who = self.current.name if self.current else "world"
        self.trace.append(f"{self.now:>10.0f} {who:10} {what}")

    def run(self) -> None:
        """Run until every actor is done; raises what the first one failed with."""
        self.choose().take_baton()
        self.finished.acquire()
        self.current = None
        if self.failure is not None:
            raise self.failure
        for actor in self.actors:
            actor.finish()
        self.actors.clear()

    def end(self, failure: BaseException) -> None:
        """Let the run fail: every other actor is killed as soon as it is its turn."""
        self.failure = failure
        self.over = True

    def abandon(self) -> None:
        """Kill what is left, so that no thread outlives the run."""
        self.over = True
        for actor in self.actors:
            if not actor.done:
                actor.take_baton()
                self.finished.acquire()
            actor.finish()
        self.actors.clear()

    def choose(self) -> Actor:
        """Draw who runs next."""
        actor = self.choose_or_none()
        if actor is None:
            raise Stuck("nobody is left to run")
        return actor

    def choose_or_none(self) -> Actor | None:
        waiting = [actor for actor in self.actors if not actor.done]
        if not waiting:
            return None
        self._steps += 1
        if self._steps > _STEPS_MAX:
            self._steps = 0
            raise Stuck(f"not at its end after {_STEPS_MAX} steps")
        return self._choose(waiting)

    def _choose(self, waiting: list[Actor]) -> Actor:
        ready = [actor for actor in waiting if actor.wakes_at <= self.now]
        if not ready or (len(ready) < len(waiting) and self._random.random() < self._jump):
            self.now = max(self.now, min(actor.wakes_at for actor in waiting if actor not in ready))
            ready = [actor for actor in waiting if actor.wakes_at <= self.now]
        if self.current in ready and self._random.random() < self._stickiness:
            return self.current
        return self._random.choice(ready)


class ActorClock:
    """The clock of one process."""

    def __init__(self, scheduler: Scheduler, actor: Actor) -> None:
        self._scheduler = scheduler
        self._actor = actor

    def monotonic(self) -> float:
        return self._scheduler.now

    def sleep(self, seconds: float) -> None:
        self._actor.sleep(seconds)


@contextmanager
def heart_of(actor: Actor, now: float, beat: Callable[[], None]) -> Iterator[None]:
    """Let the actor's calls of the store beat, as a thread of its own would."""
    actor.beat, actor.beaten_at = beat, now
    try:
        yield
    finally:
        actor.beat = None
