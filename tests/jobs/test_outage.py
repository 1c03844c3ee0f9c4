"""A real PostgreSQL goes away in the worst moments of a run and comes back: the run waits, and goes on."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from hotspare.backup.claim import Claim
from hotspare.cancellation import Cancellation
from hotspare.events import Listener
from hotspare.jobs import mover as module
from hotspare.jobs import movers
from hotspare.jobs.claims import Claims, JobClaim
from hotspare.jobs.orders import Order, Result
from tests.jobs.postgres import Postgres, running_postgres
from tests.jobs.test_mover import Bench, ScriptedWork

AWAY_SECONDS = 2.0


class Outage:
    """Happens once, when it is called for the first time, and lasts some seconds."""

    def __init__(self, cluster: Postgres, seconds: float = AWAY_SECONDS) -> None:
        self._cluster = cluster
        self._seconds = seconds
        self._enough = threading.Event()
        self._lock = threading.Lock()
        self._back: threading.Thread | None = None

    def __call__(self) -> None:
        with self._lock:
            if self._back is not None:
                return
            self._cluster.stop()
            self._back = threading.Thread(target=self._come_back)
            self._back.start()

    def _come_back(self) -> None:
        self._enough.wait(self._seconds)
        self._cluster.start()

    def cut_short(self) -> bool:
        """Have the database come back now; gives whether it was still away."""
        was_away = self._back is not None and self._back.is_alive()
        self._enough.set()
        return self.over() and was_away

    def over(self) -> bool:
        """Wait until the database is there again; gives whether it was ever away."""
        with self._lock:  # it is begun in another thread, and may not be on its way yet
            back = self._back
        if back is not None:
            back.join()
        return back is not None


class Begins(ScriptedWork):
    """A backup as whose begin something happens."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__()
        self.released = True
        self._happens = happens

    def back_up(self, order: Order, claim: Claim, listener: Listener, cancellation: Cancellation) -> Result:
        self._happens()
        return super().back_up(order, claim, listener, cancellation)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Postgres]:
    with running_postgres() as cluster:
        yield cluster


@pytest.mark.parametrize(
    "moment",
    [
        "taken",
        pytest.param("begun", marks=pytest.mark.soak),
        "committed",
        pytest.param("ended", marks=pytest.mark.soak),
    ],
)
def test_a_run_waits_for_the_database_and_goes_on(
    cluster: Postgres, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.2)
    outage = Outage(cluster)
    work = Begins(outage if moment == "begun" else lambda: None)
    for owner, name, at in (
        (Claims, "take", "taken"),
        (JobClaim, "before_commit", "committed"),
        (JobClaim, "end", "ended"),
    ):
        if moment == at:
            _before(monkeypatch, owner, name, outage)
    bench = Bench(cluster.url, work)
    try:
        bench.submit(f"job-{moment}")
        deadline = time.monotonic() + 60
        while not outage.over():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        done = bench.wait(f"job-{moment}", lambda job: job.state not in {"queued", "running"})
        assert (done.state, done.attempt, work.begun) == ("ok", 1, 1)
        assert done.result is not None
        assert done.result.point == "point 1"
    finally:
        bench.close()


def test_a_run_that_waits_to_begin_can_be_stopped(cluster: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movers, "SILENT_SECONDS", 5.0)  # until the first one counts as dead
    outage = Outage(cluster, seconds=90)
    bench = Bench(cluster.url, Begins(outage))
    bench.submit("job-stopped")
    while bench.mover.busy == 0 or bench.work.begun == 0:
        time.sleep(0.05)
    bench.close()
    assert outage.cut_short()
    again = Bench(cluster.url, Begins(lambda: None))
    try:
        assert again.wait("job-stopped", lambda job: job.state == "ok").attempt == 2
    finally:
        again.close()


def _before(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, happens: Callable[[], None]) -> None:
    """Have something happen just before a method is carried out."""
    method = getattr(owner, name)

    def wrapped(*arguments: object) -> object:
        happens()
        return method(*arguments)

    monkeypatch.setattr(owner, name, wrapped)
