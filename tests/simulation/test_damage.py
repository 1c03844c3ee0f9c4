"""Flipped bits never give wrong bytes; what parity does not give back, the next backup does."""

import os
from unittest.mock import patch

import pytest

from hotspare.repository import repair
from tests.simulation.damage import run_damaged
from tests.simulation.world import Violation

SEEDS = int(os.environ.get("DAMAGE_SEEDS", "60"))
BATCHES = 4


@pytest.mark.parametrize("batch", range(BATCHES))
def test_flipped_bits_are_noticed_and_healed(batch: int) -> None:
    for seed in range(batch, SEEDS, BATCHES):
        run_damaged(seed)


def test_this_test_notices_when_damage_is_not_noted() -> None:
    def run_all() -> None:
        for seed in range(SEEDS):
            run_damaged(seed)

    with patch.object(repair, "store_damaged", lambda *_: None), pytest.raises(Violation):
        run_all()
