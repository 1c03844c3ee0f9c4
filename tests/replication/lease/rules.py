"""What holds at single instants, which histories seldom come to."""

import random

from hotspare.replication.lease.holder import Holder, Holding
from hotspare.replication.lease.terms import Record, Renew, Take, Terms, Verdict
from hotspare.replication.lease.voter import Voter

TERMS = Terms()
ARMED = Record(3, "alpha", armed=True, order=(1, 1))
TAKE = Take(3, "beta")


def _voter(record: Record = ARMED, now: float = 0.0) -> Voter:
    return Voter(record, TERMS, lambda _record: None, now)


def witness_waits_for_the_end_of_the_lease() -> None:
    witness = _voter()
    witness.renew(Renew(3, "alpha", (1, 2), armed=True), 100)
    assert not witness.take(TAKE, 100 + TERMS.lease - 0.01).granted
    assert witness.take(TAKE, 100 + TERMS.lease).granted
    assert witness.record == Record(4, "beta")


def voter_waits_for_a_lease_after_its_start() -> None:
    witness = _voter(now=50)
    assert not witness.take(TAKE, 50 + TERMS.lease - 0.01).granted
    assert witness.take(TAKE, 50 + TERMS.lease).granted


def holder_relies_from_when_it_asked() -> None:
    holder = Holder("alpha", ("witness", "beta"), Holding(3, free=False), TERMS, lambda _holding: None)
    holder.set_in_sync(in_sync=True)
    for asked, answered in ((10.0, 10.1), (11.0, 11.1), (12.0, 14.5)):
        for name, message in holder.due(asked):
            holder.heard(name, Verdict(True, 3, "alpha", message.armed, message.order), answered)
    assert holder.armed
    assert holder.deadline == 12 + TERMS.relied


def no_clocks_let_a_holder_outlive_what_was_granted() -> None:
    """Whatever the rates, and however long stopping takes within its bound."""
    source = random.Random(1)
    for _ in range(2000):
        drift, stop = source.uniform(0, 0.2), source.uniform(0.1, 2)
        terms = Terms(lease=source.uniform(8, 60), drift=drift, stop=stop, beat=0.5, silence=1)
        slowest, quickest = 1 - drift, 1 + drift
        assert terms.relied / slowest + terms.stop <= terms.lease / quickest + 1e-9


def who_takes_over_promises_nothing() -> None:
    standby = _voter()
    assert not standby.freeze(TERMS.lease - 0.01)
    assert standby.freeze(TERMS.lease)
    for armed in (True, False):
        assert not standby.renew(Renew(3, "alpha", (1, 9), armed=armed), TERMS.lease + 1).granted
    assert standby.record == ARMED
    standby.thaw()
    assert standby.renew(Renew(3, "alpha", (1, 10), armed=False), TERMS.lease + 2).granted


def what_is_late_arms_nothing() -> None:
    witness = _voter()
    assert witness.renew(Renew(3, "alpha", (2, 5), armed=False), 1).granted
    for late in ((2, 5), (2, 4), (1, 99)):
        assert not witness.renew(Renew(3, "alpha", late, armed=True), 2).granted
    assert not witness.record.armed


def who_has_sent_to_arm_is_not_free() -> None:
    holder = Holder("alpha", ("witness", "beta"), Holding(3), TERMS, lambda _holding: None)
    assert holder.free

    def beat(now: float, *deaf: str) -> None:
        for name, message in holder.due(now):
            if name not in deaf:
                holder.heard(name, Verdict(True, 3, "alpha", message.armed, message.order), now)

    beat(1)
    holder.set_in_sync(in_sync=True)
    beat(2)  # arms the witness
    assert holder.free
    beat(3, "beta")  # the message that arms the standby is under way, or was lost
    assert not holder.free
    assert holder.deadline == 3 + TERMS.relied
    holder.set_in_sync(in_sync=False)
    beat(4)
    assert holder.free


def a_grant_that_was_not_begun_ends_nothing() -> None:
    holder = Holder("alpha", ("witness", "beta"), Holding(3), TERMS, lambda _holding: None)
    standby = _voter(Record(3, "alpha"))
    for name, message in holder.due(1):
        granted = Verdict(False, 4, "beta", armed=False, order=message.order)
        holder.heard(name, granted if name == "witness" else standby.renew(message, 1), 1)
    assert holder.deposed_by is None
    assert holder.free
    for name, message in holder.due(2):
        if name == "beta":
            holder.heard(name, standby.renew(message, 2), 2)
    assert standby.record.epoch == holder.risen_to == 5
    assert standby.record.holder == "alpha"
