"""A keeper on a host that another one has followed as the holder, and on one that is to follow."""

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from hotspare.errors import HotspareError
from hotspare.replication.lease import keeper as module
from hotspare.replication.lease.keeper import LeaseKeeper
from hotspare.replication.lease.kept_lease import KeptLease, Lease
from hotspare.replication.lease.terms import Record, Renew, Take, Terms, Verdict

_TERMS = Terms(lease=2, beat=0.04, silence=0.2, stop=0.1)
_PATIENCE = 60.0


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


class Source(Host):
    """The surroundings of a host that was off: its machine does not run, until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[int] = []

    def pid(self) -> int:
        return 4711 if self.started else 0

    def held(self, record: Record, *, was_running: bool) -> None:
        if was_running:
            self.started.append(record.epoch)


class OtherHost:
    """The line to the other host, which says who it believes is the holder; silent at first."""

    def __init__(self, epoch: int, holder: str) -> None:
        self.answers = False
        self._known = epoch, holder

    def renew(self, message: Renew, timeout: float) -> Verdict:
        del timeout
        if not self.answers:
            raise HotspareError("nobody is there")
        epoch, holder = self._known
        mine = (epoch, holder) == (message.epoch, message.holder)
        return Verdict(mine, epoch, holder, armed=False, order=message.order)

    def take(self, message: Take, timeout: float) -> Verdict:
        raise AssertionError("it takes nothing over")

    def begin(self, timeout: float) -> Verdict:
        del timeout
        return Verdict(self.answers, *self._known, armed=False)

    def close(self) -> None:
        pass


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


@pytest.mark.parametrize("taken", [False, True])
def test_without_a_witness_what_was_running_waits_for_the_word_of_the_other_host(
    tmp_path: Path, *, taken: bool
) -> None:
    """While this host was off, somebody may have had the machine started over there."""
    kept = KeptLease(
        record=Record(epoch=1, holder="source"),
        terms=_TERMS,
        parties=("source", "standby"),
        known_to=("standby",),
        running=True,
    )
    here, there = Source(), OtherHost(2, "standby") if taken else OtherHost(1, "source")
    lease = Lease.open(tmp_path / "lease", lambda: kept)
    keeper = LeaseKeeper("source", lease, {"standby": there}, None, here)
    keeper.start()
    try:
        time.sleep(4 * _TERMS.silence)
        assert here.started == []
        there.answers = True
        if taken:
            _wait(lambda: keeper.record.epoch == 2)
            time.sleep(2 * _TERMS.silence)
            assert here.started == []
        else:
            _wait(lambda: here.started == [1])
    finally:
        keeper.close()


class Standby(Host):
    """The surroundings of a host that may take over, once its fence command says that the holder is off."""

    def __init__(self) -> None:
        super().__init__()
        self.fenced: list[float] = []
        self.is_off = False
        self.held_in: list[int] = []

    def pid(self) -> int:
        return 0

    def replica_is_whole(self) -> bool:
        return True

    def before_take(self) -> bool:
        self.fenced.append(time.monotonic())
        return self.is_off

    def held(self, record: Record, *, was_running: bool) -> None:
        del was_running
        self.held_in.append(record.epoch)


class Witness(OtherHost):
    """Hears the holder, until it does not."""

    def __init__(self) -> None:
        super().__init__(1, "source")
        self.hears = True
        self.looked = 0
        self.taker = ""

    def take(self, message: Take, timeout: float) -> Verdict:
        del timeout
        self.looked += message.look
        if not message.look and not self.hears:
            self.taker = message.taker
        if self.taker:
            return Verdict(not message.look, 2, self.taker, armed=False)
        return Verdict(granted=False, epoch=1, holder="source", armed=True, remaining=1.0 * self.hears)


def test_a_holder_is_fenced_only_when_the_witness_hears_it_no_more_and_again_only_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where just the line between both hosts is lost, the holder lives, and goes on."""
    monkeypatch.setattr(module, "_FENCE_AGAIN_SECONDS", 0.5)
    kept = KeptLease(
        record=Record(epoch=1, holder="source", armed=True), terms=_TERMS, parties=("source", "standby")
    )
    here, witness = Standby(), Witness()
    lines = {"witness": witness, "source": OtherHost(1, "source")}
    keeper = LeaseKeeper("standby", Lease.open(tmp_path / "lease", lambda: kept), lines, None, here)
    keeper.start()
    try:
        _wait(lambda: witness.looked > 5)
        time.sleep(_TERMS.lease + 0.5)
        assert here.fenced == []
        assert keeper.record.epoch == 1

        witness.hears = False
        _wait(lambda: len(here.fenced) >= 3)
        assert keeper.record.epoch == 1
        assert all(later - earlier >= 0.5 for earlier, later in pairwise(here.fenced))

        here.is_off = True
        _wait(lambda: here.held_in == [2])
        assert witness.taker == "standby"
    finally:
        keeper.close()
