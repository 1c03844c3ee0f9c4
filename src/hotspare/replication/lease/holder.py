"""The host whose machine runs: how long it may, and what it asks of the two voters.

Nothing here reads a clock: ``now`` is given, in seconds of a clock that never jumps.
"""

from collections.abc import Callable, Sequence
from math import inf

import msgspec

from hotspare.replication.lease.terms import How, Order, Renew, Terms, Verdict


class Holding(msgspec.Struct, frozen=True):
    """What the holder must not forget."""

    epoch: int
    starts: int = 0
    """How often its agent was started in this epoch."""
    free: bool = True
    """Whether one voter is surely disarmed: then the machine may run without any lease."""
    successor: str = ""
    """To whom the machine was handed over: it must never start here in this epoch."""


class _Side:
    """What the holder knows of one voter."""

    def __init__(self) -> None:
        self.sent: dict[Order, tuple[float, bool]] = {}
        """When what was asked that is not answered yet; and whether it was to arm."""
        self.last_arming: Order = (0, 0)
        self.confirmed: Order | None = None
        self.armed = True
        """As confirmed last; while nothing was, the worst is supposed."""
        self.relied_until = -inf
        self.answered_at = -inf

    @property
    def disarmed(self) -> bool:
        """Whether this voter will surely grant no takeover.

        It heeds no message that is older than one it answered, so what arms it can only have been sent later.
        """
        return self.confirmed is not None and not self.armed and self.last_arming < self.confirmed


class Holder:
    """Asks for renewals, and says until when the machine may run.

    Args:
        me: name of this host.
        voters: names of the two, the witness first. Only one: there is no automatic failover, nothing is
            ever armed, and the machine runs without a lease.
        holding: as kept last; counted up and saved at once, so that what was sent before is older.
        terms: of this lease.
        save: makes it durable before it returns.
    """

    def __init__(
        self,
        me: str,
        voters: Sequence[str],
        holding: Holding,
        terms: Terms,
        save: Callable[[Holding], None],
    ) -> None:
        self._me = me
        self._terms = terms
        self._save = save
        self._free_since_start = holding.free
        self._kept = msgspec.structs.replace(holding, starts=holding.starts + 1)
        save(self._kept)
        self._sides = {name: _Side() for name in voters}
        self._number = 0
        self._next_beat = -inf
        self._in_sync = False
        self._raise_to = 0
        self.risen_to = 0
        """The later epoch that this host is the holder of, too; then a new holder is to be made for it."""
        self.deposed_by: tuple[int, str] | None = None
        """The later epoch that there is, and its holder."""

    @property
    def epoch(self) -> int:
        """In which this host is the holder."""
        return self._kept.epoch

    @property
    def successor(self) -> str:
        """To whom the machine was handed over."""
        return self._kept.successor

    def set_in_sync(self, in_sync: bool) -> None:
        """Say whether the standby has all that it must have to take over by itself."""
        if in_sync != self._in_sync:
            self._in_sync = in_sync
            self._next_beat = -inf

    def hand_over(self, successor: str) -> None:
        """End this epoch in favour of ``successor``. The machine must have stopped, for good."""
        self._keep(msgspec.structs.replace(self._kept, successor=successor))
        self._next_beat = -inf

    def due(self, now: float) -> list[tuple[str, Renew]]:
        """Give what is to be sent to whom now; ``deadline`` takes it for sent from here on."""
        if now < self._next_beat or self.deposed_by:
            return []
        self._next_beat = now + self._terms.beat
        return [(name, self._message(name, now)) for name in self._sides]

    def _message(self, name: str, now: float) -> Renew:
        side = self._sides[name]
        self._number += 1
        order = (self._kept.starts, self._number)
        armed = self._to_arm(name, now)
        if armed:
            self._free_since_start = False
            if self._kept.free:
                self._keep(msgspec.structs.replace(self._kept, free=False))
            side.last_arming = order
        for old in [old for old, (sent_at, _) in side.sent.items() if sent_at < now - self._terms.lease]:
            del side.sent[old]
        side.sent[order] = now, armed
        raised = self._raise_to if name == list(self._sides)[-1] else 0
        return Renew(self._kept.epoch, self._me, order, armed, self._kept.successor, raised)

    def _to_arm(self, name: str, now: float) -> bool:
        """Arm while in sync and all answer; one by one, so that a lease is there before it is needed."""
        if not self._in_sync or self._kept.successor or len(self._sides) < 2:
            return False
        oldest = now - self._terms.silence
        if any(side.answered_at < oldest for side in self._sides.values()):
            return False
        before = list(self._sides)[: list(self._sides).index(name)]
        return all(self._sides[one].armed and self._sides[one].relied_until > now for one in before)

    def heard(self, name: str, verdict: Verdict, now: float) -> None:
        """Hear the answer of a voter."""
        side = self._sides[name]
        if verdict.epoch > self.epoch and verdict.holder != self._me and self._is_idle_grant(name, verdict):
            self._raise_to = max(self._raise_to, verdict.epoch + 1)
            self._sides[name] = _Side()
            return
        self.follow(verdict.epoch, verdict.holder)
        if self.deposed_by:
            return
        if verdict.order not in side.sent or not verdict.granted:
            return
        sent_at, armed = side.sent.pop(verdict.order)
        for order in [order for order in side.sent if order < verdict.order]:
            del side.sent[order]
        side.answered_at = now
        side.relied_until = max(side.relied_until, sent_at + self._terms.relied)
        side.confirmed, side.armed = verdict.order, armed
        if not self._kept.free and side.disarmed:
            self._keep(msgspec.structs.replace(self._kept, free=True))

    def _is_idle_grant(self, name: str, verdict: Verdict) -> bool:
        """Whether the witness granted the next epoch to a host of which it is not known that it has begun it.

        It cannot have as long as it has promised otherwise, as a voter: so its own word is what ends this
        holding, or the end of its promise.
        """
        return name != list(self._sides)[-1] and verdict.how is How.TAKEN

    def follow(self, epoch: int, holder: str) -> None:
        """Learn of an epoch: a later one than this, or this one with another holder, ends the holding."""
        if epoch > self.epoch and holder == self._me:
            self.risen_to = max(self.risen_to, epoch)
        elif epoch > self.epoch or (epoch == self.epoch and holder != self._me):
            self.deposed_by = epoch, holder

    @property
    def free(self) -> bool:
        """Whether the machine may run without a lease: at least one voter will surely grant no takeover.

        This is also when a write may be acknowledged that the standby does not have.
        """
        if self.deposed_by or self._kept.successor:
            return False
        return self._free_since_start or any(side.disarmed for side in self._sides.values())

    @property
    def armed(self) -> bool:
        """Whether the standby would take over by itself if this host were gone now."""
        return not self.free and all(side.confirmed and side.armed for side in self._sides.values())

    @property
    def deadline(self) -> float:
        """Until when the machine may run; it must stand still ``Terms.stop`` after it. Infinite when free."""
        if self.deposed_by or self._kept.successor:
            return -inf
        return inf if self.free else max(side.relied_until for side in self._sides.values())

    def answers(self, name: str, now: float) -> bool:
        """Whether a voter has answered lately."""
        return self._sides[name].answered_at >= now - self._terms.silence

    def _keep(self, holding: Holding) -> None:
        self._save(holding)
        self._kept = holding
