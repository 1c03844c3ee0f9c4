"""One simulated history: two hosts, a witness, and everything that may go wrong between them.

Time is simulated; each party reads a clock of its own, which starts anywhere and goes at its own rate. What a
party must not forget survives its crash, the rest does not. A history is a function of its seed.
"""

import heapq
import random
from collections.abc import Callable

from tests.replication.lease.parties import HOSTS, WITNESS, Host, Party, Violation

_FAULTY_SECONDS = 50.0
_CALM_SECONDS = 30.0


class World:
    """The state of one history."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.trace: list[str] = []
        self.acknowledged = 0
        """The last write that the guest's user was told is safe."""
        self.counts = {"takeovers": 0, "handovers": 0, "stops": 0, "degraded": 0, "resyncs": 0}
        self.loss = self.random.choice([0.0, 0.0, 0.1, 0.4])
        self.late = self.random.choice([0.0, 0.0, 0.1, 0.3])
        self.twice = self.random.choice([0.0, 0.1, 0.3])
        self.killed_saving = self.random.choice([0.0, 0.0, 0.1])
        self.calm = False
        self._cut: set[tuple[str, str]] = set()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self.witness = Party(self, WITNESS)
        self.hosts = {name: Host(self, name, peer) for name, peer in (HOSTS, HOSTS[::-1])}
        self.parties: dict[str, Party] = {WITNESS: self.witness, **self.hosts}

    def tell(self, what: str) -> None:
        self.trace.append(f"{self.now:8.2f} {what}")

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, work))

    def run(self) -> None:
        """Live through faults, then through a time without any, at whose end one guest must run."""
        for party in self.parties.values():
            party.start()
        alpha = self.hosts[HOSTS[0]]
        alpha.start_guest()
        self._mischief()
        self._advance(_FAULTY_SECONDS)
        self.tell("CALM")
        self.calm = True
        self.loss = self.late = self.twice = self.killed_saving = 0.0
        self._cut.clear()
        for party in self.parties.values():
            party.wake()
            party.start()
        self._advance(_FAULTY_SECONDS + _CALM_SECONDS)
        running = [host.name for host in self.hosts.values() if host.guest == "running"]
        if len(running) != 1:
            raise Violation(f"when all is well again, the guest runs on {running}")
        if not self.hosts[running[0]].armed:
            raise Violation("when all is well again, nobody would take over")

    def _advance(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            self.now, _, work = heapq.heappop(self._events)
            work()
        self.now = end

    def reaches(self, one: str, other: str) -> bool:
        return (one, other) not in self._cut

    def send(self, sender: str, receiver: str, deliver: Callable[[], None]) -> None:
        """Deliver sooner, later, twice or never."""
        for _ in range(2 if self.random.random() < self.twice else 1):
            if self.random.random() < self.loss or not self.reaches(sender, receiver):
                continue
            slow = self.random.random() < self.late
            delay = self.random.uniform(0, 9) if slow else self.random.uniform(0.001, 0.05)
            # What is under way arrives although the line is cut meanwhile: it may have passed the cut.
            self.after(delay, deliver)

    def check_only_one_runs(self) -> None:
        running = [host.name for host in self.hosts.values() if host.guest == "running"]
        if len(running) > 1:
            raise Violation(f"the guest runs on {running} at {self.now:.2f}")

    # What goes wrong.

    def _mischief(self) -> None:
        if self.calm:
            return
        often = [self._cut_line, self._isolate, self._crash]
        self.random.choice([*often, *often, self._kill, self._pause, self._hand_over])()
        self.after(self.random.expovariate(1 / self.random.choice([2.0, 8.0, 20.0])), self._mischief)

    def _how_long(self) -> float:
        return self.random.choice([0.5, 2, 4, 6, 12, 25]) * self.random.uniform(0.5, 1.5)

    def _cut_line(self) -> None:
        pair = self.random.sample(list(self.parties), 2)
        lines = {(pair[0], pair[1]), (pair[1], pair[0])}
        if self.random.random() < 0.3:
            lines = {(pair[0], pair[1])}
        self._cut_lines(lines)

    def _isolate(self) -> None:
        alone = self.random.choice(list(self.parties))
        others = [name for name in self.parties if name != alone]
        self._cut_lines({(alone, one) for one in others} | {(one, alone) for one in others})

    def _cut_lines(self, lines: set[tuple[str, str]]) -> None:
        self.tell(f"CUT {sorted(lines)}")
        self._cut |= lines

        def mend() -> None:
            self.tell(f"MEND {sorted(lines)}")
            self._cut -= lines

        self.after(self._how_long(), mend)

    def _crash(self) -> None:
        """A whole host, with the guest on it, or the witness."""
        party = self.random.choice(list(self.parties.values()))
        party.crash()
        self.after(self._how_long(), party.start)

    def _kill(self) -> None:
        """The agent alone: the guest goes on, and so does the fence."""
        party = self.random.choice(list(self.parties.values()))
        party.kill()
        self.after(self._how_long(), party.start)

    def _pause(self) -> None:
        """The agent stands still, and then goes on as if nothing had been."""
        party = self.random.choice(list(self.parties.values()))
        party.pause(self._how_long())

    def _hand_over(self) -> None:
        for host in self.hosts.values():
            if host.hand_over():
                return


def run_history(seed: int) -> World:
    """Run one history to its end. Raises ``Violation``, whose ``world`` has the trace."""
    world = World(seed)
    try:
        world.run()
    except Exception as error:
        error.add_note(f"seed {seed}")
        error.world = world  # type: ignore[attr-defined]  # for who wants to look at the trace
        raise
    return world
