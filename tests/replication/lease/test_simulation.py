"""Histories of a lease under every fault of lines, hosts and agents: never two guests, and nothing lost."""

import ast
import inspect
import os
import time
from collections import Counter
from collections.abc import Callable
from types import ModuleType

import pytest

from hotspare.replication.lease import holder, terms, voter
from tests.replication.lease.world import run_history

SECONDS = float(os.environ.get("LEASE_SECONDS", "3"))
"""Of one processor: so a busy machine runs as many histories as an idle one."""
_LEAST = 300


def test_never_do_two_guests_run_and_nothing_that_was_acknowledged_is_lost(
    record_property: Callable[[str, object], None],
) -> None:
    end = time.process_time() + SECONDS
    counts = Counter[str]()
    seed = 0
    while time.process_time() < end or seed < _LEAST:
        counts.update(run_history(seed).counts)
        seed += 1
    record_property("simulated leases", seed)
    # It is no use if nothing happens in them.
    assert (
        min(counts[what] for what in ("takeovers", "handovers", "stops", "degraded", "resyncs")) > seed / 25
    )


def test_a_history_replays() -> None:
    assert run_history(11).trace == run_history(11).trace


@pytest.mark.parametrize("module", [holder, terms, voter])
def test_no_clock_of_the_wall_can_matter(module: ModuleType) -> None:
    """The rules are given the time; they cannot ask for any."""
    names = {name for node in ast.walk(ast.parse(inspect.getsource(module))) for name in _imported(node)}
    assert names
    assert not names & {"time", "datetime", "os", "select", "threading"}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [str(node.module)]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
