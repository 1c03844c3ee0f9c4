"""What object locks must do: a test class inherits ``LockSuite`` and gives ``backend`` and ``clock``."""

from datetime import datetime, timedelta
from typing import Protocol

import pytest

from hotspare.errors import ObjectNotFound, PermissionRefused
from hotspare.storage.backend import Backend, ObjectLocks

LONG = timedelta(seconds=600)
"""Longer than a test lasts."""


class SomeClock(Protocol):
    def time(self) -> datetime: ...

    def sleep(self, seconds: float) -> None: ...


class LockSuite:
    @pytest.fixture
    def locks(self, backend: Backend) -> ObjectLocks:
        locks = backend.capabilities.locks
        assert locks
        return locks

    @pytest.fixture
    def until(self, clock: SomeClock) -> datetime:
        return clock.time().replace(microsecond=0) + LONG

    def test_a_locked_version_is_there_to_stay(
        self, backend: Backend, locks: ObjectLocks, until: datetime
    ) -> None:
        version = locks.put_locked("data/x", [b"first ", b"second"], until)

        assert backend.get("data/x") == b"first second"
        assert locks.locked_until("data/x") == locks.locked_until("data/x", version) == until
        with pytest.raises(PermissionRefused):
            locks.delete_version("data/x", version)
        with pytest.raises(PermissionRefused):
            locks.extend("data/x", until - timedelta(seconds=2))
        locks.extend("data/x", until + timedelta(seconds=1), version)
        assert locks.locked_until("data/x") == until + timedelta(seconds=1)
        locks.extend("data/x", until + timedelta(seconds=2))
        assert locks.locked_until("data/x", version) == until + timedelta(seconds=2)

    def test_what_is_hidden_can_be_seen_again(
        self, backend: Backend, locks: ObjectLocks, until: datetime
    ) -> None:
        version = locks.put_locked("data/x", [b"mine"], until)
        backend.put("data/x", [b"of somebody else"])
        backend.delete("data/x")
        backend.delete("data/x")
        with pytest.raises(ObjectNotFound):
            backend.get("data/x")
        assert list(backend.list("data/")) == []

        found = list(locks.versions("data/"))
        assert [one.name for one in found] == ["data/x"] * 4
        assert [one.newest for one in found] == [True, False, False, False]
        assert found[0].marker
        assert sorted(one.size for one in found) == [0, 0, 4, 16]
        assert locks.get_version("data/x", version) == b"mine"
        locks.extend("data/x", until + timedelta(seconds=1), version)
        assert locks.locked_until("data/x", version) == until + timedelta(seconds=1)
        for one in found:
            if one.version != version:
                locks.delete_version("data/x", one.version)
        assert backend.get("data/x") == b"mine"
        assert [(one.version, one.newest) for one in locks.versions("data/")] == [(version, True)]

    def test_versions_are_of_a_prefix_in_the_order_of_names(
        self, backend: Backend, locks: ObjectLocks
    ) -> None:
        for name in ("sessions/b", "sessions/a", "sessionsx", "data/x"):
            backend.put(name, [name.encode()])
            backend.put(name, [b"again"])

        found = [(one.name, one.newest) for one in locks.versions("sessions/")]
        names = ["sessions/a", "sessions/b"]
        assert found == [(name, newest) for name in names for newest in (True, False)]
        assert list(locks.versions("nothing/")) == []

    def test_what_is_not_locked_goes(self, backend: Backend, locks: ObjectLocks, until: datetime) -> None:
        backend.put("data/x", [b"x"])
        assert locks.locked_until("data/x") is None
        (version,) = [one.version for one in locks.versions("data/x")]
        locks.delete_version("data/x", version)
        assert not locks.has_version("data/x", version)
        locks.delete_version("data/x", version)
        assert list(locks.versions("")) == []

        backend.put("data/y", [b"y"])
        locks.extend("data/y", until)
        assert locks.locked_until("data/y") == until

    def test_names_a_missing_version(self, locks: ObjectLocks) -> None:
        with pytest.raises(ObjectNotFound):
            locks.locked_until("data/none")
        with pytest.raises(ObjectNotFound):
            locks.get_version("data/none", "0" * 32)

    def test_a_lock_ends(self, backend: Backend, locks: ObjectLocks, clock: SomeClock) -> None:
        until = clock.time().replace(microsecond=0) + timedelta(seconds=5)
        version = locks.put_locked("data/x", [b"x"], until)
        backend.delete("data/x")
        assert locks.has_version("data/x", version)

        clock.sleep((until - clock.time()).total_seconds() + 1)
        locks.delete_version("data/x", version)
        assert not locks.has_version("data/x", version)
