"""What a changed policy may forget that it kept before."""

import pytest

from hotspare.policy.policy import Policy
from hotspare.policy.retention import Retention
from hotspare.policy.selection import Selection
from hotspare.policy.shortening import shortens, what_shortens


@pytest.mark.parametrize(
    ("before", "after", "shorter"),
    [
        ({"daily": 7}, {"daily": 7}, False),
        ({"daily": 7}, {"daily": 8, "weekly": 1}, False),
        ({"daily": 7}, {"daily": 6, "weekly": 9}, True),
        ({"daily": 7}, {}, False),
        ({}, {"daily": 7}, True),
    ],
)
def test_shorter_retention_is_noticed(before: dict[str, int], after: dict[str, int], shorter: bool) -> None:
    policies = [Policy(name="p", retention=Retention(**kept)) for kept in (before, after)]
    assert shortens(*policies) == shorter


def test_other_machines_or_a_new_policy_may_be_forgotten_too() -> None:
    kept = Retention(daily=7)
    assert shortens(None, Policy(name="p", retention=kept))
    chosen = Policy(name="p", retention=kept, select=Selection(names=("db",)))
    assert shortens(Policy(name="p", retention=kept), chosen)


def test_it_is_said_by_what() -> None:
    before = Policy(name="p", retention=Retention(daily=7, weekly=4))
    after = Policy(name="p", retention=Retention(daily=9, weekly=3))
    assert what_shortens(before, after) == ["the policy p would keep 3 weekly in place of 4"]
