"""The simulator is itself tested: with a safety step taken out, it must find the loss."""

import pytest

from hotspare.errors import HotspareError
from tests.simulation.history import run_history
from tests.simulation.mutations import FOUND_BY_HISTORIES, FOUND_BY_RACES, Mutation, all_mutations
from tests.simulation.stage import staged
from tests.simulation.world import Violation

_SEEDS = 200
"""Ten times as many as the worst of them takes."""


def test_something_is_to_notice_each_missing_step() -> None:
    assert all_mutations() == {*FOUND_BY_HISTORIES, *FOUND_BY_RACES}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", FOUND_BY_HISTORIES, ids=lambda mutation: mutation.__name__)
def test_a_missing_step_is_found(mutation: Mutation) -> None:
    with mutation():
        for seed in range(_SEEDS):
            try:
                run_history(seed)
            except (Violation, HotspareError):
                return  # any other error is one of the mutation itself, which noticed nothing
    pytest.fail("no history has shown that this step is needed")


@pytest.mark.parametrize("mutation", FOUND_BY_RACES, ids=lambda mutation: mutation.__name__)
def test_a_race_shows_what_a_step_is_for(mutation: Mutation) -> None:
    with mutation(), pytest.raises(Violation), staged() as stage:
        FOUND_BY_RACES[mutation](stage)
