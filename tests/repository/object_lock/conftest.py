"""A repository with object lock, in a store whose clock can be turned."""

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.repository.format import is_locked_kind
from hotspare.repository.gc.collect import prune
from hotspare.repository.gc.report import PruneReport
from hotspare.repository.keys.slot import KeyFile
from hotspare.repository.object_lock.inspect import needed_names
from hotspare.repository.object_lock.keeper import LockKeeper
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.storage.backend import Backend
from hotspare.storage.wrappers.locking import LockingBackend
from tests.repository.conftest import CHUNK, store
from tests.storage.versioned_memory import Clock, VersionedMemory

KEY = KeyFile(bytes(range(32)))
"""Opens quicker than a passphrase."""
PERIOD = timedelta(days=8)
HOLDS = PERIOD / 2
"""What every restore point has left at any moment."""


def noise(seed: int, chunks: int = 6) -> bytearray:
    return bytearray(random.Random(seed).randbytes(chunks * CHUNK))


@dataclass
class Locked:
    """A repository that locks, and what is below it."""

    clock: Clock = field(default_factory=Clock)
    memory: VersionedMemory = field(init=False)

    def __post_init__(self) -> None:
        self.memory = VersionedMemory(self.clock)
        Repository.create(self.backend(), KEY, chunk_size=CHUNK, lock=PERIOD)

    def backend(self, below: Backend | None = None) -> LockingBackend:
        below = below or self.memory
        locks = below.capabilities.locks
        assert locks
        return LockingBackend(below, locks, PERIOD, is_locked_kind, now=self.clock.time)

    def open(self, below: Backend | None = None) -> Repository:
        """Open it as another process would."""
        return Repository.open(self.backend(below), KEY)

    def store(self, *disks: bytearray, parent: RestorePoint | None = None) -> RestorePoint:
        return store(self.open(), "web", *disks, parent=parent)

    def prune(self, *, dry_run: bool = False) -> PruneReport:
        return prune(self.open(), events.ignore, Cancellation(), dry_run=dry_run)

    def keeper(self) -> LockKeeper:
        keeper = self.open().lock_keeper
        assert keeper
        return keeper

    def content(self, point: RestorePoint) -> bytes:
        repository = self.open()
        (disk,) = point.disks
        buffer = bytearray(disk.size)
        repository.disk(disk).read_into(0, memoryview(buffer))
        return bytes(buffer)

    def needed(self, *points: RestorePoint) -> list[str]:
        """Give the names of all that these points need."""
        repository = self.open()
        return [*self.keeper().always_needed(), *needed_names(repository, list(points), Cancellation())]

    def left(self, *points: RestorePoint) -> timedelta:
        """Give the time that is left of the shortest lock among all that these points need."""
        return min(self.lock_of(name) for name in self.needed(*points)) - self.clock.now

    def lock_of(self, name: str) -> datetime:
        until = self.memory.locked_until(name)
        return until or self.clock.now

    def lock_versions_end(self, name: str) -> datetime:
        """Give when the last lock of any version of an object ends."""
        return max(one.until for one in self.memory.objects[name] if one.until)

    def hidden(self) -> set[str]:
        return {name for name, stored in self.memory.objects.items() if stored[-1].data is None}


@pytest.fixture
def locked() -> Locked:
    return Locked()
