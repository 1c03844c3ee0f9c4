"""Guessing takes longer and longer."""

import pytest

from hotspare.access.attempts import Attempts
from hotspare.errors import TooManyAttempts


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_after_some_failures_each_next_one_waits_twice_as_long() -> None:
    clock = Clock()
    attempts = Attempts(free=3, clock=clock)
    for _ in range(3):
        attempts.begin("anna")
    waits = []
    for _ in range(14):
        with pytest.raises(TooManyAttempts) as refused:
            attempts.begin("anna")
        waits.append(refused.value.seconds)
        clock.now += refused.value.seconds
        attempts.begin("anna")
    assert waits[:4] == [2, 3, 5, 9]
    assert waits[-1] == 901
    attempts.begin("ben")


def test_what_waits_does_not_count() -> None:
    clock = Clock()
    attempts = Attempts(free=1, clock=clock)
    attempts.begin("anna")
    for _ in range(100):
        with pytest.raises(TooManyAttempts):
            attempts.begin("anna")
    clock.now += 1.1
    attempts.begin("anna")


def test_the_right_password_forgives() -> None:
    attempts = Attempts(free=2, clock=Clock())
    for _ in range(10):
        attempts.begin("anna", "address")
        attempts.succeeded("anna", "address")


def test_names_without_end_take_no_memory_without_end() -> None:
    attempts = Attempts(clock=Clock())
    for number in range(10_050):
        attempts.begin(str(number))
    assert len(attempts._failures) <= 10_001
