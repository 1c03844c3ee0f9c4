"""The rules are themselves tested: with one left out, a history or a rule must fail."""

from collections.abc import Callable

import pytest

from tests.replication.lease import rules
from tests.replication.lease.mutations import FOUND_BY_HISTORIES, FOUND_BY_RULES, Mutation
from tests.replication.lease.parties import Violation
from tests.replication.lease.world import run_history

_SEEDS = 700
RULES = [
    rules.witness_waits_for_the_end_of_the_lease,
    rules.voter_waits_for_a_lease_after_its_start,
    rules.holder_relies_from_when_it_asked,
    rules.no_clocks_let_a_holder_outlive_what_was_granted,
    rules.who_takes_over_promises_nothing,
    rules.what_is_late_arms_nothing,
    rules.who_has_sent_to_arm_is_not_free,
    rules.a_grant_that_was_not_begun_ends_nothing,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_holds(rule: Callable[[], None]) -> None:
    rule()


@pytest.mark.parametrize("mutation", FOUND_BY_HISTORIES, ids=lambda mutation: mutation.__name__)
def test_a_missing_rule_is_found_by_a_history(mutation: Mutation) -> None:
    with mutation():
        for seed in range(_SEEDS):
            try:
                run_history(seed)
            except Violation:
                return
    pytest.fail("no history has shown that this rule is needed")


@pytest.mark.parametrize("mutation", FOUND_BY_RULES, ids=lambda mutation: mutation.__name__)
def test_a_missing_rule_is_found_at_an_instant(mutation: Mutation) -> None:
    with mutation(), pytest.raises(AssertionError):
        FOUND_BY_RULES[mutation]()
