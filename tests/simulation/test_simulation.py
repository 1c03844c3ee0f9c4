"""Histories of a repository under every fault of stores and hosts. See __main__.py for more.

How many of them one run of the tests has time for, it tells at its end; ``make soak`` runs 50000.
"""

import os
import time
from collections.abc import Callable

import pytest

from tests.simulation.history import run_history

SECONDS = int(os.environ.get("SIMULATION_SECONDS", "20"))
"""Of one processor: so a busy machine runs as many histories as an idle one."""
BATCHES = 10
_LEAST = 20
"""Histories of each batch, however slow the processor is."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_history_loses_anything_or_keeps_garbage(
    batch: int, record_property: Callable[[str, object], None]
) -> None:
    end = time.process_time() + SECONDS / BATCHES
    seed = batch
    while time.process_time() < end or seed < _LEAST * BATCHES:
        run_history(seed)
        seed += BATCHES
    record_property("simulated histories", seed // BATCHES)


def test_a_history_replays() -> None:
    assert run_history(11).scheduler.trace == run_history(11).scheduler.trace
