"""Renewing object locks on a real server: requests, and what doing many at a time is worth.

``python -m benchmarks.object_lock [OBJECTS]``; the server is SeaweedFS on loopback, with a delay before each
request as from a store that is far away.
"""

import secrets
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from hotspare.cancellation import Cancellation
from hotspare.repository.keys.slot import KeyFile
from hotspare.repository.object_lock import keeper as keeping
from hotspare.repository.object_lock.keeper import LockKeeper
from hotspare.repository.repository import Repository
from hotspare.storage.backend import Backend, ObjectLocks
from hotspare.storage.registry import open_backend
from hotspare.storage.wrappers.forwarding import ForwardingBackend, ForwardingLocks
from tests.storage.servers import Seaweed

_DELAY = 0.02
"""Seconds."""
_PERIOD = timedelta(days=8)


class _Counting(ForwardingBackend):
    """Counts renewals and listings of versions, after a delay."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.calls: Counter[str] = Counter()

    def wrap_locks(self, locks: ObjectLocks) -> ObjectLocks:
        return _CountingLocks(locks, self.calls)


class _CountingLocks(ForwardingLocks):
    def __init__(self, inner: ObjectLocks, calls: Counter[str]) -> None:
        super().__init__(inner)
        self._calls = calls

    def extend(self, name: str, until: datetime, version: str | None = None) -> None:
        time.sleep(_DELAY)
        self._calls["renewals"] += 1
        super().extend(name, until, version)


def main(objects: int) -> None:
    """Renew the locks of so many objects, one and sixteen at a time."""
    with TemporaryDirectory() as folder:
        server = Seaweed(Path(folder) / "server")
        server.up()
        try:
            store = open_backend(server.url(f"locked/{secrets.token_hex(4)}"), server.environment)
            _measure(_Counting(store), objects)
        finally:
            server.kill()


def _measure(backend: _Counting, objects: int) -> None:
    repository = Repository.create(backend, KeyFile(bytes(32)), lock=_PERIOD)
    keeper = repository.lock_keeper
    assert keeper
    names = [f"data/{number % 256:02x}/{number:064x}" for number in range(objects)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: repository.backend.put(name, [b"x"]), names))
    keeper.write_down()
    took = {}
    for later, at_once in enumerate((1, 16), start=1):
        took[at_once] = _renew(keeper, names, at_once, later * _PERIOD / 2)
        print(f"{at_once:2} at a time: {backend.calls['renewals']} renewals in {took[at_once]:.2f} s")
        backend.calls.clear()
        again = _renew(keeper, names, at_once, later * _PERIOD / 2)
        print(f"   nothing due: {backend.calls['renewals']} renewals in {again:.2f} s")
    print(f"16 at a time are {took[1] / took[16]:.1f} times as fast as one")


def _renew(keeper: LockKeeper, names: list[str], at_once: int, ahead: timedelta) -> float:
    """Renew as if it were so much later; gives seconds."""
    keeper.backend.now = lambda: datetime.now(UTC) + ahead
    began = time.monotonic()
    with patch.object(keeping, "_REQUESTS_AT_ONCE", at_once):
        keeper.renew(names, Cancellation())
    return time.monotonic() - began


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
