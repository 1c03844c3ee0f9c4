"""The two that are asked: the witness, and the standby itself. Both keep the same rules.

Nothing here reads a clock: ``now`` is given, in seconds of a clock that never jumps.
"""

from collections.abc import Callable

from hotspare.replication.lease.terms import How, Order, Record, Renew, Take, Terms, Verdict


class Voter:
    """Grants renewals and, when none is good any more, a takeover.

    A takeover needs both voters, and the holder relies on either: so one of them may be missing without
    harm, and whoever can rely on one is in nobody's way.

    Args:
        record: what was kept last.
        terms: of this lease.
        save: makes a record durable before it returns; nothing is answered before.
        now: of the start. What was granted before that is not known, so a whole lease is waited for.
    """

    def __init__(self, record: Record, terms: Terms, save: Callable[[Record], None], now: float) -> None:
        self.record = record
        self._terms = terms
        self._save = save
        self._order: Order = record.order
        self._until = now + terms.lease
        self._frozen = False

    def renew(self, message: Renew, now: float) -> Verdict:
        """Answer the holder."""
        record = self.record
        newer = message.epoch > record.epoch
        same = message.epoch == record.epoch and message.holder == record.holder
        if not newer and (not same or self._frozen or message.order <= self._order):
            return self._verdict(granted=False, order=message.order)
        if message.successor:
            self._change(Record(message.epoch + 1, message.successor, how=How.HANDED))
            return self._verdict(granted=True, order=message.order)
        if message.raised > record.epoch and same:
            self._change(Record(message.raised, message.holder, how=How.RAISED))
            return self._verdict(granted=True, order=message.order)
        self._frozen = False
        self._until = now + self._terms.lease
        self._order = message.order
        if newer or message.armed != record.armed:
            self._change(Record(message.epoch, message.holder, message.armed, message.order))
        return self._verdict(granted=True, order=message.order)

    def take(self, message: Take, now: float) -> Verdict:
        """Answer the standby, as the witness does. An answer that was lost is given again."""
        record = self.record
        if message.look:
            return self._verdict(granted=False, remaining=self.remaining(now))
        if (record.epoch, record.holder) == (message.epoch + 1, message.taker):
            return self._verdict(granted=True)
        if record.epoch != message.epoch and not (message.forced and record.epoch < message.epoch):
            return self._verdict(granted=False)
        if not message.forced:
            if not record.armed:
                return self._verdict(granted=False)
            if now < self._until:
                return self._verdict(granted=False, remaining=self.remaining(now))
        how = How.FORCED if message.forced else How.TAKEN
        self._change(Record(message.epoch + 1, message.taker, how=how))
        return self._verdict(granted=True)

    def remaining(self, now: float) -> float:
        """Give the seconds that the last renewal is still good for."""
        return max(0.0, self._until - now)

    @property
    def frozen(self) -> bool:
        """Whether the holder is answered no more, because this voter is about to take over itself."""
        return self._frozen

    def freeze(self, now: float) -> bool:
        """Promise nothing any more, as far as nothing is promised now; give whether that is so."""
        self._frozen = self._frozen or (self.record.armed and now >= self._until)
        return self._frozen

    def is_silent(self, now: float) -> bool:
        """Whether the holder has not been heard for so long that it counts as gone."""
        return self.remaining(now) < self._terms.lease - self._terms.silence

    def thaw(self) -> None:
        """Answer the holder again."""
        self._frozen = False

    def follow(self, epoch: int, holder: str, how: How = How.TAKEN) -> None:
        """Learn of a later epoch."""
        if epoch > self.record.epoch:
            self._change(Record(epoch, holder, how=how))

    def _change(self, record: Record) -> None:
        self._save(record)
        self.record = record
        self._order = record.order
        self._frozen = False

    def _verdict(self, *, granted: bool, order: Order = (0, 0), remaining: float = 0.0) -> Verdict:
        record = self.record
        return Verdict(granted, record.epoch, record.holder, record.armed, order, record.how, remaining)


class Taker:
    """Takes over, by itself, what its own voter and the witness no longer grant to the holder.

    Args:
        me: name of this host.
        own: this host's voter.
    """

    def __init__(self, me: str, own: Voter) -> None:
        self._me = me
        self._own = own

    def ask(self, now: float, *, replica_is_whole: bool) -> Take | None:
        """Give what to ask the witness now, if anything.

        Args:
            now: see the module.
            replica_is_whole: the disks here can be started from. (Whether they are up to date, is ``armed``.)
        """
        record = self._own.record
        if record.holder == self._me:
            return None
        if replica_is_whole and self._own.freeze(now):
            return Take(record.epoch, self._me)
        # Perhaps there is a later epoch already, and its holder cannot be heard.
        return Take(record.epoch, self._me, look=True) if self._own.is_silent(now) else None

    def heard(self, asked: Take, verdict: Verdict) -> bool:
        """Hear the witness; give whether this host is the holder from now on.

        What was granted while the holder was promised something again does not count: it is asked for anew
        when that has run out.
        """
        record = self._own.record
        if asked.epoch != record.epoch:
            return False
        later = verdict.epoch > record.epoch
        if later and verdict.holder == self._me and (verdict.how is How.HANDED or self._own.frozen):
            self._own.follow(verdict.epoch, self._me, verdict.how)
            return True
        if later and verdict.holder != self._me:
            self._own.follow(verdict.epoch, verdict.holder, verdict.how)
        if not asked.look:
            self._own.thaw()
        return False
