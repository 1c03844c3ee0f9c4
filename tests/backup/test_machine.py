"""The order of a backup's steps, and that a failure at any of them loses nothing."""

import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare import events
from hotspare.backup.machine import backup_machine
from hotspare.backup.options import BackupOptions
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, Interrupted, NoSpace, RepositoryDamaged, SourceLost
from hotspare.platforms.platform import IoTotals
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.repository.select import find_point
from hotspare.storage.local import LocalBackend
from hotspare.units import KIB
from tests.backup.scripted_platform import ScriptedPlatform
from tests.watched_backend import WatchedBackend

CHUNK = 64 * KIB
PASSPHRASE = "x"


@pytest.fixture
def backend(tmp_path: Path) -> WatchedBackend:
    return WatchedBackend(LocalBackend(tmp_path / "repository"))


@pytest.fixture
def repository(backend: WatchedBackend) -> Repository:
    return Repository.create(backend, PASSPHRASE, chunk_size=CHUNK)


@pytest.fixture
def platform() -> ScriptedPlatform:
    platform = ScriptedPlatform(40 * CHUNK, 3 * CHUNK + 512)
    platform.disks["vda"].guest_writes(5 * CHUNK, random.Random(1).randbytes(20 * CHUNK))
    platform.disks["vdb"].guest_writes(0, b"database " * 1000)
    return platform


def back_up(
    repository: Repository,
    platform: ScriptedPlatform,
    *,
    full: bool = False,
    skip_unused: bool = True,
    listener: events.Listener = events.ignore,
) -> RestorePoint:
    options = BackupOptions(full=full, skip_unused=skip_unused)
    return backup_machine(repository, platform, "web01", options, listener, Cancellation())


def content(repository: Repository, point: RestorePoint, name: str) -> bytes:
    (disk,) = [disk for disk in point.disks if disk.name == name]
    buffer = bytearray(disk.size)
    repository.disk(disk).read_into(0, memoryview(buffer))
    return bytes(buffer)


def assert_same(repository: Repository, point: RestorePoint, platform: ScriptedPlatform) -> None:
    for name, disk in platform.disks.items():
        assert content(repository, point, name) == disk.data


def test_the_steps_come_in_the_order_that_is_safe(
    repository: Repository, backend: WatchedBackend, platform: ScriptedPlatform
) -> None:
    backend.before_put = lambda name: platform.log.append("put " + name.partition("/")[0])
    back_up(repository, platform)
    order = [step for step in platform.log if step.startswith(("put", "commit", "release", "open"))]

    assert order[:2] == ["put sessions", "open_snapshot"]
    assert order[-4:] == ["put index", "put points", "commit", "release"]
    assert set(order[2:-4]) == {"put data", "put meta"}


def test_an_increment_reads_what_changed_and_gives_the_whole_disk(
    repository: Repository, platform: ScriptedPlatform
) -> None:
    first = back_up(repository, platform)
    platform.disks["vda"].guest_writes(7 * CHUNK + 100, b"changed")
    second = back_up(repository, platform)

    assert [disk.mode for disk in first.disks] == ["full", "full"]
    assert [disk.full_because for disk in first.disks] == ["first backup", "first backup"]
    assert [disk.mode for disk in second.disks] == ["increment", "increment"]
    assert second.disks[0].bytes_read == CHUNK
    assert second.disks[1].bytes_read == 0
    assert second.parent == first.id
    assert_same(repository, second, platform)


def test_zeroes_written_over_data_are_kept(repository: Repository, platform: ScriptedPlatform) -> None:
    back_up(repository, platform)
    platform.disks["vda"].guest_writes(6 * CHUNK, bytes(3 * CHUNK))
    second = back_up(repository, platform)

    assert second.disks[0].bytes_read == 0, "zeroes are known without reading"
    assert_same(repository, second, platform)


def test_a_lost_bitmap_makes_only_that_disk_a_full(
    repository: Repository, platform: ScriptedPlatform
) -> None:
    back_up(repository, platform)
    platform.disks["vdb"].dirty_since.clear()
    point = back_up(repository, platform)

    assert [disk.mode for disk in point.disks] == ["increment", "full"]
    assert point.disks[1].full_because == "bitmap lost"
    assert point.disks[1].bytes_new == 0, "its chunks are known by their content"
    assert_same(repository, point, platform)


def test_a_full_on_request_asks_for_no_increment(repository: Repository, platform: ScriptedPlatform) -> None:
    back_up(repository, platform)
    point = back_up(repository, platform, full=True)

    assert {disk.full_because for disk in point.disks} == {"a full backup was asked for"}
    assert point.disks[0].bytes_stored == 0


def test_a_full_on_request_stores_changes_as_deltas(
    repository: Repository, platform: ScriptedPlatform
) -> None:
    platform.disks["vda"].guest_writes(0, random.Random(1).randbytes(CHUNK))
    back_up(repository, platform)
    platform.disks["vda"].guest_writes(100, b"a few bytes")
    point = back_up(repository, platform, full=True)

    assert point.disks[0].mode == "full"
    assert 0 < point.disks[0].bytes_stored < CHUNK // 8
    assert_same(repository, point, platform)


def test_an_unreadable_parent_makes_a_full(
    repository: Repository, platform: ScriptedPlatform, tmp_path: Path
) -> None:
    back_up(repository, platform)
    for pack in (tmp_path / "repository/meta").glob("*/*"):
        pack.unlink()
    for disk in platform.disks.values():
        disk.guest_writes(CHUNK, b"so that no page is the same")
    point = back_up(repository, platform)

    assert [disk.mode for disk in point.disks] == ["full", "full"]
    assert "parent restore point cannot be read: Pack" in str(point.disks[0].full_because)
    assert_same(repository, point, platform)


def test_no_point_is_made_that_needs_a_missing_pack(
    repository: Repository, platform: ScriptedPlatform, tmp_path: Path
) -> None:
    back_up(repository, platform)
    for pack in (tmp_path / "repository/data").glob("*/*"):
        pack.unlink()
    with pytest.raises(RepositoryDamaged, match="No restore point was made"):
        back_up(repository, platform, full=True)

    assert len(repository.points()) == 1
    assert platform.log.count("commit") == 1


def test_a_full_stores_again_the_map_pages_whose_pack_is_missing(
    repository: Repository, platform: ScriptedPlatform, tmp_path: Path
) -> None:
    back_up(repository, platform)
    for pack in (tmp_path / "repository/meta").glob("*/*"):
        pack.unlink()
    point = back_up(repository, platform, full=True)

    assert_same(repository, point, platform)


@pytest.mark.parametrize("step", ["open_snapshot", "reader", "changed", "read", "check"])
def test_a_failure_at_any_step_advances_no_token(
    repository: Repository, platform: ScriptedPlatform, step: str
) -> None:
    back_up(repository, platform)
    platform.disks["vda"].guest_writes(9 * CHUNK, b"must not be missed")
    platform.fail_at = step
    with pytest.raises(SourceLost, match=step):
        back_up(repository, platform)
    platform.fail_at = ""
    assert len(repository.points()) == 1
    platform.disks["vda"].guest_writes(2 * CHUNK, b"written after the failure")

    again = Repository.open(repository.backend, PASSPHRASE)
    point = back_up(again, platform)
    assert point.disks[0].mode == "increment"
    assert_same(again, point, platform)


def test_a_failing_commit_still_leaves_a_whole_point(
    repository: Repository, platform: ScriptedPlatform
) -> None:
    platform.fail_at = "commit"
    with pytest.raises(SourceLost):
        back_up(repository, platform)
    platform.fail_at = ""

    (point,) = repository.points()
    assert_same(repository, point, platform)
    assert back_up(repository, platform).disks[0].mode == "full", "its token is gone, and that is noticed"


def test_a_full_store_fails_the_run_and_the_next_one_is_whole(
    repository: Repository, backend: WatchedBackend, platform: ScriptedPlatform
) -> None:
    """Chunks of the failed run that were stored, but never listed in a segment, must not be counted on."""

    def refuse_segments(name: str) -> None:
        if name.startswith("index/"):
            raise NoSpace("the store is full")

    backend.before_put = refuse_segments
    with pytest.raises(NoSpace):
        back_up(repository, platform)
    backend.before_put = lambda _name: None
    assert repository.points() == []

    point = back_up(repository, platform)
    again = Repository.open(repository.backend, PASSPHRASE)
    assert_same(again, point, platform)


@pytest.mark.parametrize("step", ["inspect", "open_snapshot", "read", "check"])
def test_an_interruption_leaves_no_point_and_releases_the_snapshot(
    repository: Repository, platform: ScriptedPlatform, step: str
) -> None:
    cancellation = Cancellation()
    platform.before[step] = cancellation.cancel
    with pytest.raises(Interrupted):
        backup_machine(repository, platform, "web01", BackupOptions(), events.ignore, cancellation)

    assert repository.points() == []
    assert platform.log.count("open_snapshot") == platform.log.count("release")
    platform.before.clear()
    assert_same(repository, back_up(repository, platform), platform)


def test_events_tell_how_far_it_is(repository: Repository, platform: ScriptedPlatform) -> None:
    seen: list[events.Event] = []
    point = back_up(repository, platform, listener=seen.append)

    assert [event.phase for event in seen if isinstance(event, events.PhaseStarted)] == [
        "plan",
        "snapshot",
        "look-inside",
        "transfer",
        "commit",
    ]
    assert events.Warned("web01", "a warning") in seen
    for disk in point.disks:
        steps = [event for event in seen if isinstance(event, events.Progress) and event.disk == disk.name]
        assert [event.bytes_processed for event in steps] == sorted(event.bytes_processed for event in steps)
        assert steps[-1].bytes_processed == disk.bytes_processed
        assert steps[-1].bytes_stored == disk.bytes_stored > 0


def test_a_backup_that_waited_for_the_guest_says_so(
    repository: Repository, platform: ScriptedPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy() -> dict[str, IoTotals]:
        """Give what a guest has done that writes a thousand times a second, and slowly while it is read."""
        operations = int(time.monotonic() * 1000)
        slow = operations - busy_since if "read" in platform.log else 0
        return {"vda write": IoTotals(operations, operations * 1_000_000 + slow * 50_000_000)}

    busy_since = int(time.monotonic() * 1000)
    monkeypatch.setattr("hotspare.backup.pacing.START", 512 * KIB)
    monkeypatch.setattr("hotspare.backup.pacing.FLOOR", 512 * KIB)
    platform.guest_io = busy
    seen: list[events.Event] = []
    point = back_up(repository, platform, skip_unused=False, listener=seen.append)

    (held_back,) = [event for event in seen if isinstance(event, events.HeldBack)]
    assert held_back.seconds >= 1
    assert held_back.worst_latency_factor >= held_back.latency_factor > 2
    assert seen.index(held_back) < seen.index(events.PhaseStarted("web01", "commit"))
    assert_same(repository, point, platform)


def test_without_control_nothing_waits_for_the_guest(
    repository: Repository, platform: ScriptedPlatform
) -> None:
    def asked() -> dict[str, IoTotals]:
        raise AssertionError("the guest was looked at")

    platform.guest_io = asked
    seen: list[events.Event] = []
    options = BackupOptions(latency_factor=None)
    backup_machine(repository, platform, "web01", options, seen.append, Cancellation())

    assert not [event for event in seen if isinstance(event, events.HeldBack)]


Write = tuple[int, int, int]


@settings(max_examples=25, deadline=None)
@given(
    rounds=st.lists(
        st.lists(
            st.tuples(st.integers(0, 12 * CHUNK - 1), st.integers(1, 2 * CHUNK), st.integers(0, 3)),
            max_size=6,
        ),
        min_size=1,
        max_size=4,
    ),
    failing=st.sets(st.integers(0, 3)),
)
def test_every_point_is_the_disk_as_it_was(
    repository_for_examples: Repository, rounds: list[list[Write]], failing: set[int]
) -> None:
    repository = repository_for_examples
    for point in repository.points():
        repository.forget(point)
    platform = ScriptedPlatform(12 * CHUNK + 4096 * 3)
    disk = platform.disks["vda"]
    taken: list[tuple[RestorePoint, bytes]] = []
    for number, writes in enumerate(rounds):
        for offset, length, kind in writes:
            size = min(length, disk.size - offset)
            data = bytes(size) if kind == 0 else random.Random(offset ^ kind).randbytes(size)
            disk.guest_writes(offset, data)
        platform.fail_at = "check" if number in failing else ""
        try:
            point = back_up(repository, platform)
        except HotspareError:
            assert number in failing
        else:
            taken.append((point, bytes(disk.data)))
    for point, expected in taken:
        assert content(repository, point, "vda") == expected


@pytest.fixture(scope="module")
def repository_for_examples(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository.create(LocalBackend(tmp_path_factory.mktemp("examples")), PASSPHRASE, chunk_size=CHUNK)


def test_silent_loss_order_taken_from_a_clock_that_was_set_back(
    repository: Repository, platform: ScriptedPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest point is the one that was made last, for the next increment and for a restore."""
    clock = Clock(datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC))
    monkeypatch.setattr("hotspare.backup.machine.datetime", clock)
    made = []
    for hours, pattern in ((0, b"first"), (-3, b"second"), (0, b"third"), (-30, b"fourth")):
        clock.time += timedelta(hours=hours)
        platform.disks["vda"].guest_writes(7 * CHUNK, pattern)
        made.append(back_up(repository, platform))

    assert [point.id for point in repository.points()] == [point.id for point in made]
    assert sorted(point.id for point in made) == [point.id for point in made]
    assert [point.parent for point in made] == [None, *(point.id for point in made[:-1])]
    assert [disk.mode for point in made[1:] for disk in point.disks] == ["increment"] * 6
    assert find_point(repository, "web01").id == made[-1].id
    assert made[-1].started_at == clock.time, "the record tells the time as the clock had it"
    assert_same(repository, made[-1], platform)


class Clock:
    """Stands in for the class ``datetime``."""

    def __init__(self, time: datetime) -> None:
        self.time = time

    def now(self, _zone: object) -> datetime:
        return self.time
