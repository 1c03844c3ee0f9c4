"""When the retry wrapper asks again, how long it waits, and when it gives up."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from typing_extensions import Buffer

from hotspare.errors import NoSpace, ObjectNotFound, StorageError
from hotspare.storage.backend import ObjectInfo
from hotspare.storage.local import LocalBackend
from hotspare.storage.wrappers.forwarding import ForwardingBackend
from hotspare.storage.wrappers.retry import RetryBackend, RetryPolicy


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Failing(ForwardingBackend):
    """Raises the errors one after the other, then works."""

    def __init__(self, folder: Path, *errors: Exception) -> None:
        super().__init__(LocalBackend(folder))
        self.errors = list(errors)
        self.puts = 0

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        self.puts += 1
        if self.errors:
            raise self.errors.pop(0)
        super().put(name, parts)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from super().list(prefix)
        if self.errors:
            raise self.errors.pop(0)


def passing() -> StorageError:
    return StorageError("busy", may_pass=True)


def longest(_: float, limit: float) -> float:
    return limit


def retrying(
    inner: Failing, clock: Clock, policy: RetryPolicy, uniform: Callable[[float, float], float] = longest
) -> RetryBackend:
    return RetryBackend(inner, policy, clock=clock.time, sleep=clock.sleep, uniform=uniform)


def test_waits_twice_as_long_each_time_up_to_a_limit(tmp_path: Path) -> None:
    clock, inner = Clock(), Failing(tmp_path, *[passing() for _ in range(5)])
    policy = RetryPolicy(first_wait=1, longest_wait=5, total=100, total_at_first=100)
    retrying(inner, clock, policy).put("x", [b"x"])

    assert clock.waits == [1, 2, 4, 5, 5]
    assert inner.get("x") == b"x"


def test_waits_anything_below_the_limit(tmp_path: Path) -> None:
    clock, inner = Clock(), Failing(tmp_path, *[passing() for _ in range(6)])
    policy = RetryPolicy(first_wait=1, total=100, total_at_first=100)
    retrying(inner, clock, policy, random.Random(5).uniform).put("x", [b"x"])

    assert all(0 <= wait <= 2**number for number, wait in enumerate(clock.waits))
    assert len(set(clock.waits)) == 6


def test_gives_up_with_the_last_error_when_the_time_is_over(tmp_path: Path) -> None:
    errors = [StorageError(f"busy {number}", may_pass=True) for number in range(100)]
    clock, inner = Clock(), Failing(tmp_path)
    backend = retrying(inner, clock, RetryPolicy(first_wait=1, longest_wait=10, total=60, total_at_first=5))
    backend.put("works", [b""])
    inner.errors = list(errors)
    with pytest.raises(StorageError, match="busy 8"):
        backend.put("x", [b"x"])

    assert clock.now - 1000 <= 60
    assert sum(clock.waits) + 10 > 60


def test_a_store_that_never_answered_is_given_up_sooner(tmp_path: Path) -> None:
    clock, inner = Clock(), Failing(tmp_path, *[passing() for _ in range(100)])
    with pytest.raises(StorageError, match="busy"):
        retrying(inner, clock, RetryPolicy(first_wait=1, total=60, total_at_first=5)).put("x", [b"x"])

    assert clock.waits == [1, 2]


@pytest.mark.parametrize("error", [ObjectNotFound("gone"), NoSpace("full"), StorageError("broken")])
def test_what_will_not_pass_is_not_repeated(tmp_path: Path, error: Exception) -> None:
    clock, inner = Clock(), Failing(tmp_path, error)
    with pytest.raises(type(error)):
        retrying(inner, clock, RetryPolicy()).put("x", [b"x"])

    assert (inner.puts, clock.waits) == (1, [])


def test_a_listing_that_breaks_off_is_not_given_twice(tmp_path: Path) -> None:
    inner = Failing(tmp_path)
    inner.put("a", [b""])
    inner.put("b", [b""])
    inner.errors.append(passing())

    found = retrying(inner, Clock(), RetryPolicy()).list("")
    assert [item.name for item in found] == ["a", "b"]
