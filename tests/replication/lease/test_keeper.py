"""A keeper on a host that another one has followed as the holder."""

import time
from collections.abc import Callable
from pathlib import Path

from hotspare.replication.lease.keeper import LeaseKeeper
from hotspare.replication.lease.kept_lease import KeptLease, Lease
from hotspare.replication.lease.terms import Record, Terms

_TERMS = Terms(lease=2, beat=0.04, silence=0.2, stop=0.1)
_PATIENCE = 20.0


class Host:
    """The surroundings: a machine that ends when it was told to for the second time."""

    def __init__(self) -> None:
        self.told = 0

    def pid(self) -> int:
        return 0 if self.told >= 2 else 4711

    def replica_is_whole(self) -> bool:
        return False

    def before_take(self) -> bool:
        return True

    def held(self, record: Record, *, was_running: bool) -> None:
        raise AssertionError("it is not the holder")

    def lost(self) -> None:
        self.told += 1


def _wait(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_still_runs_is_ended_though_the_new_holder_was_noted_before_the_keeper_began(
    tmp_path: Path,
) -> None:
    """The agent answers as a voter from its first moment, and its keepers begin a moment later."""
    noted = KeptLease(
        record=Record(epoch=2, holder="standby"), terms=_TERMS, parties=("source", "standby"), running=True
    )
    host, lease = Host(), Lease.open(tmp_path / "lease", lambda: noted)
    keeper = LeaseKeeper("source", lease, {}, None, host)
    keeper.start()
    try:
        _wait(lambda: not lease.kept.running)
        told = host.told
        assert told >= 2
        time.sleep(3 * _TERMS.silence)
        assert host.told <= told + 1
        assert not Lease.open(tmp_path / "lease", lambda: noted).kept.running
    finally:
        keeper.close()
