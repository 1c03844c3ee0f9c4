"""Where the time of a transfer goes: the parts add up, and the slow stage is the one that is named."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hotspare import events
from hotspare.backup.machine import backup_machine
from hotspare.backup.options import BackupOptions
from hotspare.backup.stages import StageClock
from hotspare.cancellation import Cancellation
from hotspare.documents.progress import stages_of
from hotspare.documents.stages import bottleneck_words, stages_fields
from hotspare.repository.repository import Repository
from hotspare.repository.waits import StoreWaits
from hotspare.repository.writer import RepositoryWriter
from hotspare.storage.local import LocalBackend
from hotspare.units import KIB, MIB
from tests.backup.scripted_platform import ScriptedPlatform
from tests.memory_disk import MemoryDisk
from tests.watched_backend import WatchedBackend

SLOW = 0.25
"""Seconds that the slow stage takes each time: much more than all else together."""


class Clock:
    """Time that passes when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


def test_the_parts_add_up_to_the_time_of_the_transfer() -> None:
    clock = Clock()
    waits = StoreWaits(clock)
    stages = StageClock(waits, clock)

    def workers() -> Iterator[int]:
        for number in range(3):
            clock.passes(10)
            yield number

    for _ in stages.timed(workers()):
        stages.note(reading=6, preparing=18)  # of all workers: more than passes
        clock.passes(2)
        with waits.of_appending():
            clock.passes(1)
    waits.fetching = 9
    with waits.of_appending():
        clock.passes(7)  # the last packs, after the last disk

    found = stages.stages
    assert sum(found) == pytest.approx(clock.now)
    # Workers were waited for 30 s; of their 72 s they read for 18, and fetched for 9.
    assert found.reading == pytest.approx(30 * 18 / 72)
    assert found.storing == pytest.approx(30 * 9 / 72 + 3 + 7)
    assert found.processing == pytest.approx(30 * 45 / 72 + 3 * 2)


def test_a_transfer_without_anything_to_read_has_no_bottleneck() -> None:
    clock = Clock()
    found = StageClock(StoreWaits(clock), clock)
    assert list(found.timed([])) == []
    assert stages_fields(stages_of(events.StagesTimed("web", *found.stages))) is None
    assert bottleneck_words(None) is None


@pytest.fixture
def backend(tmp_path: Path) -> WatchedBackend:
    return WatchedBackend(LocalBackend(tmp_path / "repository"))


def slow_source(_backend: WatchedBackend, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryDisk, "read_into", delayed(MemoryDisk.read_into))


def slow_processing(_backend: WatchedBackend, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RepositoryWriter, "prepare_run", delayed(RepositoryWriter.prepare_run))


def slow_store(backend: WatchedBackend, _patch: pytest.MonkeyPatch) -> None:
    backend.before_put = lambda name: time.sleep(SLOW) if name.startswith("data/") else None


def delayed(call: Callable[..., object]) -> Callable[..., object]:
    def slowly(*given: object) -> object:
        time.sleep(SLOW)
        return call(*given)

    return slowly


@pytest.mark.parametrize(
    ("slow", "stage"),
    [(slow_source, "reading"), (slow_processing, "processing"), (slow_store, "storing")],
)
def test_the_slow_stage_is_named(
    backend: WatchedBackend,
    monkeypatch: pytest.MonkeyPatch,
    slow: Callable[[WatchedBackend, pytest.MonkeyPatch], None],
    stage: str,
) -> None:
    repository = Repository.create(backend, "x", chunk_size=64 * KIB)
    platform = ScriptedPlatform(8 * MIB)
    platform.disks["vda"].guest_writes(0, random.Random(1).randbytes(8 * MIB))
    slow(backend, monkeypatch)
    told: list[events.StagesTimed] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.StagesTimed):
            told.append(event)

    began = time.monotonic()
    backup_machine(repository, platform, "web01", BackupOptions(skip_unused=False), listen, Cancellation())
    took = time.monotonic() - began

    fields = stages_fields(stages_of(told[-1]))
    assert fields is not None
    assert fields["bottleneck"] == stage
    assert fields["share"] > 0.5
    assert fields["reading"] + fields["processing"] + fields["storing"] <= took
    assert f"{fields['share']:.0%}" in (bottleneck_words(fields) or "")
