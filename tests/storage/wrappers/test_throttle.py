"""The bandwidth limit: what passes in a time, for one and for several threads."""

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.storage.local import LocalBackend
from hotspare.storage.wrappers.throttle import ThrottledBackend, TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@given(
    rate=st.floats(1, 1e9),
    steps=st.lists(st.tuples(st.integers(0, 10**8), st.floats(0, 10)), min_size=1, max_size=50),
)
def test_never_more_than_the_rate_and_one_burst(rate: float, steps: list[tuple[int, float]]) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, clock=clock.time, sleep=clock.sleep)
    passed = 0
    for count, idle in steps:
        clock.now += idle
        bucket.take(count)
        passed += count
        assert passed <= rate * (clock.now - 50.0 + 0.5) * 1.000001 + 1


def test_waits_no_longer_than_it_must() -> None:
    clock = Clock()
    bucket = TokenBucket(100, clock=clock.time, sleep=clock.sleep)
    for _ in range(10):
        bucket.take(100)

    assert clock.now == pytest.approx(50.0 + 10 - 0.5)


def test_an_idle_hour_saves_up_no_more_than_a_burst() -> None:
    clock = Clock()
    bucket = TokenBucket(100, clock=clock.time, sleep=clock.sleep)
    clock.now += 3600
    began = clock.now
    bucket.take(250)

    assert clock.now - began == pytest.approx(2.0)


def test_each_direction_has_its_limit(tmp_path: Path) -> None:
    up, down = Clock(), Clock()
    backend = ThrottledBackend(
        LocalBackend(tmp_path),
        up=TokenBucket(1000, clock=up.time, sleep=up.sleep),
        down=TokenBucket(100, clock=down.time, sleep=down.sleep),
    )
    backend.put("x", [bytes(2000), bytes(500)])
    assert (up.now, down.now) == (52.0, 50.0)
    backend.get("x")
    assert down.now == pytest.approx(50 + 24.5)
    backend.get_range("x", 0, 100)
    assert down.now == pytest.approx(50 + 25.5)
    assert up.now == 52.0


def test_threads_share_one_limit(tmp_path: Path) -> None:
    backend = ThrottledBackend(LocalBackend(tmp_path), up=TokenBucket(1_000_000))
    began = time.monotonic()
    threads = [threading.Thread(target=backend.put, args=(f"x{n}", [bytes(250_000)])) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert time.monotonic() - began >= 0.5


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_of_nothing_is_no_rate(rate: float) -> None:
    with pytest.raises(ValueError, match=str(rate)):
        TokenBucket(rate)
