"""What pages ask for again and again, remembered for some seconds: how machines stand, what runs, space."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Request

from hotspare.access.roles import Permission, Target
from hotspare.access.tokens import Caller
from hotspare.api.estate import Inventory, target_of_machine
from hotspare.api.guard import Server
from hotspare.catalog.rows import RunRow
from hotspare.errors import HotspareError
from hotspare.fleet.standing import KnownPolicy, MachineStanding, stand, while_running

Value = TypeVar("Value")
_STANDINGS_SECONDS = 20.0
"""While no machine and no run is new."""
_RUNNING_SECONDS = 1.0
_STORED_SECONDS = 60.0
GROWTH_OVER = timedelta(days=30)


class Remembered(Generic[Value]):
    """A value that is made anew when it is older than some seconds; who comes meanwhile waits for it."""

    def __init__(self, seconds: float, make: Callable[[], Value]) -> None:
        self._seconds = seconds
        self._make = make
        self._lock = threading.Lock()
        self._made: tuple[float, Value] | None = None

    def get(self) -> Value:
        """Give it. Raises what making it raises, and keeps nothing then."""
        with self._lock:
            if self._made is None or time.monotonic() - self._made[0] > self._seconds:
                self._made = (time.monotonic(), self._make())
            return self._made[1]

    def forget(self) -> None:
        """Have it made anew: something was done."""
        with self._lock:
            self._made = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """How full a repository's store is, and when it will be."""

    free: int | None
    """Bytes; None where the store does not tell."""
    total: int | None
    stored: int
    """Bytes that backups have stored within ``GROWTH_OVER``."""

    @property
    def days_left(self) -> int | None:
        """After how many days it is full if that goes on; None when that cannot be told, or never comes."""
        if self.free is None or self.stored <= 0:
            return None
        return int(self.free / (self.stored / GROWTH_OVER.days))


class Figures:
    """All of it. Safe for several threads."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stood_upon: Inventory | None = None
        self._standings = Remembered(_STANDINGS_SECONDS, self._stand)
        self._running = Remembered(_RUNNING_SECONDS, lambda: server.estate.ask(lambda it: it.running()))
        self._stored = Remembered(_STORED_SECONDS, self._sum_up)

    def standings(self, caller: Caller) -> list[MachineStanding]:
        """Give how the machines stand that somebody may see; up to half a minute old."""
        inventory = self._server.estate.inventory()
        if inventory is not self._stood_upon:
            self._stood_upon = inventory
            self._standings.forget()
        busy = {(run.platform, run.machine) for run in self._running.get() if run.kind == "backup"}
        standings = while_running(self._standings.get(), busy) if busy else self._standings.get()
        if caller.may(Permission.READ, Target()):
            return standings
        return [
            one for one in standings if caller.may(Permission.READ, target_of_machine(one.platform, one.line))
        ]

    def problems(self, caller: Caller) -> list[tuple[str, HotspareError]]:
        """Give the platforms that did not answer, each with the reason."""
        found = self._server.estate.inventory().problems
        return [(uri, error) for uri, error in found if caller.may(Permission.READ, Target(platform=uri))]

    def running(self, caller: Caller) -> list[RunRow]:
        """Give the runs of commands and jobs of this host that go on, and that somebody may see."""
        tags = self._server.estate.inventory().tags
        return [
            run
            for run in self._running.get()
            if caller.may(
                Permission.READ,
                Target(
                    repository=run.repository or None,
                    platform=run.platform or None,
                    tags=tags.get((run.platform, run.machine)),
                ),
            )
        ]

    def capacity(self, url: str) -> Capacity:
        """Tell how full a repository's store is; ``url`` is one that an opened repository has."""
        space = self._server.estate.spaces.of(url)
        stored = self._stored.get().get(url, 0)
        return Capacity(space.free if space else None, space.total if space else None, stored)

    def capacity_of(self, key: str) -> Capacity:
        """The same by a repository's id. Raises as ``Estate.repository``."""
        return self.capacity(self._server.estate.repository(key).backend.url)

    def look_again(self) -> None:
        """Have everything looked at anew: something was done."""
        self._standings.forget()
        self._running.forget()

    def _stand(self) -> list[MachineStanding]:
        estate = self._server.estate
        files = estate.policies()
        policies = {name: KnownPolicy(one, files.changed_at(name)) for name, one in files.all().items()}
        machines = estate.inventory().machines
        return stand(machines, policies, estate.settings.platform, datetime.now(UTC))

    def _sum_up(self) -> Mapping[str, int]:
        since = datetime.now(UTC) - GROWTH_OVER
        return self._server.estate.ask(lambda it: it.stored_since(since))


def _figures_of(request: Request) -> Figures:
    figures: Figures = request.app.state.figures
    return figures


FiguresHere = Annotated[Figures, Depends(_figures_of)]


def quietly(ask: Callable[[], Value], otherwise: Value) -> tuple[Value, HotspareError | None]:
    """Give an answer, or ``otherwise`` with the error: one part of a page must not cost the rest."""
    try:
        return ask(), None
    except HotspareError as error:
        return otherwise, error
