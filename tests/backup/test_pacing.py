"""How fast a disk is read beside a guest, against a model of both."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.backup.pacing import FLOOR, START, LatencyControl
from hotspare.platforms.platform import IoTotals
from hotspare.units import MIB
from tests.backup.simulated_guest import CAPACITY, SimulatedGuest


def run(guest: SimulatedGuest, seconds: float, factor: float = 2.0) -> LatencyControl:
    control = LatencyControl(factor, guest.now)
    guest.run(control, seconds)
    return control


@pytest.mark.parametrize("factor", [1.3, 1.5, 2.0, 4.0])
@pytest.mark.parametrize("sensitivity", [1.0, 3.0, 10.0, 30.0])
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_the_guest_is_slowed_down_by_the_factor_and_not_more(
    factor: float, sensitivity: float, spread: float
) -> None:
    guest = SimulatedGuest(sensitivity=sensitivity, spread=spread)
    run(guest, 40, factor)

    assert guest.ratio_between(15, 40) <= 1.1 * factor
    # The closer the factor is to what the latency varies by itself, the more caution that costs.
    assert guest.rate_between(15, 40) >= 0.25 * guest.best_rate(factor), "more could have been read"


def test_a_guest_that_does_not_suffer_is_read_at_full_speed() -> None:
    guest = SimulatedGuest(sensitivity=0.01)
    control = run(guest, 30)

    assert guest.rate_between(10, 30) >= 0.9 * CAPACITY
    assert control.held_back.worst < 2


def test_an_idle_guest_is_read_at_full_speed_from_the_start() -> None:
    control = LatencyControl(2.0, now=100.0)
    control.observe(100.0, {"vda write": IoTotals(7, 10**6)})
    assert control.delay(100.0, MIB) > 0, "it is looked at first"
    for look in range(1, 8):
        control.observe(100 + look / 10, {"vda write": IoTotals(7, 10**6)})

    assert not control.learning
    assert control.rate == math.inf
    assert [control.delay(100.8, 4 * MIB) for _ in range(1000)] == [0.0] * 1000


def test_a_guest_that_wakes_up_is_spared_soon() -> None:
    guest = SimulatedGuest(sensitivity=30.0, thinks=lambda now: 1000.0 if now < 10 else 0.0)
    control = LatencyControl(2.0, guest.now)
    idle = {"vda write": IoTotals(0, 0)}
    for look in range(1, 100):
        control.observe(look / 10, idle)
        assert look < 8 or control.delay(look / 10, 64 * MIB) == 0.0
    guest.now = 10.0
    guest.run(control, 20)

    assert guest.ratio_between(15, 30) <= 2.2


def test_a_guest_that_gets_slower_by_itself_is_not_blamed_on_the_backup() -> None:
    guest = SimulatedGuest(latency=lambda now: 0.0008 if now < 20 else 0.006)
    run(guest, 60)

    assert guest.rate_between(40, 60) >= 0.35 * guest.best_rate(2.0)
    assert guest.ratio_between(40, 60) <= 2.4


def test_a_guest_that_gets_faster_is_spared_as_it_is_now() -> None:
    guest = SimulatedGuest(latency=lambda now: 0.006 if now < 20 else 0.0008)
    run(guest, 100)

    assert guest.ratio_between(70, 100) <= 2.2


def test_a_slow_writer_is_noticed_too() -> None:
    guest = SimulatedGuest(sensitivity=10.0, thinks=lambda _now: 0.1)
    run(guest, 60)

    # Ten operations a second tell little: the factor is only held roughly. Unhindered it would be 126.
    assert guest.ratio_between(20, 60) <= 3.5


def test_it_comes_to_rest() -> None:
    guest = SimulatedGuest(spread=0.1)
    control = LatencyControl(2.0, guest.now)
    guest.run(control, 20)
    rates = []
    for _ in range(100):
        guest.run(control, 0.2)
        rates.append(control.rate)
    changes = sum(1 for before, after in pairwise(rates) if before != after)

    assert max(rates) < 1.6 * min(rates)
    assert changes <= 25, "between two bounds nothing is changed"


def test_what_the_guest_never_did_before_is_learnt_before_it_is_judged() -> None:
    control = LatencyControl(2.0, now=0.0)
    reads, flushes, took = 0, 0, 0
    paused = 0
    for look in range(1, 100):
        now = look / 10
        reads += 100 if now < 5 else 0
        flushes += 20 if now > 5 else 0
        took = reads * 100_000
        control.observe(
            now, {"vda read": IoTotals(reads, took), "vda flush": IoTotals(flushes, flushes * 10**7)}
        )
        paused += now > 5 and control.learning
        control.delay(now, 32 * MIB)

    assert 3 <= paused <= 20
    assert control.rate > START, "flushes take a hundred times as long as reads, by themselves"
    assert control.held_back.worst < 1.5


def test_a_kind_with_other_latencies_does_not_count_as_slower() -> None:
    """The share of flushes doubles, and with it the mean of all operations."""
    control = LatencyControl(1.5, now=0.0)
    writes = flushes = 0
    for look in range(1, 100):
        writes, flushes = (writes + 90, flushes + 10) if look < 50 else (writes + 50, flushes + 50)
        totals = {"w": IoTotals(writes, writes * 10**5), "f": IoTotals(flushes, flushes * 10**7)}
        control.observe(look / 10, totals)
        control.delay(look / 10, 8 * MIB)

    assert control.held_back.worst == pytest.approx(1.0)
    assert control.held_back.mean == pytest.approx(1.0)


def test_the_result_says_how_the_guest_fared() -> None:
    guest = SimulatedGuest(sensitivity=30.0)
    control = run(guest, 30)

    assert control.held_back.mean == pytest.approx(guest.ratio_between(1, 30), rel=0.2)
    assert control.held_back.worst >= 2.0


def test_reading_goes_on_when_nobody_looks_at_the_guest_any_more() -> None:
    control = LatencyControl(2.0, now=0.0)
    control.observe(0.0, {})

    assert control.delay(0.5, MIB) > 0
    assert control.delay(5.0, MIB) == 0.0


@pytest.mark.parametrize("factor", [1.0, 0.5, 0.0, -1.0, math.nan])
def test_a_factor_that_could_not_be_held_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match=str(factor)):
        LatencyControl(factor, now=0.0)


Counters = Sequence[tuple[int, int]]
_GROWTH = st.tuples(st.integers(-1000, 3000), st.integers(-(10**9), 10**11))


@settings(max_examples=150, deadline=None)
@given(
    looks=st.lists(st.lists(_GROWTH, min_size=0, max_size=3), max_size=60),
    interval=st.floats(0.01, 2.0),
    factor=st.floats(1.01, 100),
)
def test_whatever_the_counters_say_reading_goes_on(
    looks: list[list[tuple[int, int]]], interval: float, factor: float
) -> None:
    control = LatencyControl(factor, now=0.0)
    totals: dict[str, IoTotals] = {}
    now, next_look, read = 0.0, 0.0, 0
    waiting = iter(looks)
    seconds = 30.0
    while now < seconds and read < seconds * 4 * FLOOR:
        if now >= next_look:
            next_look = now + interval
            for kind, (operations, took) in enumerate(next(waiting, [])):
                before = totals.get(f"{kind}", IoTotals(0, 0))
                totals[f"{kind}"] = IoTotals(before.operations + operations, before.nanoseconds + took)
            control.observe(now, totals)
        assert control.rate >= FLOOR
        assert control.grain > 0
        delay = control.delay(now, control.grain)
        assert 0 <= delay < 1
        read += 0 if delay else control.grain
        now += delay or 0.0001
    assert read >= 0.7 * FLOOR * (seconds - 1.5)
