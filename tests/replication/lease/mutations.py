"""The rules of a lease, each with a way to leave it out, for the test that the simulation notices.

A mutation is a patch of the program; the program itself has no such switch.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from math import inf
from typing import Any
from unittest.mock import PropertyMock, patch

import msgspec

from hotspare.replication.lease import holder, terms
from hotspare.replication.lease.holder import Holder
from hotspare.replication.lease.terms import Record, Renew, Take, Verdict
from hotspare.replication.lease.voter import Taker, Voter
from tests.replication.lease import rules
from tests.replication.lease.parties import Host

Mutation = Callable[[], AbstractContextManager[None]]
_replace = msgspec.structs.replace


@contextmanager
def witness_does_not_wait_for_the_end_of_the_lease() -> Iterator[None]:
    take = Voter.take

    def hasty(self: Any, message: Take, now: float) -> Verdict:
        return take(self, message, inf)

    with patch.object(Voter, "take", hasty):
        yield


@contextmanager
def standby_does_not_wait_for_its_own_promise() -> Iterator[None]:
    freeze = Voter.freeze
    with patch.object(Voter, "freeze", lambda self, now: freeze(self, inf)):
        yield


@contextmanager
def standby_promises_while_it_takes_over() -> Iterator[None]:
    renew = Voter.renew

    def generous(self: Any, message: Renew, now: float) -> Verdict:
        frozen, self._frozen = self._frozen, False
        verdict = renew(self, message, now)
        self._frozen = self._frozen or frozen
        return verdict

    with patch.object(Voter, "renew", generous):
        yield


@contextmanager
def what_was_granted_long_ago_counts() -> Iterator[None]:
    heard = Taker.heard

    def trusting(self: Any, asked: Take, verdict: Verdict) -> bool:
        self._own._frozen = True
        return heard(self, asked, verdict)

    with patch.object(Taker, "heard", trusting):
        yield


@contextmanager
def disarmed_leases_are_taken() -> Iterator[None]:
    take, freeze = Voter.take, Voter.freeze

    def armed(self: Any) -> None:
        self.record = _replace(self.record, armed=True)

    def take_any(self: Any, message: Take, now: float) -> Verdict:
        armed(self)
        return take(self, message, now)

    def freeze_any(self: Any, now: float) -> bool:
        armed(self)
        return freeze(self, now)

    with patch.object(Voter, "take", take_any), patch.object(Voter, "freeze", freeze_any):
        yield


@contextmanager
def late_messages_are_heeded() -> Iterator[None]:
    renew = Voter.renew

    def forgetful(self: Any, message: Renew, now: float) -> Verdict:
        self._order = (0, 0)
        return renew(self, message, now)

    with patch.object(Voter, "renew", forgetful):
        yield


@contextmanager
def voter_does_not_wait_after_a_start() -> Iterator[None]:
    begin = Voter.__init__

    def hasty(self: Any, record: Record, terms: Any, save: Any, now: float) -> None:
        begin(self, record, terms, save, now - terms.lease)

    with patch.object(Voter, "__init__", hasty):
        yield


@contextmanager
def earlier_epochs_are_granted() -> Iterator[None]:
    renew = Voter.renew

    def lax(self: Any, message: Renew, now: float) -> Verdict:
        if message.epoch < self.record.epoch:
            return Verdict(True, message.epoch, message.holder, message.armed, message.order)
        return renew(self, message, now)

    with patch.object(Voter, "renew", lax):
        yield


@contextmanager
def voter_forgets_what_it_answered() -> Iterator[None]:
    """It answers before its record is durable, and then loses power."""
    with patch.object(Host, "_save", lambda _self, _record: None):
        yield


@contextmanager
def holder_counts_from_the_answer() -> Iterator[None]:
    heard = Holder.heard

    def late(self: Any, name: str, verdict: Verdict, now: float) -> None:
        sent = self._sides[name].sent
        if verdict.order in sent:
            sent[verdict.order] = now, sent[verdict.order][1]
        heard(self, name, verdict, now)

    with patch.object(Holder, "heard", late):
        yield


@contextmanager
def clocks_are_taken_to_be_alike() -> Iterator[None]:
    with patch.object(terms.Terms, "relied", property(lambda self: self.lease - self.stop)):
        yield


@contextmanager
def stopping_is_taken_to_need_no_time() -> Iterator[None]:
    def relied(self: Any) -> float:
        part: float = self.lease * (1 - self.drift) / (1 + self.drift)
        return part

    with patch.object(terms.Terms, "relied", property(relied)):
        yield


@contextmanager
def disarmed_whatever_was_sent_since() -> Iterator[None]:
    def disarmed(self: Any) -> bool:
        return self.confirmed is not None and not self.armed

    with patch.object(holder._Side, "disarmed", property(disarmed)):
        yield


@contextmanager
def messages_of_an_earlier_start_look_newer() -> Iterator[None]:
    """The agent does not count its starts."""
    message = Holder._message

    def uncounted(self: Any, name: str, now: float) -> Renew:
        if self._number == 0:
            self._number = 1000 * (5 - self._kept.starts % 5)
        self._kept = _replace(self._kept, starts=1)
        return message(self, name, now)

    with patch.object(Holder, "_message", uncounted):
        yield


@contextmanager
def holder_forgets_that_it_has_armed() -> Iterator[None]:
    keep = Holder._keep

    def forget(self: Any, holding: Any) -> None:
        keep(self, _replace(holding, free=True))
        self._kept = holding

    with patch.object(Holder, "_keep", forget):
        yield


@contextmanager
def source_goes_on_alone_unasked() -> Iterator[None]:
    with patch.object(Host, "may_degrade", lambda _self, _holder: True):
        yield


@contextmanager
def there_is_no_fence() -> Iterator[None]:
    with patch.object(Host, "_fence", lambda _self: None):
        yield


@contextmanager
def grants_that_were_not_begun_depose() -> Iterator[None]:
    """Not unsafe, but then nobody runs the guest any more."""
    with patch.object(Holder, "_is_idle_grant", lambda *_: False):
        yield


@contextmanager
def standby_does_not_look_for_later_epochs() -> Iterator[None]:
    """Not unsafe, but what was handed over is never begun."""
    with patch.object(Voter, "is_silent", lambda *_: False):
        yield


@contextmanager
def what_was_handed_over_is_taken_back() -> Iterator[None]:
    with patch.object(Holder, "deadline", PropertyMock(return_value=inf)):
        yield


FOUND_BY_HISTORIES: tuple[Mutation, ...] = (
    standby_does_not_wait_for_its_own_promise,
    what_was_granted_long_ago_counts,
    disarmed_leases_are_taken,
    earlier_epochs_are_granted,
    voter_forgets_what_it_answered,
    messages_of_an_earlier_start_look_newer,
    holder_forgets_that_it_has_armed,
    source_goes_on_alone_unasked,
    there_is_no_fence,
    standby_does_not_look_for_later_epochs,
    what_was_handed_over_is_taken_back,
)


FOUND_BY_RULES: dict[Mutation, Callable[[], None]] = {
    witness_does_not_wait_for_the_end_of_the_lease: rules.witness_waits_for_the_end_of_the_lease,
    voter_does_not_wait_after_a_start: rules.voter_waits_for_a_lease_after_its_start,
    holder_counts_from_the_answer: rules.holder_relies_from_when_it_asked,
    clocks_are_taken_to_be_alike: rules.no_clocks_let_a_holder_outlive_what_was_granted,
    stopping_is_taken_to_need_no_time: rules.no_clocks_let_a_holder_outlive_what_was_granted,
    standby_promises_while_it_takes_over: rules.who_takes_over_promises_nothing,
    late_messages_are_heeded: rules.what_is_late_arms_nothing,
    disarmed_whatever_was_sent_since: rules.who_has_sent_to_arm_is_not_free,
    grants_that_were_not_begun_depose: rules.a_grant_that_was_not_begun_ends_nothing,
}
