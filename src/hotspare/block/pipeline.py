"""Working on many pieces of a disk at once, in bounded memory, with the results in order.

The heavy work (reading sockets and files, hashing, compressing, ciphering) releases the interpreter
lock, so threads are enough. Each worker owns a resource (a connection, a buffer) that no other uses
at the same time.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

Worker = TypeVar("Worker")
Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = 3
"""One more than two cores, so that reading overlaps with compressing."""


def ordered_map(
    work: Callable[[Worker, Item], Result], items: Iterable[Item], workers: Sequence[Worker]
) -> Generator[Result, None, None]:
    """Yield ``work(worker, item)`` for each item, in the items' order, as many at once as there are workers.

    At most two items per worker are taken ahead of the consumer. When a piece of work fails, or the
    generator is closed, what was not begun is dropped, and what runs is waited for: so the workers'
    resources are idle again afterwards. A consumer that may stop early wraps it in ``closing``.
    """
    idle: SimpleQueue[Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def run(item: Item) -> Result:
        worker = idle.get()
        try:
            return work(worker, item)
        finally:
            idle.put(worker)

    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(len(workers), thread_name_prefix="pipeline") as executor:
        try:
            for item in items:
                pending.append(executor.submit(run, item))
                if len(pending) >= 2 * len(workers):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
