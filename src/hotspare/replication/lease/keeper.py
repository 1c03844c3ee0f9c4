"""Keeps the lease of one machine on one of its two hosts, whichever of them is the holder.

A thread beats: as the holder it renews and tells the fence how long the machine may run, else it looks
whether to take over. Each voter is spoken to by a thread of its own, so that a silent one delays nobody.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf

import msgspec

from hotspare.errors import HotspareError, PlatformUnavailable
from hotspare.replication.lease.fence import boottime
from hotspare.replication.lease.fencing import Fencing
from hotspare.replication.lease.holder import Holder, Holding
from hotspare.replication.lease.kept_lease import Lease
from hotspare.replication.lease.post import Post
from hotspare.replication.lease.surroundings import Line, Surroundings
from hotspare.replication.lease.terms import How, Record, Renew, Take, Verdict
from hotspare.replication.lease.voter import Taker

_LOG = logging.getLogger("hotspare.replica")
_STEPS_PER_BEAT = 4
_FENCE_AGAIN_SECONDS = 5.0
"""From one attempt to fence the holder that failed to the next."""


class LeaseKeeper:
    """See the module. Fulfils ``source.keeper.Keeper``.

    Args:
        me: id of this host.
        lease: as this agent keeps it.
        lines: to the voters, by id: the witness, if there is one, then the other host.
        fencing: stops the machine; None where nobody takes over by himself.
        surroundings: of this host.
    """

    def __init__(
        self,
        me: str,
        lease: Lease,
        lines: Mapping[str, Line],
        fencing: Fencing | None,
        surroundings: Surroundings,
    ) -> None:
        self._me = me
        self._lease = lease
        self._lines = lines
        self._fencing = fencing
        self._around = surroundings
        self._terms = lease.kept.terms
        self._taker = Taker(me, lease.voter)
        self._holder: Holder | None = None
        self._in_sync = False
        self._fence_works = fencing is None
        self._allowed: tuple[float, int] | None = None
        self._deposed: list[Callable[[], None]] = []
        self._told_held = self._cared_for = -1
        self._end_again_at = self._fence_again_at = 0.0
        self._heard_other_host = False
        self._closed = threading.Event()
        self._posts = {name: Post() for name in lines}
        self._threads = [threading.Thread(target=self._beat, name="lease", daemon=True)]
        self._threads += [
            threading.Thread(target=self._speak, args=(name,), name=f"lease-{name}", daemon=True)
            for name in lines
        ]

    def start(self) -> None:
        """Begin to keep it."""
        for thread in self._threads:
            thread.start()

    @property
    def _can_stop(self) -> bool:
        """Whether the machine would be stopped here: else nobody else may start it by himself."""
        return self._fencing is not None and self._fence_works

    def close(self) -> None:
        """End. First nobody is to take over any more, so that the machine goes on without this agent.

        When that cannot be had, the fence stops the machine at the end of its lease.
        """
        self.set_in_sync(False)
        end = boottime() + self._terms.silence
        while self._holder is not None and not self.may_degrade() and boottime() < end:
            time.sleep(self._terms.beat / 10)
        self._closed.set()
        for post in self._posts.values():
            post.put(None)
        for thread in self._threads:
            thread.join(2 * self._terms.beat + 2)
        for line in self._lines.values():
            line.close()
        if self._fencing is not None:
            self._fencing.close()

    # What the protection of the machine asks, see ``source/keeper.py``

    def set_in_sync(self, in_sync: bool) -> None:
        """Say whether the replica has all that it must have for a takeover."""
        with self._lease.turn:
            self._in_sync = in_sync
            if self._holder is not None:
                self._holder.set_in_sync(in_sync and self._can_stop)
        if not in_sync:
            self._step()

    def may_degrade(self) -> bool:
        """Tell whether the guest may go on without its replica."""
        with self._lease.turn:
            if self._holder is None:
                return self.record.holder != self._me  # nothing runs here that could go on
            return self._holder.free

    def may_start(self) -> bool:
        """Tell whether the machine may be started here."""
        with self._lease.turn:
            return self._holder is not None and self._holder.deadline > boottime()

    def on_deposed(self, callback: Callable[[], None]) -> None:
        """Name what is called when another host has taken the machine over."""
        with self._lease.turn:
            self._deposed.append(callback)

    # What is shown, and what people ask

    @property
    def record(self) -> Record:
        """Who is the holder, as far as this host knows."""
        return self._lease.voter.record

    @property
    def armed(self) -> bool:
        """Whether the standby takes over by itself; known on the holder."""
        holder = self._holder
        return holder is not None and holder.armed

    def runs(self) -> bool:
        """Tell whether the machine has a process here."""
        return bool(self._around.pid())

    def answers(self) -> dict[str, bool]:
        """Tell which voters have answered lately."""
        with self._lease.turn:
            holder, now = self._holder, boottime()
            return {name: holder is not None and holder.answers(name, now) for name in self._lines}

    def silent_for(self) -> float:
        """Give for how many seconds the holder has not been heard here, at most a lease."""
        with self._lease.turn:
            return self._terms.lease - self._lease.voter.remaining(boottime())

    def hand_over(self, successor: str) -> None:
        """Give the machine, which has been shut down, to the other host for good."""
        with self._lease.turn:
            if self._holder is None:
                raise HotspareError("This host is not the holder of the machine", meaning="Nothing was done")
            self._holder.hand_over(successor)
        self._step()

    def take_by_hand(self, *, forced: bool) -> Verdict:
        """Take over because somebody said so. The witness, if it answers, is asked as ever.

        Args:
            forced: somebody has made sure that the machine does not run on the holder; then nobody's leave is
                needed.
        """
        witness = self._witness()
        if forced:
            return self._take_by_force(witness)
        with self._lease.turn:
            asked = self._taker.ask(boottime(), replica_is_whole=True)
            record, remaining = self.record, self._lease.voter.remaining(boottime())
        if asked is None or asked.look or not witness:
            left = remaining if record.armed else 0.0
            return Verdict(False, record.epoch, record.holder, record.armed, remaining=left)
        verdict = self._lines[witness].take(asked, self._terms.beat)
        with self._lease.turn:
            taken = self._taker.heard(asked, verdict)
        self._step()
        return msgspec.structs.replace(verdict, granted=taken)

    def _take_by_force(self, witness: str) -> Verdict:
        """Begin the next epoch whatever the others say; they are told, as far as they can be."""
        asked = Take(self.record.epoch, self._me, forced=True)
        verdict = Verdict(True, asked.epoch + 1, self._me, armed=False, how=How.FORCED)
        if witness:
            with suppress(HotspareError):
                answer = self._lines[witness].take(asked, self._terms.beat)
                later = max(answer.epoch + (answer.holder != self._me), verdict.epoch)
                verdict = msgspec.structs.replace(verdict, epoch=later)
        with self._lease.turn:
            self._lease.voter.follow(verdict.epoch, self._me, How.FORCED)
        self._step()
        return verdict

    def _witness(self) -> str:
        return next((name for name in self._lines if name not in self._lease.kept.parties), "")

    # The beat

    def _beat(self) -> None:
        while not self._closed.wait(self._terms.beat / _STEPS_PER_BEAT):
            try:
                self._step()
            except Exception:  # noqa: BLE001 - the agent goes on, whatever the mistake
                _LOG.exception("the lease could not be cared for; it is tried again")

    def _step(self) -> None:
        # Asked for before, as the agent's own lock is needed for it.
        whole = self._holder is None and self._around.replica_is_whole()
        with self._lease.turn:
            record, now = self.record, boottime()
            if record.holder == self._me and (self._holder is None or self._holder.epoch < record.epoch):
                self._become_holder(record.epoch)
            if self._holder is None:
                self._set_fence(-1.0)
                if self._lease.kept.running and record.holder != self._me and now >= self._end_again_at:
                    self._end_machine()
                take = self._taker.ask(now, replica_is_whole=whole)
                self._post(take)
                return
            holder = self._holder
            holder.follow(record.epoch, record.holder)
            messages = holder.due(now)
            if self._obey(holder):
                for name, message in messages:
                    if self._fence_works or not message.armed:
                        self._posts[name].put(message)
            if self._holder is None:
                return
            may_run = holder.deadline > now
            if may_run and self._cared_for == record.epoch:
                self._lease.change(running=bool(self._around.pid()))
        if may_run and self._told_held != record.epoch and self._may_be_started():
            self._told_held = record.epoch
            threading.Thread(target=self._tell_held, args=(record,), name="held", daemon=True).start()

    def _may_be_started(self) -> bool:
        """Whether what ran here when the host went down may run again.

        Where nobody takes over by himself, a human may have had it started on the other host meanwhile, which
        only that host knows.
        """
        stands_still = self._lease.kept.running and not self._around.pid()
        return self._fencing is not None or self._heard_other_host or not stands_still

    def _tell_held(self, record: Record) -> None:
        try:
            self._around.held(record, was_running=self._lease.kept.running)
        except Exception:  # noqa: BLE001 - the agent goes on, whatever the mistake
            _LOG.exception("the machine could not be cared for")
        self._cared_for = record.epoch

    def _post(self, take: Take | None) -> None:
        witness = self._witness()
        if take is not None and witness:
            self._posts[witness].put(take)

    def _become_holder(self, epoch: int) -> None:
        kept = self._lease.kept.holding
        holding = kept if kept is not None and kept.epoch == epoch else Holding(epoch)
        self._holder = Holder(self._me, tuple(self._lines), holding, self._terms, self._lease.save_holding)
        self._holder.set_in_sync(self._in_sync and self._can_stop)
        _LOG.info("this host is the holder in epoch %d", epoch)

    def _obey(self, holder: Holder) -> bool:
        """Do as the holder says; give whether it still is the holder."""
        voter = self._lease.voter
        if holder.risen_to:
            voter.follow(holder.risen_to, self._me, How.RAISED)
            return False
        if holder.deposed_by:
            _LOG.warning(
                "host %s is the holder in epoch %d: the machine ends here", *reversed(holder.deposed_by)
            )
            voter.follow(*holder.deposed_by)
            self._holder, self._in_sync = None, False
            self._end_machine()
            return False
        self._set_fence(holder.deadline)
        return True

    def _end_machine(self) -> None:
        """End what runs here though another host is the holder; again by the next beats until it is gone.

        An agent that was just started may learn of the other holder before it has kept the lease at all.
        """
        self._end_again_at = boottime() + self._terms.silence
        self._lease.change(running=bool(self._around.pid()))
        self._told_held = self._cared_for = -1
        self._allowed = None
        if self._fencing is not None:
            try:
                self._fencing.ensure(-1.0)
                self._fencing.kill()
            except PlatformUnavailable as error:
                _LOG.error("%s", error)
        for callback in (*self._deposed, self._around.lost):
            threading.Thread(target=callback, name="deposed", daemon=True).start()

    def _set_fence(self, deadline: float) -> None:
        if self._fencing is None:
            return
        holder = self._holder
        # An agent that was just started knows less than the fence that an earlier one has told.
        unknown = holder is not None and deadline == -inf and not holder.successor
        wanted = None if unknown else (deadline, self._around.pid())
        try:
            if self._allowed is None:
                self._fencing.ensure(-1.0 if unknown else deadline)
            if wanted is not None and wanted != self._allowed:
                self._fencing.allow(*wanted)
                self._allowed = wanted
            self._fence_works = True
        except PlatformUnavailable as error:
            if self._fence_works:
                _LOG.error("%s", error)
            self._fence_works, self._allowed = False, None
        if holder is not None:
            holder.set_in_sync(self._in_sync and self._can_stop)

    # The threads that speak

    def _speak(self, name: str) -> None:
        line, post = self._lines[name], self._posts[name]
        while not self._closed.is_set():
            message = post.get()
            if message is None:
                continue
            try:
                self._say(name, line, message)
            except HotspareError as error:
                post.note(str(error))
            except Exception:  # noqa: BLE001 - the agent goes on, whatever the mistake
                _LOG.exception("the lease could not be spoken of")

    def _say(self, name: str, line: Line, message: Renew | Take) -> None:
        timeout = max(self._terms.beat, 0.5)
        if name not in self._lease.kept.known_to and self._holder is not None and self._holder.epoch == 1:
            line.begin(timeout)
            with self._lease.turn:
                self._lease.change(known_to=(*self._lease.kept.known_to, name))
        if isinstance(message, Renew):
            verdict = line.renew(message, timeout)
            with self._lease.turn:
                self._heard_other_host |= name in self._lease.kept.parties
                holder = self._holder
                if holder is None or holder.epoch != message.epoch:
                    return
                holder.heard(name, verdict, boottime())
                self._obey(holder)
            return
        looked = self._look(line, message, timeout)
        if looked is None and not self._fenced():
            return
        verdict = line.take(message, timeout) if looked is None else looked
        with self._lease.turn:
            taken = self._taker.heard(message, verdict)
        if taken:
            _LOG.warning("this host takes the machine over: epoch %d", verdict.epoch)
            self._step()

    def _look(self, line: Line, message: Take, timeout: float) -> Verdict | None:
        """Ask how things are; None when the witness would grant the takeover that is wanted.

        That is known before anybody is fenced: a holder that just this host does not hear is to live on.
        """
        verdict = line.take(msgspec.structs.replace(message, look=True), timeout)
        grants = verdict.armed and not verdict.remaining and verdict.epoch == message.epoch
        return None if grants and not message.look else verdict

    def _fenced(self) -> bool:
        """Make sure that the holder is off; after a failure not again for a while."""
        if boottime() < self._fence_again_at:
            return False
        if self._around.before_take():
            return True
        self._fence_again_at = boottime() + _FENCE_AGAIN_SECONDS
        return False
