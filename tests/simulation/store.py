"""A store in memory that does to its users whatever the contract of ``Backend`` allows.

Between any two steps of a PUT or DELETE other actors run. A process may be killed at any call; the PUT that
it was in the midst of may be lost, take effect at once, or arrive much later. A PUT may arrive a second
time. A process may be suspended for days. A power cut kills all processes, and undoes what had not returned.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from typing_extensions import Buffer

from hotspare.errors import ObjectNotFound, StorageError
from hotspare.storage.backend import Capabilities, ObjectInfo
from hotspare.storage.local import LocalBackend
from tests.simulation.scheduler import Actor, Scheduler

_HEARTBEAT = 60.0
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Faults:
    """Odds, for each call of the store."""

    crash: float = 0.0
    suspend: float = 0.0
    late: float = 0.0
    """Of a PUT in which the process crashed, or that failed: that it arrives later."""
    twice: float = 0.0
    error: float = 0.0
    power_cut: float = 0.0
    """For each step of the world."""


class SimulatedStore:
    """What is stored, and what is on its way."""

    def __init__(self, scheduler: Scheduler, random_source: random.Random) -> None:
        self.objects: dict[str, bytes] = {}
        self.faults = Faults()
        self.scheduler = scheduler
        self.random = random_source
        self._undurable: dict[str, bytes | None] = {}
        """Names whose last change has not returned yet, with what was there before."""
        self._late: list[tuple[str, bytes]] = []

    def change(self, name: str, data: bytes | None) -> None:
        self._undurable.setdefault(name, self.objects.get(name))
        if data is None:
            self.objects.pop(name, None)
        else:
            self.objects[name] = data

    def settle(self, name: str) -> None:
        """Make the state of an object durable."""
        self._undurable.pop(name, None)

    def put_off(self, name: str, data: bytes) -> None:
        """Let a PUT arrive later."""
        self._late.append((name, data))

    def between(self) -> None:
        """Let happen what happens by itself."""
        if self._late and self.random.random() < 0.01:
            self.deliver(self.random.randrange(len(self._late)))
        if self.faults.power_cut and self.random.random() < self.faults.power_cut:
            self._cut_power()

    def deliver(self, number: int) -> None:
        name, data = self._late.pop(number)
        self.scheduler.tell(f"  late PUT {name}")
        self.objects[name] = data

    def come_to_rest(self) -> None:
        """Deliver all that is late; no more faults."""
        self.faults = Faults()
        while self._late:
            self.deliver(0)
        self._undurable.clear()

    def _cut_power(self) -> None:
        self.scheduler.tell("POWER CUT")
        for name, before in self._undurable.items():
            if self.random.random() < 0.5:
                self.scheduler.tell(f"  undone: {name}")
                if before is None:
                    self.objects.pop(name, None)
                else:
                    self.objects[name] = before
        self._undurable.clear()
        for actor in self.scheduler.actors:
            actor.killed = True


class DirectBackend:
    """The store as an onlooker sees it: whole, at this moment, without moving the world."""

    url = "simulated:"
    durability = LocalBackend.durability
    capabilities = Capabilities()

    def __init__(self, store: SimulatedStore) -> None:
        self._store = store

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        self._store.objects[name] = b"".join(parts)

    def get(self, name: str) -> bytes:
        try:
            return self._store.objects[name]
        except KeyError:
            raise ObjectNotFound(f"{name} is not there") from None

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        data = self.get(name)[offset : offset + length]
        if len(data) != length:
            raise StorageError(f"{name} is too short")
        return data

    def size(self, name: str) -> int:
        return len(self.get(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        names = sorted(name for name in self._store.objects if name.startswith(prefix))
        return iter([ObjectInfo(name, len(self._store.objects[name])) for name in names])

    def delete(self, name: str) -> None:
        self._store.objects.pop(name, None)

    def close(self) -> None:
        pass


class ActorBackend(DirectBackend):
    """The store as one process sees it."""

    def __init__(self, store: SimulatedStore, actor: Actor) -> None:
        super().__init__(store)
        self._actor = actor

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        data = b"".join(parts)
        self._turn(f"PUT {_short(name)}", (name, data))
        self._store.change(name, data)
        if self._odds(self._store.faults.twice):
            self._store.put_off(name, data)
        self._turn("  PUT is visible", None)
        self._store.settle(name)

    def get(self, name: str) -> bytes:
        self._turn(f"GET {_short(name)}", None)
        return super().get(name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self._turn(f"GET {_short(name)} from {offset}", None)
        return super().get_range(name, offset, length)

    def size(self, name: str) -> int:
        self._turn(f"HEAD {_short(name)}", None)
        return super().size(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._turn(f"LIST {_short(prefix)}", None)
        found = list(super().list(prefix))
        for item in found:
            self._store.settle(item.name)  # what a listing shows is durable
        return iter(found)

    def delete(self, name: str) -> None:
        self._turn(f"DELETE {_short(name)}", None)
        self._store.change(name, None)
        self._turn("  DELETE is visible", None)
        self._store.settle(name)

    def _turn(self, what: str, put: tuple[str, bytes] | None) -> None:
        """Let others run, and let happen to this process what may happen to it."""
        actor, store = self._actor, self._store
        actor.check_alive()
        self._beat_if_due()
        store.scheduler.tell(what)
        try:
            if self._odds(store.faults.crash):
                store.scheduler.tell("  CRASH")
                actor.killed = True
                actor.check_alive()
            if self._odds(store.faults.suspend):
                store.scheduler.tell("  suspended for days")
                actor.sleep(store.random.uniform(0.01, 3) * DAY)
            else:
                actor.give_baton()
            if put is not None and self._odds(store.faults.error):
                store.scheduler.tell("  fails")
                raise StorageError("the connection was lost")
        except BaseException:
            if put is not None and self._odds(store.faults.late):
                store.put_off(*put)
            raise

    def _beat_if_due(self) -> None:
        actor, beat = self._actor, self._actor.beat
        now = self._store.scheduler.now
        if beat is not None and now - actor.beaten_at >= _HEARTBEAT:
            actor.beaten_at, actor.beat = now, None
            try:
                beat()
            finally:
                actor.beat = beat

    def _odds(self, odds: float) -> bool:
        return odds > 0 and self._store.random.random() < odds


@cache
def _short(name: str) -> str:
    """Shorten hexadecimal names: a trace is for people."""
    return "/".join(part[:12] for part in name.split("/"))
