"""Movers on a real PostgreSQL, in name spaces of their own, so that nobody can look whether another lives."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hotspare.units import MIB
from tests.cli.program import Program
from tests.jobs.daemon import Site, site, wait_for
from tests.jobs.postgres import Postgres, running_postgres

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="name spaces and another user take root")
SLOW = {"HOTSPARE_UPLOAD_LIMIT": "1MiB/s"}
"""A run that nobody stops takes sixteen seconds, and one that is to stop ends with its upload."""
_TAKE_OVER = 30.0
"""What is promised, in seconds."""


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with running_postgres() as cluster:
        yield cluster


@pytest.fixture
def served(tmp_path: Path, postgres: Postgres) -> Iterator[Site]:
    (tmp_path / "images").mkdir()
    with site(Program(tmp_path), postgres.url) as served:
        for seed, name in enumerate(("web", "db")):
            served.image(name, random.Random(seed).randbytes(16 * MIB))
        served.policy("nightly", "")
        yield served


def test_one_is_killed_one_is_suspended_and_the_third_finishes(
    served: Site, record_property: Callable[[str, object], None]
) -> None:
    server = served.start("--slots", "0")
    server.wait_ready()
    movers = [served.start("mover", "--slots", "1", apart=True, **SLOW) for _ in range(2)]
    for mover in movers:
        mover.wait_ready()
    jobs = [served.ask("nightly", name) for name in ("web", "db")]
    doing = [served.job(id=job, state="running", attempt=1)["mover"] for job in jobs]
    (killed,) = [one for one in movers if one.title == doing[0]]
    (asleep,) = [one for one in movers if one.title == doing[1]]
    third = served.start("mover", "--slots", "1", apart=True)
    third.wait_ready()
    killed.signal(signal.SIGKILL)
    asleep.signal(signal.SIGSTOP)

    taken = wait_for(lambda: any(one["attempt"] == 2 for one in served.jobs()), served.describe)
    assert 2 < taken < _TAKE_OVER  # nobody could see that one was dead
    record_property("seconds until the run of a dead mover goes on", round(taken))

    done = [served.job(id=job, state="ok") for job in jobs]
    assert {one["mover"] for one in done} == {third.title}
    points = sorted(point["id"] for point in served.points())
    assert points == sorted(one["point"] for one in done)
    # Who comes back may not commit, and says so.
    asleep.signal(signal.SIGCONT)
    assert asleep.process.wait(60) == 1
    assert "took it for dead" in asleep.log.read_text()
    assert sorted(point["id"] for point in served.points()) == points
    assert [third.stop(), server.stop()] == [0, 0]
