"""Histories of a repository under every fault of stores and hosts. See __main__.py for more."""

import os
import time

import pytest

from tests.simulation.history import run_history

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "1500"))
SECONDS = 60
BATCHES = 10


@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_history_loses_anything_or_keeps_garbage(batch: int) -> None:
    end = time.monotonic() + SECONDS / BATCHES
    begun = 0
    for seed in range(batch, SEEDS, BATCHES):
        if time.monotonic() > end and begun >= 5:
            break
        run_history(seed)
        begun += 1
    assert begun


def test_a_history_replays() -> None:
    assert run_history(11).scheduler.trace == run_history(11).scheduler.trace
