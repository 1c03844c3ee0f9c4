"""Again and again: each cycle is a restore point, failures are got over, only its own points are thinned."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hotspare.backup.content import CONTINUOUS
from hotspare.backup.continuous import ContinuousBackup, ContinuousPlan, Cycle
from hotspare.backup.machine import backup_machine
from hotspare.backup.options import BackupOptions
from hotspare.cancellation import Cancellation
from hotspare.errors import MachineNotFound, SourceLost
from hotspare.events import ignore
from hotspare.repository.kept import keep_point
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from hotspare.thinning import Thinning, parse_thinning
from hotspare.units import KIB
from tests.backup.scripted_platform import ScriptedPlatform

CHUNK = 64 * KIB


@dataclass
class Cycles:
    """Runs so many cycles, without waiting between them."""

    repository: Repository
    platform: ScriptedPlatform
    opened: int = 0
    closed: int = 0
    seen: list[Cycle] = field(default_factory=list)

    def run(self, count: int, thinning: Thinning | None, machine: str = "web01") -> list[Cycle]:
        cancellation = Cancellation()
        self.seen = []

        def note(cycle: Cycle) -> None:
            self.seen.append(cycle)
            self.platform.fail_at = ""
            disk = self.platform.disks["vda"]
            disk.guest_writes(len(self.seen) * CHUNK, random.Random(len(self.seen)).randbytes(100))
            if len(self.seen) == count:
                cancellation.cancel()

        plan = ContinuousPlan(0.0, thinning)
        backup = ContinuousBackup(self.repository, self._open, machine, BackupOptions(), plan, ignore)
        backup.run(note, cancellation)
        return self.seen

    def _open(self) -> ScriptedPlatform:
        self.opened += 1
        return self.platform

    def points(self) -> list[RestorePoint]:
        return self.repository.machine_points("uuid of web01")


@pytest.fixture
def cycles(tmp_path: Path) -> Cycles:
    platform = ScriptedPlatform(40 * CHUNK)
    platform.disks["vda"].guest_writes(5 * CHUNK, random.Random(1).randbytes(20 * CHUNK))
    repository = Repository.create(LocalBackend(tmp_path / "repository"), "x", chunk_size=CHUNK)
    return Cycles(repository, platform)


def test_each_cycle_is_an_increment_on_the_one_before(cycles: Cycles) -> None:
    seen = cycles.run(3, None)

    points = cycles.points()
    assert [cycle.point.id for cycle in seen if cycle.point] == [point.id for point in points]
    assert [point.disks[0].mode for point in points] == ["full", "increment", "increment"]
    assert [point.parent for point in points] == [None, points[0].id, points[1].id]
    assert all(point.find_extra(CONTINUOUS) for point in points)
    assert cycles.opened == 1
    assert all(cycle.late for cycle in seen)  # of 0 seconds


def test_only_its_own_points_are_thinned_also_those_of_an_earlier_run(cycles: Cycles) -> None:
    backup_machine(cycles.repository, cycles.platform, "web01", BackupOptions(), ignore, Cancellation())
    by_hand = cycles.points()[0].id
    cycles.run(2, None)
    kept = cycles.points()[1]
    keep_point(cycles.repository.backend, cycles.repository.keyring, kept.id, datetime.now(UTC))

    seen = cycles.run(3, parse_thinning("last 2"))

    left = [point.id for point in cycles.points()]
    assert left[:2] == [by_hand, kept.id]
    assert left[2:] == [cycle.point.id for cycle in seen[-2:] if cycle.point]
    assert sum(len(cycle.removed) for cycle in seen) == 2
    restored = bytearray(40 * CHUNK)
    cycles.repository.disk(cycles.points()[-1].disks[0]).read_into(0, memoryview(restored))
    # The last cycle's own change came after it.
    assert restored[: 3 * CHUNK] == cycles.platform.disks["vda"].data[: 3 * CHUNK]


def test_a_failed_cycle_is_told_and_the_next_misses_nothing(cycles: Cycles) -> None:
    cycles.platform.fail_at = "changed"
    seen = cycles.run(3, parse_thinning("last 5"))

    assert [cycle.error is None for cycle in seen] == [False, True, True]
    assert isinstance(seen[0].error, SourceLost)
    assert cycles.opened == 2
    assert len(cycles.points()) == 2


def test_what_makes_no_sense_ends_it_at_once(cycles: Cycles) -> None:
    with pytest.raises(MachineNotFound):
        cycles.run(3, None, machine="no-such")
    assert cycles.seen == []


def test_a_machine_that_goes_away_later_does_not_end_it(cycles: Cycles) -> None:
    cycles.run(1, None)
    lost = iter([None, MachineNotFound("removed"), None])

    def maybe_gone() -> None:
        if error := next(lost):
            raise error

    cycles.platform.before["inspect"] = maybe_gone
    seen = cycles.run(3, None)
    assert [type(cycle.error) for cycle in seen] == [type(None), MachineNotFound, type(None)]
