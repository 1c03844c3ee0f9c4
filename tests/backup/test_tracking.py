"""What a platform says about changes is doubted; the platform here lies on command."""

import random

import pytest

from hotspare import events
from hotspare.backup.machine import backup_machine
from hotspare.backup.options import BackupOptions
from hotspare.backup.plan import plan_transfer
from hotspare.backup.tracking import check_tracking
from hotspare.block.extent import Extent, ExtentKind
from hotspare.cancellation import Cancellation
from hotspare.cli.backup_results import doubts_about
from hotspare.errors import TrackingWrong
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from hotspare.units import KIB
from tests.backup.scripted_platform import ScriptedPlatform
from tests.memory_disk import MemoryDisk

CHUNK = 64 * KIB
CHUNKS = 40


@pytest.fixture
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    backend = LocalBackend(tmp_path_factory.mktemp("tracking") / "repository")
    return Repository.create(backend, "x", chunk_size=CHUNK)


@pytest.fixture
def platform() -> ScriptedPlatform:
    """Of 40 chunks, 5 to 24 hold data."""
    platform = ScriptedPlatform(CHUNKS * CHUNK)
    platform.disks["vda"].guest_writes(5 * CHUNK, random.Random(2).randbytes(20 * CHUNK))
    return platform


def back_up(
    repository: Repository,
    platform: ScriptedPlatform,
    percent: float = 0,
    listener: events.Listener = events.ignore,
) -> RestorePoint:
    options = BackupOptions(check_tracking=percent)
    return backup_machine(repository, platform, "web01", options, listener, Cancellation())


def assert_same(repository: Repository, point: RestorePoint, platform: ScriptedPlatform) -> None:
    buffer = bytearray(point.disks[0].size)
    repository.disk(point.disks[0]).read_into(0, memoryview(buffer))
    assert buffer == platform.disks["vda"].data


def write_unseen(platform: ScriptedPlatform, offset: int, data: bytes) -> None:
    platform.disks["vda"].data[offset : offset + len(data)] = data


def test_a_lie_is_found_recorded_and_mended_by_a_full(
    repository: Repository, platform: ScriptedPlatform
) -> None:
    first = back_up(repository, platform)
    second = back_up(repository, platform)
    write_unseen(platform, 8 * CHUNK + 100, b"unseen")
    told: list[events.Event] = []
    third = back_up(repository, platform, 100, told.append)
    (disk,) = third.disks

    assert (disk.mode, disk.tracking_wrong) == ("full", 1)
    assert disk.tracking_compared == 20
    assert "the first at 512.0 KiB" in str(disk.full_because)
    assert_same(repository, third, platform)
    (warning,) = [
        event.message for event in told if isinstance(event, events.Warned) and "vda" in event.message
    ]
    assert warning in third.warnings
    assert second.id in warning
    assert first.id not in warning, "it was read in full"
    error = doubts_about(third)
    assert isinstance(error, TrackingWrong)
    assert third.id in str(error)


def test_without_the_option_one_chunk_is_compared(repository: Repository, platform: ScriptedPlatform) -> None:
    back_up(repository, platform)
    second = back_up(repository, platform)

    assert (second.disks[0].mode, second.disks[0].tracking_compared) == ("increment", 1)
    assert doubts_about(second) is None


@pytest.mark.parametrize("cut", [10 * CHUNK, 10 * CHUNK + 4096, 25 * CHUNK - 512])
def test_a_tail_that_was_cut_off_unseen_is_found_without_the_option(
    repository: Repository, platform: ScriptedPlatform, cut: int
) -> None:
    """As when a disk was made smaller and larger again, and the bitmap forgot it."""
    back_up(repository, platform)
    write_unseen(platform, cut, bytes(25 * CHUNK - cut))
    point = back_up(repository, platform)

    assert point.disks[0].mode == "full"
    assert point.disks[0].tracking_wrong
    assert_same(repository, point, platform)


def test_the_sample_is_of_what_was_asked(repository: Repository, platform: ScriptedPlatform) -> None:
    back_up(repository, platform)
    point = back_up(repository, platform, 50)

    assert 10 <= point.disks[0].tracking_compared <= 11, "half of 20, and the last"


def test_what_changed_is_not_compared(repository: Repository) -> None:
    """Every chunk of a disk is either changed, zero, or a candidate."""
    picker = random.Random(3)
    for _ in range(200):
        marks = [picker.choice(["changed", "zero", "data"]) for _ in range(30)]
        disk = _Marked(bytearray(b"".join(bytes([mark == "data"]) * 512 for mark in marks)), marks)
        changed = [
            Extent(at * 512, 512, ExtentKind.DATA) for at, mark in enumerate(marks) if mark == "changed"
        ]
        read = _CountingMap()
        found = check_tracking(
            disk,
            plan_transfer(changed, disk.size, 512),
            read,  # type: ignore[arg-type] # a map that notes what is asked of it
            512,
            lambda _data: b"data",
            percent=100,
            check=lambda: None,
        )
        assert sorted(read.asked) == [at for at, mark in enumerate(marks) if mark == "data"]
        assert sorted(read.zeroes) == [at for at, mark in enumerate(marks) if mark == "zero"]
        assert not found.wrong


class _Marked(MemoryDisk):
    def __init__(self, data: bytearray, marks: list[str]) -> None:
        super().__init__(data)
        self.marks = marks

    def extents(self, offset: int, length: int):  # type: ignore[no-untyped-def]
        for at, mark in enumerate(self.marks):
            yield Extent(at * 512, 512, ExtentKind.ZERO if mark == "zero" else ExtentKind.DATA)


class _CountingMap:
    def __init__(self) -> None:
        self.asked: list[int] = []
        self.zeroes: list[int] = []

    def __getitem__(self, chunk: int) -> bytes:
        self.asked.append(chunk)
        return b"data"

    def runs(self, first: int, count: int):  # type: ignore[no-untyped-def]
        self.zeroes.extend(range(first, first + count))
        yield first, count, True
