"""Each race of races.py ends well."""

import pytest

from tests.simulation.races import RACES, Race
from tests.simulation.stage import staged


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__)
def test_a_race_ends_well(race: Race) -> None:
    with staged() as stage:
        race(stage)
