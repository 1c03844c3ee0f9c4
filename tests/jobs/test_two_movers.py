"""Movers on a real PostgreSQL, in name spaces of their own, so that nobody can look whether another lives."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hotspare.jobs.movers import SILENT_SECONDS
from hotspare.units import MIB
from tests.cli.program import Program
from tests.jobs.daemon import Site, site, wait_for
from tests.jobs.postgres import Postgres, running_postgres

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="name spaces and another user take root")
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
        served.image("web", random.Random(1).randbytes(24 * MIB))
        served.policy("nightly", "backup:\n  read_limit: 4MiB/s\n")
        yield served


def test_one_is_killed_and_one_is_suspended_and_the_others_finish(
    served: Site, record_property: Callable[[str, object], None]
) -> None:
    server = served.start("--slots", "0")
    server.wait_ready()
    movers = [served.start("mover", "--slots", "1", apart=True) for _ in range(3)]
    for mover in movers:
        mover.wait_ready()
    killed_job = served.ask("nightly", "web")
    served.job(id=killed_job, state="running", phase="transfer")
    (victim,) = [one for one in movers if one.title == served.job(id=killed_job)["mover"]]
    victim.signal(signal.SIGKILL)
    taken = wait_for(lambda: served.job(id=killed_job)["attempt"] == 2, served.describe)
    assert taken < _TAKE_OVER
    done = served.job(id=killed_job, state="ok")
    assert [point["id"] for point in served.points()] == [done["point"]]
    record_property("seconds until the run of a killed mover goes on", round(taken))

    suspended_job = served.ask("nightly", "web")
    served.job(id=suspended_job, state="running", phase="transfer")
    (sleeper,) = [one for one in movers if one.title == served.job(id=suspended_job)["mover"]]
    sleeper.signal(signal.SIGSTOP)
    taken = wait_for(lambda: served.job(id=suspended_job)["attempt"] == 2, served.describe)
    assert SILENT_SECONDS / 2 < taken < _TAKE_OVER
    done = served.job(id=suspended_job, state="ok")
    points = [point["id"] for point in served.points()]
    assert points[1:] == [done["point"]]
    # It comes back, may not commit, and says so.
    sleeper.signal(signal.SIGCONT)
    assert sleeper.process.wait(30) != 0
    assert "took it for dead" in sleeper.log.read_text()
    assert [point["id"] for point in served.points()] == points


def test_a_database_that_goes_away_and_comes_back_fails_no_run(served: Site, postgres: Postgres) -> None:
    server = served.start()
    server.wait_ready()
    job = served.ask("nightly", "web")
    served.job(id=job, state="running", phase="transfer")
    postgres.stop()
    time.sleep(8)  # the transfer ends meanwhile, and has to wait before it commits
    assert server.process.poll() is None
    postgres.start()
    done = served.job(id=job, state="ok")
    assert done["attempt"] == 1
    assert [point["id"] for point in served.points()] == [done["point"]]
    assert server.stop() == 0
