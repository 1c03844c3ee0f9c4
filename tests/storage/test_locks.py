"""Object locks against their contract: a real server, the store in memory, and through every wrapper."""

import secrets
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hotspare.errors import ObjectNotFound, StorageError
from hotspare.storage import s3_lock
from hotspare.storage.backend import Backend
from hotspare.storage.s3 import S3Backend
from hotspare.storage.s3_settings import read_s3_settings
from hotspare.storage.wrappers.cache import CachedBackend
from hotspare.storage.wrappers.faults import FaultRules, FaultyBackend
from hotspare.storage.wrappers.locking import LockingBackend
from hotspare.storage.wrappers.retry import RetryBackend, RetryPolicy
from hotspare.storage.wrappers.throttle import ThrottledBackend, TokenBucket
from tests.contracts.lock_suite import LockSuite
from tests.contracts.storage_suite import StorageSuite
from tests.storage.servers import Seaweed
from tests.storage.versioned_memory import Clock, VersionedMemory

GIB = 1024**3
DAY = timedelta(days=1)


class RealClock:
    def time(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> VersionedMemory:
    return VersionedMemory(clock)


class TestSeaweed(LockSuite):
    @pytest.fixture
    def clock(self) -> RealClock:
        return RealClock()

    @pytest.fixture
    def backend(self, seaweed: Seaweed) -> Backend:
        url = seaweed.url(f"locked/{secrets.token_hex(6)}")
        return S3Backend(read_s3_settings(url, seaweed.environment))


class TestMemory(LockSuite, StorageSuite):
    @pytest.fixture
    def backend(self, memory: VersionedMemory) -> Backend:
        return memory


class TestThrottle(LockSuite):
    @pytest.fixture
    def backend(self, memory: VersionedMemory) -> Backend:
        return ThrottledBackend(memory, up=TokenBucket(GIB), down=TokenBucket(GIB))


class TestCache(LockSuite):
    @pytest.fixture
    def backend(self, memory: VersionedMemory, tmp_path: Path) -> Backend:
        return CachedBackend(memory, tmp_path / "cache", limit=1_000_000)


class TestLocking(StorageSuite):
    """What is stored locked looks like any other object to all above."""

    @pytest.fixture
    def backend(self, memory: VersionedMemory, clock: Clock) -> Backend:
        return locking(memory, clock)


def locking(memory: VersionedMemory, clock: Clock) -> LockingBackend:
    return LockingBackend(memory, memory, DAY, lambda name: name.startswith("data/"), now=clock.time)


def test_a_clock_that_is_wrong_is_noticed(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    """No two clocks agree to nothing; the store's own is not to be turned."""
    monkeypatch.setattr(s3_lock, "_CLOCKS_APART_MAX", timedelta(seconds=-1))
    url = seaweed.url(f"locked/{secrets.token_hex(6)}")
    locks = s3_lock.S3Locks(read_s3_settings(url, seaweed.environment))

    with pytest.raises(StorageError, match="NTP"):
        locks.put_locked("data/x", [b"x"], datetime.now(UTC) + timedelta(seconds=60))


def test_what_is_stored_locked_is_only_hidden(memory: VersionedMemory, clock: Clock) -> None:
    backend = locking(memory, clock)
    backend.put("data/x", [b"x"])
    backend.put("sessions/y", [b"y"])
    backend.put("sessions/y", [b"again"])
    backend.delete("data/x")
    backend.delete("sessions/y")
    backend.delete("never/there")

    assert memory.objects.keys() == {"data/x"}, "what is not locked leaves nothing behind"
    assert [(one.data, one.until) for one in memory.objects["data/x"]] == [
        (b"x", clock.now + DAY),
        (None, None),
    ]
    assert backend.take_stored() == {"data/x": clock.now + DAY}
    assert backend.take_stored() == {}


def test_a_copy_is_kept_of_what_is_stored_locked(
    memory: VersionedMemory, clock: Clock, tmp_path: Path
) -> None:
    cached = CachedBackend(memory, tmp_path / "cache", limit=1_000_000)
    backend = LockingBackend(cached, cached.capabilities.locks or memory, DAY, lambda _name: True)
    backend.put("points/x", [b"point"])
    memory.requests.clear()

    assert backend.get("points/x") == b"point"
    assert memory.count("get") == 0
    backend.delete("points/x")
    with pytest.raises(ObjectNotFound):
        backend.get("points/x")


def test_what_is_sent_locked_is_paid_for(memory: VersionedMemory, clock: Clock) -> None:
    waited: list[float] = []
    bucket = TokenBucket(1000, clock=lambda: 0.0, sleep=waited.append)
    locks = ThrottledBackend(memory, up=bucket).capabilities.locks
    assert locks
    locks.put_locked("data/x", [bytes(2500)], clock.now + DAY)

    assert waited == [2.0]


def test_faults_reach_locks(memory: VersionedMemory, clock: Clock) -> None:
    locks = FaultyBackend(memory, FaultRules(error=1.0)).capabilities.locks
    assert locks
    for call in (
        lambda: locks.put_locked("x", [b"x"], clock.now + DAY),
        lambda: locks.extend("x", clock.now + DAY),
        lambda: locks.locked_until("x"),
        lambda: locks.versions(""),
        lambda: locks.get_version("x", "1"),
        lambda: locks.delete_version("x", "1"),
    ):
        with pytest.raises(StorageError, match="on purpose"):
            call()

    lost = FaultyBackend(memory, FaultRules(lose_put=1.0)).capabilities.locks
    assert lost
    lost.put_locked("data/lost", [b"x"], clock.now + DAY)
    assert "data/lost" not in memory.objects


def test_calls_of_locks_are_repeated(memory: VersionedMemory, clock: Clock) -> None:
    faulty = FaultyBackend(memory, FaultRules(seed=5, error=0.4))
    locks = RetryBackend(faulty, RetryPolicy(first_wait=0.0)).capabilities.locks
    assert locks
    for number in range(20):
        name = f"data/{number}"
        version = locks.put_locked(name, [b"x"], clock.now + DAY)
        locks.extend(name, clock.now + 2 * DAY, version)
        assert locks.locked_until(name, version) == clock.now + 2 * DAY
        assert locks.get_version(name, version) == b"x"
        assert version in {one.version for one in locks.versions(name)}
    assert memory.count("put_locked") > 20, "some were stored twice, as their answer was lost"
