"""Whoever may take the machine over by himself knows when the standby's newest point is too old for that."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from hotspare.cancellation import Cancellation
from hotspare.replication.interval.runner import IntervalRunner
from hotspare.replication.interval.shipping import Shipping, ShippingStatus
from hotspare.replication.model import Mode, Phase, Protection
from hotspare.replication.source.keeper import NoKeeper

_PATIENCE = 20.0


class Keeper(NoKeeper):
    """Notes what it is told; the first time, it cannot."""

    def __init__(self) -> None:
        self.told: list[bool] = []
        self._deaf = True

    def set_in_sync(self, in_sync: bool) -> None:
        if self._deaf:
            self._deaf = False
            raise OSError("the disk is full")
        self.told.append(in_sync)


def _wait(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def _status(age: float) -> ShippingStatus:
    taken = datetime.now(UTC) - timedelta(seconds=age)
    return ShippingStatus(newest="one", newest_taken_at=taken, last_seconds=2.0)


def test_the_keeper_is_told_also_while_a_cycle_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shipping, "run", lambda _shipping, cancellation: cancellation.wait())
    keeper = Keeper()
    agent = SimpleNamespace(keeper_for=lambda _protection: keeper, tenure_of=lambda _protection: None)
    protection = Protection(
        id="p", machine_id="uuid", machine="web", mode=Mode.INTERVAL, source="a", standby="b", interval=60.0
    )
    runner = IntervalRunner(agent, protection)  # type: ignore[arg-type]
    cancellation = Cancellation()
    hanging = threading.Thread(target=runner.run, args=(cancellation,), daemon=True)
    hanging.start()
    try:
        _wait(lambda: keeper.told == [False])  # there is no point yet
        runner._shipping.status = _status(30)
        _wait(lambda: keeper.told == [False, True])
        assert runner.status().phase is Phase.PROTECTED
        # Two intervals, and the time of the last cycle.
        runner._shipping.status = _status(123)
        _wait(lambda: keeper.told == [False, True, False])
        assert runner.status().phase is Phase.DEGRADED
        runner._shipping.status = _status(0)
        _wait(lambda: keeper.told[-1])
    finally:
        cancellation.cancel()
        hanging.join(_PATIENCE)
    # Once the user has stopped it, the replica only ages.
    runner.release()
    assert keeper.told[-1] is False
