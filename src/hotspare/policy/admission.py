"""Who may begin now: a state machine that is told what happens, and answers with the runs to begin.

It has no clock and starts nothing. Callers ``ask`` for machines that are due, report latency and the ends of
runs, and call ``grants`` after each of these and now and then. Times are seconds since the epoch.

The order, of those that nothing stands in the way of:

1. *Urgent* runs, by the time at which they should have begun at the latest: waiting longer would break the
   promised RPO, or they have waited for ``patience`` while they could have run. When a limit stands in the
   way of the first of them, what it needs is held for it: no other takes it meanwhile. So nobody starves, for
   ahead of an urgent run are only those that asked before it became so, and each of them ends.
2. All others, by priority, then by measured throughput: who is through fastest holds up the fewest.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from hotspare.policy.limits import Limits, Resource
from hotspare.policy.openings import ALWAYS, Openings

LATENCY_STOP = 2.0
"""From so many times its usual latency on, a host gets no new run."""
LATENCY_RESUME = 1.5
"""Below that it gets some again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A machine that is due."""

    id: str
    """Of the machine and its policy; asked for once at a time."""
    host: str
    """URI of the platform that it runs on."""
    resources: frozenset[Resource]
    """What its run takes part of, the host among them."""
    asked_at: float
    deadline: float = inf
    """When its newest restore point becomes older than was promised; -inf when it has none at all."""
    expected: float = 0.0
    """Seconds that the run will take."""
    rate: float = 0.0
    """Measured bytes per second; 0 when never measured."""
    priority: int = 0
    openings: Openings = ALWAYS
    may_break_openings: bool = False
    """Begin outside of them when the promise would break by waiting."""
    blackouts: Openings | None = None
    """When it may not begin even then."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A run to begin now."""

    request: Request
    because: str
    """Why it, and now: for people."""


@dataclass(frozen=True, slots=True)
class Patience:
    """For how long what waits; seconds."""

    risk_margin: float = 1800.0
    """So long before it must have begun at the latest, a run is urgent."""
    waiting: float = 4 * 3600.0
    """A run that could have begun for so long is urgent."""
    latency_hold: float = 2 * 3600.0
    """A host whose latency is too high for so long gets urgent runs again, one at a time: they are paced."""


@dataclass(slots=True)
class Admission:
    """Who waits, who runs, and what is taken; belongs to one thread."""

    limits: Limits = field(default_factory=Limits)
    patience: Patience = field(default_factory=Patience)
    _waiting: dict[str, Request] = field(default_factory=dict)
    _running: dict[str, Request] = field(default_factory=dict)
    _open_since: dict[str, float] = field(default_factory=dict)
    """Since when a waiting run could have begun, as far as its windows are concerned."""
    _taken: Counter[Resource] = field(default_factory=Counter)
    _slow_since: dict[str, float] = field(default_factory=dict)

    @property
    def waiting(self) -> Sequence[Request]:
        """Those that were asked for and have not begun."""
        return tuple(self._waiting.values())

    @property
    def running(self) -> Sequence[Request]:
        """Those that were granted and have not ended."""
        return tuple(self._running.values())

    def taken(self, resource: Resource) -> int:
        """Count the runs that take part of something."""
        return self._taken[resource]

    def ask(self, request: Request) -> None:
        """Put a machine in line; one that is there keeps its place, one that runs is not asked for again."""
        if request.id in self._running:
            return
        known = self._waiting.get(request.id)
        self._waiting[request.id] = request
        if known is None:
            self._open_since.pop(request.id, None)

    def resume(self, request: Request) -> None:
        """Count a run that goes on already: it was granted before this state machine was made."""
        self.withdraw(request.id)
        if request.id not in self._running:
            self._running[request.id] = request
            self._taken.update(request.resources)

    def withdraw(self, request_id: str) -> None:
        """Take a machine out of the line; nothing happens when it is not there."""
        self._waiting.pop(request_id, None)
        self._open_since.pop(request_id, None)

    def finish(self, request_id: str) -> None:
        """Note that a run ended, however; nothing happens when it is not known."""
        request = self._running.pop(request_id, None)
        if request is not None:
            self._taken.subtract(request.resources)

    def latency(self, host: str, ratio: float, now: float) -> None:
        """Note how many times their usual latency the guests of a host have now."""
        if ratio >= LATENCY_STOP:
            self._slow_since.setdefault(host, now)
        elif ratio < LATENCY_RESUME:
            self._slow_since.pop(host, None)

    def grants(self, now: float) -> list[Grant]:
        """Give the runs to begin now; they count as running from here on."""
        granted = []
        held: Counter[Resource] = Counter()
        awaited: set[Resource] = set()
        for request in self._in_order(now):
            urgent = self._latest_start(request) <= now + self.patience.risk_margin
            if self._too_slow(request, now):
                continue
            if full := self._full(request, held):
                # The first in line for what is full is enough: those behind it cannot begin before it.
                if urgent and full not in awaited and self.limits.of(full):
                    held.update(request.resources)
                    awaited.add(full)
                continue
            del self._waiting[request.id]
            self._running[request.id] = request
            self._taken.update(request.resources)
            granted.append(Grant(request, self._why(request, now)))
            self._open_since.pop(request.id, None)
        return granted

    def why_waiting(self, request_id: str, now: float) -> str:
        """Say in words why a machine that was asked for has not begun."""
        request = self._waiting[request_id]
        if obstacle := self._closed(request, now) or self._too_slow(request, now):
            return obstacle
        if full := self._full(request, Counter()):
            return f"{full} has {self._taken[full]} of {self.limits.of(full)} runs"
        return "others are before it"

    def _in_order(self, now: float) -> list[Request]:
        """Give those whose window is open, in the order in which they may begin."""
        opened = [request for request in self._waiting.values() if not self._closed(request, now)]
        for request in opened:
            self._open_since.setdefault(request.id, now)

        def order(request: Request) -> tuple[float, ...]:
            latest = self._latest_start(request)
            if latest <= now + self.patience.risk_margin:
                return (0, latest, request.asked_at)
            return (1, -request.priority, -request.rate, request.asked_at)

        return sorted(opened, key=lambda request: (*order(request), request.id))

    def _latest_start(self, request: Request) -> float:
        """Tell when a run should have begun at the latest.

        Never before it was asked for: else machines whose promise was broken long ago could keep coming
        before those that have only waited.
        """
        by_promise = max(request.deadline - request.expected, request.asked_at)
        by_waiting = self._open_since.get(request.id, inf) + self.patience.waiting
        return min(by_promise, by_waiting)

    def _closed(self, request: Request, now: float) -> str | None:
        opened = request.openings.at(now)
        if opened is not None:
            left, length = opened[1] - now, opened[1] - opened[0]
            # A run that is longer than any window begins in the first half of one.
            if left >= min(request.expected, length / 2):
                return None
        if self._would_break(request, now):
            if request.blackouts is None or request.blackouts.at(now) is None:
                return None
            return "there is a blackout"
        return "its window is closed" if opened is None else "the rest of its window is too short for it"

    def _would_break(self, request: Request, now: float) -> bool:
        """Tell whether a run may begin outside of its windows, for they would open too late for its promise.

        It begins some time before it has to: others may be in the same need.
        """
        if not request.may_break_openings:
            return False
        latest = max(request.deadline - request.expected, request.asked_at)
        opens = request.openings.next_start(now)
        return latest <= now + self.patience.risk_margin and (opens is None or opens > latest)

    def _too_slow(self, request: Request, now: float) -> str | None:
        since = self._slow_since.get(request.host)
        if since is None:
            return None
        lets_one = now - since >= self.patience.latency_hold and self._latest_start(request) <= now
        if lets_one and not self._taken[Resource("host", request.host)]:
            return None
        return f"the guests of {request.host} are slower than usual"

    def _full(self, request: Request, held: Counter[Resource]) -> Resource | None:
        for resource in sorted(request.resources):
            if self._taken[resource] + held[resource] >= self.limits.of(resource):
                return resource
        return None

    def _why(self, request: Request, now: float) -> str:
        if request.deadline == -inf:
            return "it has no restore point yet"
        if request.deadline - request.expected <= now + self.patience.risk_margin:
            return "its RPO is at risk"
        if self._open_since.get(request.id, inf) + self.patience.waiting <= now + self.patience.risk_margin:
            return "it has waited longest"
        return "it is through fastest" if request.rate else "its turn"
