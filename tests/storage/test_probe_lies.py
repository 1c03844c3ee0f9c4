"""The probe of object locks against one lie at a time. No real server is known to tell just one."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from typing_extensions import Buffer

from hotspare.errors import PermissionRefused, StorageError
from hotspare.storage.backend import ObjectLocks
from hotspare.storage.probe import probe_store
from hotspare.storage.wrappers.forwarding import ForwardingBackend, ForwardingLocks
from tests.storage.versioned_memory import Clock, VersionedMemory

LIES = (
    "refuses",
    "shows nothing",
    "shows less",
    "shortens",
    "extends nothing",
    "deletes",
    "deletes after refusing",
)


class LyingLocks(ForwardingLocks):
    """Keeps its word but for one thing."""

    def __init__(self, inner: ObjectLocks, lie: str) -> None:
        super().__init__(inner)
        self._lie = lie
        self._gone = False

    def put_locked(self, name: str, parts: Sequence[Buffer], until: datetime) -> str:
        if self._lie == "refuses":
            raise StorageError("not implemented")
        return super().put_locked(name, parts, until)

    def extend(self, name: str, until: datetime, version: str | None = None) -> None:
        if self._lie == "extends nothing":
            present = self.inner.locked_until(name)
            if present and until < present:
                raise PermissionRefused("cannot be shortened")
            return
        try:
            super().extend(name, until, version)
        except PermissionRefused:
            if self._lie != "shortens":
                raise

    def locked_until(self, name: str, version: str | None = None) -> datetime | None:
        until = super().locked_until(name, version)
        match self._lie:
            case "shows nothing":
                return None
            case "shows less":
                return until and until - timedelta(seconds=1)
            case _:
                return until

    def delete_version(self, name: str, version: str) -> None:
        if self._lie in {"deletes", "deletes after refusing"}:
            self._gone = True
        if self._lie != "deletes":
            super().delete_version(name, version)

    def has_version(self, name: str, version: str) -> bool:
        return not self._gone and super().has_version(name, version)


class Lying(ForwardingBackend):
    def __init__(self, inner: VersionedMemory, lie: str) -> None:
        super().__init__(inner)
        self._lie = lie

    def wrap_locks(self, locks: ObjectLocks) -> ObjectLocks:
        return LyingLocks(locks, self._lie)


@pytest.mark.parametrize("lie", [*LIES, ""])
def test_one_lie_is_enough(lie: str) -> None:
    clock = Clock()
    memory = VersionedMemory(clock)
    traits = probe_store(
        Lying(memory, lie), try_lock=True, lock_seconds=10, now=clock.time, sleep=clock.sleep
    )

    assert traits.object_lock is (lie == "")
    locked = [name for name in memory.objects if name.endswith("/locked")]
    assert lie == "deletes" or not locked, "what was locked is removed once that is possible"
