"""Whether the RPO is kept, and whether restore points were tried as often as wanted."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.policy.policy import Misfit, Policy, Schedule, checked
from hotspare.policy.promise import RpoState, TrialState, rpo_promise, share_kept, trial_state

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
POLICY = Policy(name="nightly", schedule=Schedule(rpo="26h", tested_within="30d"))


def ago(hours: float | None) -> datetime | None:
    return None if hours is None else NOW - timedelta(hours=hours)


@pytest.mark.parametrize(
    ("newest", "known", "state", "until"),
    [
        (25.9, 1000, "met", 0.1),
        (26, 1000, "broken", 0),
        (26.1, 1, "broken", -0.1),
        (-5, 1000, "met", 26),  # of a clock that was wrong: as if it were new
        (None, 25, "pending", 1),
        (None, 26, "broken", 0),
        (None, -5, "pending", 26),
    ],
)
def test_the_rpo(newest: float | None, known: float, state: RpoState, until: float) -> None:
    known_since = ago(known)
    assert known_since
    promise = rpo_promise(POLICY, ago(newest), known_since, NOW)
    assert (promise.state, promise.until) == (state, NOW + timedelta(hours=until))


@pytest.mark.parametrize(
    ("tried", "passed", "known", "state"),
    [
        (24 * 29, True, 9999, "fresh"),
        (24 * 31, True, 9999, "old"),
        (1, False, 9999, "failed"),
        (24 * 31, False, 9999, "failed"),
        (None, False, 24 * 31, "never"),
        (None, False, 24 * 29, "fresh"),
    ],
)
def test_trials(tried: float | None, *, passed: bool, known: float, state: TrialState) -> None:
    known_since = ago(known)
    assert known_since
    assert trial_state(POLICY, ago(tried), known_since, NOW, passed=passed) == state


def test_nobody_wants_trials_who_does_not_say_so() -> None:
    assert trial_state(Policy(name="nightly"), None, NOW, NOW, passed=False) is None


def test_a_span_that_is_none_is_refused() -> None:
    with pytest.raises(Misfit) as refused:
        checked(Policy(name="nightly", schedule=Schedule(tested_within="soon")))
    assert refused.value.path == ("schedule", "tested_within")


@pytest.mark.parametrize(
    ("points", "known", "share"),
    [
        ([], 200, None),  # not promised yet
        ([], -100, 0.0),
        ([], 40, 1 / 6),  # for so long it may have none
        ([-5], -100, 0.05),
        ([-50, 20, 25, 60], -100, 0.25),
        (list(range(0, 100, 10)), -100, 1.0),
        ([0], 50, 0.0),
    ],
)
def test_the_share_of_time_in_which_the_rpo_was_kept(
    points: list[float], known: float, share: float | None
) -> None:
    assert share_kept(points, 10, known, 0, 100) == (share if share is None else pytest.approx(share))


@given(
    points=st.lists(st.integers(-40, 60), max_size=8).map(sorted),
    rpo=st.integers(1, 30),
    known=st.integers(-50, 40),
)
def test_the_share_is_what_looking_all_the_time_would_find(points: list[int], rpo: int, known: int) -> None:
    def kept(at: float) -> bool:
        # A point counts from its end on; before the first, the promise is as old as it is known.
        newest = max((point for point in points if point <= at), default=known)
        return at < newest + rpo

    # Whole numbers change at whole numbers only: the middle between them stands for all of it.
    seen = [kept(at + 0.5) for at in range(max(0, known), 50)]
    assert share_kept(points, rpo, known, 0, 50) == pytest.approx(sum(seen) / len(seen))
