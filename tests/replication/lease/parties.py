"""The parties of a simulated lease: what each keeps, loses when it is killed, and does."""

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from hotspare.replication.lease.holder import Holder, Holding
from hotspare.replication.lease.terms import How, Record, Renew, Take, Terms, Verdict
from hotspare.replication.lease.voter import Taker, Voter

if TYPE_CHECKING:
    from tests.replication.lease.world import World

TERMS = Terms(lease=4, beat=1, silence=2, drift=0.04, stop=0.3)
HOSTS = ("alpha", "beta")
WITNESS = "witness"
_GUEST_SECONDS = 0.3
_RESYNC_SECONDS = 1.5


class Violation(AssertionError):
    """Something that must never happen has."""


class _Killed(Exception):
    """The party was killed in the midst of saving."""


class Party:
    """What the witness does; a host does more."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.kept_record = Record(1, HOSTS[0])
        self.voter: Voter | None = None
        self._rate = 1 + TERMS.drift * world.random.choice([-1, 1, world.random.uniform(-1, 1)])
        self._begin = world.random.uniform(0, 1e6)
        self._paused_until = 0.0
        self.life = 0
        """Counts its deaths: what was to be done by one that died is not done by the next."""

    def clock(self) -> float:
        return self._begin + self._rate * self.world.now

    def real_seconds(self, seconds: float) -> float:
        return seconds / self._rate

    def start(self) -> None:
        if self.voter is None:
            self.voter = Voter(self.kept_record, TERMS, self._save, self.clock())
            self.world.tell(f"{self.name} starts: {self.kept_record}")

    def kill(self) -> None:
        if self.voter is not None:
            self.world.tell(f"{self.name} is killed")
        self.voter = None
        self.life += 1

    def crash(self) -> None:
        self.kill()

    def pause(self, seconds: float) -> None:
        self.world.tell(f"{self.name} stands still for {seconds:.1f}")
        self._paused_until = self.world.now + seconds

    def wake(self) -> None:
        self._paused_until = 0.0

    def receive(self, work: Callable[[], None]) -> None:
        """Do something as soon as it does not stand still, unless it dies before."""
        life = self.life

        def do() -> None:
            if self.life == life and self.voter is not None:
                try:
                    work()
                except _Killed:
                    self.kill()
                    self.world.after(self.world.random.uniform(0.5, 8), self.start)

        if self.world.now < self._paused_until:
            self.world.after(self._paused_until - self.world.now, do)
        else:
            do()

    def _save(self, record: Record) -> None:
        self._may_be_killed()
        self.kept_record = record
        self.world.tell(f"{self.name} keeps {record}")
        self._may_be_killed()

    def _may_be_killed(self) -> None:
        if self.world.random.random() < self.world.killed_saving:
            raise _Killed

    def answer(self, message: Renew | Take, reply: Callable[[Verdict], None], sender: str) -> None:
        assert self.voter is not None
        if isinstance(message, Renew):
            verdict = self.voter.renew(message, self.clock())
        else:
            verdict = self.voter.take(message, self.clock())
        self.world.send(self.name, sender, lambda: reply(verdict))


class Host(Party):
    """One of the two: its agent, its fence, its copy of the disk, and the guest when it runs here."""

    def __init__(self, world: "World", name: str, peer: str) -> None:
        super().__init__(world, name)
        self.peer_name = peer
        self.kept_holding: Holding | None = None
        self.written = 0
        """The last write that this host's disk has."""
        self.guest = "off"
        self.mirrored = False
        self.taken = False
        self._deadline = -inf
        self._holder: Holder | None = None
        self._taker: Taker | None = None
        self._resync_since: float | None = None
        self._guest_ticks = False

    @property
    def peer(self) -> "Host":
        return self.world.hosts[self.peer_name]

    @property
    def armed(self) -> bool:
        return self._holder is not None and self._holder.armed

    def start(self) -> None:
        if self.voter is not None:
            return
        super().start()
        assert self.voter is not None
        self._taker = Taker(self.name, self.voter)
        self._holder = None
        self._resync_since = None
        life = self.life

        def tick() -> None:
            if self.life == life:
                self.receive(self._step)
                self.world.after(TERMS.beat / 2 * self.world.random.uniform(0.8, 1.2), tick)

        tick()

    def kill(self) -> None:
        super().kill()
        self._holder = None

    def crash(self) -> None:
        super().crash()
        self.guest = "off"
        self._deadline = -inf

    # The agent.

    def _step(self) -> None:
        own, now = self.voter, self.clock()
        assert own is not None
        assert self._taker is not None
        if own.record.holder == self.name and (self._holder is None or self._holder.epoch < own.record.epoch):
            self._become_holder(own.record.epoch)
        holder = self._holder
        if holder is None:
            take = self._taker.ask(now, replica_is_whole=True)
            if take is not None:
                self._ask_witness(take)
            return
        if holder.risen_to:
            own.follow(holder.risen_to, self.name, How.RAISED)
            return
        holder.follow(own.record.epoch, own.record.holder)
        messages = holder.due(now)
        self._set_fence()
        for name, message in messages:
            self._renew(name, message)
        self._care_for_guest(holder)

    def _become_holder(self, epoch: int) -> None:
        if self.kept_holding is None or self.kept_holding.epoch < epoch:
            self.kept_holding = Holding(epoch)
        self._holder = Holder(
            self.name, (WITNESS, self.peer_name), self.kept_holding, TERMS, self._save_holding
        )
        self._holder.set_in_sync(self.mirrored and self.guest != "off")

    def _save_holding(self, holding: Holding) -> None:
        self._may_be_killed()
        self.kept_holding = holding
        self._may_be_killed()

    def _renew(self, name: str, message: Renew) -> None:
        other, life = self.world.parties[name], self.life

        def heard(verdict: Verdict) -> None:
            def hear() -> None:
                if self.life == life and self._holder is not None and self._holder.epoch == message.epoch:
                    self._holder.heard(name, verdict, self.clock())
                    if self._holder.deposed_by and self.voter is not None:
                        self.voter.follow(*self._holder.deposed_by)
                    self._set_fence()

            self.receive(hear)

        self.world.send(
            self.name, name, lambda: other.receive(lambda: other.answer(message, heard, self.name))
        )

    def _ask_witness(self, take: Take) -> None:
        witness, life = self.world.witness, self.life

        def heard(verdict: Verdict) -> None:
            def hear() -> None:
                if self.life == life and self._taker is not None and self._taker.heard(take, verdict):
                    self.world.counts["takeovers"] += 1
                    self.taken = True

            self.receive(hear)

        self.world.send(
            self.name, WITNESS, lambda: witness.receive(lambda: witness.answer(take, heard, self.name))
        )

    def hand_over(self) -> bool:
        """Stop the guest in good order and give the machine to the other host, if all of it is there."""
        holder = self._holder
        if holder is None or self.guest != "running" or not self.mirrored or holder.deadline < self.clock():
            return False
        self.world.tell(f"{self.name} hands over")
        self.guest = "off"
        try:
            holder.hand_over(self.peer_name)
        except _Killed:
            self.kill()
            self.world.after(1, self.start)
        self.world.counts["handovers"] += 1
        return True

    def _care_for_guest(self, holder: Holder) -> None:
        if holder.deposed_by:
            if self.guest != "off":
                self.world.tell(f"{self.name} ends its guest: {holder.deposed_by} goes on")
            self.guest = "off"
            self.mirrored = False
            self._holder = None
            return
        if holder.deadline <= self.clock():
            return
        if self.guest == "off":
            if self.taken and self.written < self.world.acknowledged:
                raise Violation(
                    f"{self.name} took over with {self.written} of {self.world.acknowledged} writes"
                )
            self.start_guest()

    def start_guest(self) -> None:
        self.taken = False
        self.guest = "running"
        self.mirrored = False
        self.world.tell(f"the guest starts on {self.name} with {self.written}")
        self.world.check_only_one_runs()
        if not self._guest_ticks:
            self._guest_ticks = True
            self._guest_tick()

    # The fence: a process of its own.

    def _set_fence(self) -> None:
        if self._holder is None:
            return
        before, self._deadline = self._deadline, self._holder.deadline
        if self._holder.deposed_by is None and self._deadline == -inf:
            self._deadline = before  # an agent that was just started knows less than its fence
        if self._deadline > self.clock() and self.guest == "stopped":
            self.guest = "running"
            self.world.tell(f"{self.name} lets its guest go on")
            self.world.check_only_one_runs()
        if self._deadline != before and self._deadline < inf:
            wait = max(0.0, self.real_seconds(self._deadline - self.clock()))
            late = self.world.random.choice([0, self.world.random.uniform(0, 1), 0.95]) * TERMS.stop
            self.world.after(wait + self.real_seconds(late), self._fence)

    def _fence(self) -> None:
        if self.guest == "running" and self.clock() >= self._deadline:
            self.guest = "stopped"
            self.world.counts["stops"] += 1
            self.world.tell(f"the fence of {self.name} stops its guest")

    # The guest, which writes, and the mirror of its disk.

    def _guest_tick(self) -> None:
        if self.guest == "off":
            self._guest_ticks = False
            return
        self.world.after(_GUEST_SECONDS * self.world.random.uniform(0.5, 1.5), self._guest_tick)
        self._mirror()
        if self.guest != "running":
            return
        self.world.check_only_one_runs()
        if self.mirrored:
            if not self._replica_takes_writes():
                return  # the write is under way, and not acknowledged
            self.peer.written = self.written + 1
        self.written += 1
        self.world.acknowledged = self.written

    def _replica_takes_writes(self) -> bool:
        there = self.world.reaches(self.name, self.peer_name) and self.world.reaches(
            self.peer_name, self.name
        )
        # It takes them from the holder of its own epoch only.
        record, epoch = self.peer.kept_record, self.kept_holding.epoch if self.kept_holding else 1
        return there and self.peer.voter is not None and (record.epoch, record.holder) == (epoch, self.name)

    def _mirror(self) -> None:
        holder = self._holder
        if holder is None:
            return
        if self.mirrored and not self._replica_takes_writes():
            holder.set_in_sync(False)
            if self.may_degrade(holder):
                self.mirrored = False
                self.world.counts["degraded"] += 1
                self.world.tell(f"{self.name} goes on alone")
        elif not self.mirrored and self._replica_takes_writes() and not holder.deposed_by:
            self._resync_since = self._resync_since or self.world.now
            if self.world.now - self._resync_since > _RESYNC_SECONDS:
                self.peer.written = self.written
                self.mirrored = True
                holder.set_in_sync(True)
                self.world.counts["resyncs"] += 1
                self.world.tell(f"{self.name} is mirrored")
        else:
            self._resync_since = None
        if self.mirrored and self._replica_takes_writes():
            holder.set_in_sync(True)

    def may_degrade(self, holder: Holder) -> bool:
        return holder.free
