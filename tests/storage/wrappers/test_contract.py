"""Every wrapper does what the store inside does."""

from pathlib import Path

import pytest

from hotspare.storage.backend import Backend
from hotspare.storage.local import LocalBackend
from hotspare.storage.wrappers.cache import CachedBackend
from hotspare.storage.wrappers.faults import FaultRules, FaultyBackend
from hotspare.storage.wrappers.forwarding import ForwardingBackend
from hotspare.storage.wrappers.retry import RetryBackend, RetryPolicy
from hotspare.storage.wrappers.throttle import ThrottledBackend, TokenBucket
from tests.contracts.storage_suite import StorageSuite

GIB = 1024**3


@pytest.fixture
def local(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path / "store")


class TestForwarding(StorageSuite):
    @pytest.fixture
    def backend(self, local: LocalBackend) -> Backend:
        return ForwardingBackend(local)


class TestRetryOfErrors(StorageSuite):
    """One call in five fails, some after they took effect; nobody above notices."""

    @pytest.fixture
    def backend(self, local: LocalBackend) -> Backend:
        faulty = FaultyBackend(local, FaultRules(seed=3, error=0.2))
        return RetryBackend(faulty, RetryPolicy(first_wait=0.0))


class TestThrottle(StorageSuite):
    @pytest.fixture
    def backend(self, local: LocalBackend) -> Backend:
        return ThrottledBackend(local, up=TokenBucket(GIB), down=TokenBucket(GIB))


class TestCache(StorageSuite):
    @pytest.fixture
    def backend(self, local: LocalBackend, tmp_path: Path) -> Backend:
        return CachedBackend(local, tmp_path / "cache", limit=1_000_000)


class TestNoFaults(StorageSuite):
    @pytest.fixture
    def backend(self, local: LocalBackend) -> Backend:
        return FaultyBackend(local, FaultRules())
