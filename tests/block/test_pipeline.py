"""Order, bounds and endings of the parallel map."""

import threading
import time
from contextlib import closing

import pytest

from hotspare.block.pipeline import ordered_map


def test_results_come_in_the_order_of_the_items() -> None:
    def work(_worker: str, item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * item

    assert list(ordered_map(work, range(50), ["a", "b", "c"])) == [item * item for item in range(50)]


def test_a_worker_is_never_used_twice_at_once() -> None:
    locks = [threading.Lock() for _ in range(3)]

    def work(lock: threading.Lock, _item: int) -> None:
        assert lock.acquire(blocking=False)
        time.sleep(0.001)
        lock.release()

    list(ordered_map(work, range(100), locks))


def test_items_are_taken_only_a_little_ahead() -> None:
    items = iter(range(1000))
    with closing(ordered_map(lambda _worker, item: item, items, ["a", "b"])) as results:
        assert next(results) == 0

    assert next(items) <= 5


def test_a_consumer_that_stops_leaves_nothing_running() -> None:
    running = threading.Event()

    def work(_worker: str, item: int) -> int:
        running.set()
        time.sleep(0.02)
        running.clear()
        return item

    with closing(ordered_map(work, range(1000), ["only"])) as results:
        next(results)
    assert not running.is_set()


def test_an_error_waits_for_what_runs_and_drops_the_rest() -> None:
    running = threading.Semaphore(0)
    done = []

    def work(_worker: str, item: int) -> int:
        if item == 0:
            running.acquire()
            raise ValueError("broken")
        running.release()
        time.sleep(0.05)
        done.append(item)
        return item

    with pytest.raises(ValueError, match="broken"):
        list(ordered_map(work, range(1000), ["a", "b"]))
    finished = list(done)
    time.sleep(0.1)
    assert done == finished, "nothing runs on after the error was seen"
    assert len(done) < 10
