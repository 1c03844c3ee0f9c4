"""Restore points copied into another repository: the same bytes, sent once, checked on the way."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import Interrupted, RepositoryDamaged, StorageError, UsageError
from hotspare.repository.copy import CopyReport, copy_points
from hotspare.repository.copy_plan import changed_runs, in_larger_or_smaller_chunks, select_points
from hotspare.repository.disk_map import DiskMap
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.repository.verify import verify_points
from hotspare.storage.local import LocalBackend
from tests.repository.conftest import CHUNK, PASSPHRASE, StorePoint
from tests.watched_backend import WatchedBackend

TO_PASSPHRASE = "the other one"


def copy(source: Repository, target: Repository, points: list[RestorePoint] | None = None) -> CopyReport:
    chosen = source.points() if points is None else points
    return copy_points(source, target, chosen, events.ignore, Cancellation())


def content(repository: Repository, point_id: str, number: int = 0) -> bytes:
    (point,) = [point for point in repository.points() if point.id == point_id]
    disk = repository.disk(point.disks[number])
    buffer = bytearray(disk.size)
    disk.read_into(0, memoryview(buffer))
    return bytes(buffer)


def make_target(tmp_path: Path, kind: str, source: Repository) -> Repository:
    backend = LocalBackend(tmp_path / "target")
    if kind == "like":
        return Repository.create(backend, TO_PASSPHRASE, like=source)
    return Repository.create(backend, TO_PASSPHRASE, chunk_size=int(kind) * CHUNK)


def generations(seed: int = 1) -> list[bytes]:
    """Give one disk at three instants: text, noise, holes, an odd end."""
    source = random.Random(seed)
    disk = bytearray(40 * CHUNK + 700)
    disk[: 10 * CHUNK] = source.randbytes(10 * CHUNK)
    disk[12 * CHUNK : 14 * CHUNK] = b"line\n" * (2 * CHUNK // 5) + bytes(2 * CHUNK % 5)
    disk[-300:] = source.randbytes(300)
    found = [bytes(disk)]
    for _ in range(2):
        place = source.randrange(9 * CHUNK)
        disk[place : place + 100] = source.randbytes(100)
        disk[13 * CHUNK : 14 * CHUNK] = bytes(CHUNK)
        found.append(bytes(disk))
    return found


@pytest.mark.parametrize("kind", ["like", "1", "4"])
def test_a_copy_gives_back_every_byte_and_opens_with_its_own_passphrase(
    repository: Repository, store_point: StorePoint, tmp_path: Path, kind: str
) -> None:
    disks = generations()
    points = [store_point(repository, "web", disk, b"second" * 100) for disk in disks]
    copy(repository, make_target(tmp_path, kind, repository))

    target = Repository.open(LocalBackend(tmp_path / "target"), TO_PASSPHRASE)
    for point, disk in zip(points, disks, strict=True):
        assert content(target, point.id) == disk
        assert content(target, point.id, 1) == b"second" * 100
    for mine, theirs in zip(points, target.points(), strict=True):
        assert (theirs.id, theirs.machine_id, theirs.finished_at) == (
            mine.id,
            mine.machine_id,
            mine.finished_at,
        )
        assert theirs.copied_from == repository.id
        assert all(disk.token is None for disk in theirs.disks)
    assert verify_points(target, target.points(), events.ignore, Cancellation()).problems == []


@pytest.mark.parametrize("kind", ["like", "1", "4"])
def test_what_is_there_is_not_sent_again(
    repository: Repository, store_point: StorePoint, tmp_path: Path, kind: str
) -> None:
    first = store_point(repository, "web", generations()[0])
    target = make_target(tmp_path, kind, repository)
    copy(repository, target)
    size = target.statistics().stored_bytes

    again = copy(repository, target)
    assert (again.copied, again.there, again.bytes_read) == ((), (first.id,), 0)
    store_point(repository, "web", generations()[1])
    report = copy(repository, target)
    assert len(report.copied) == 1
    assert report.bytes_read <= 4 * 4 * CHUNK, "only what changed is read"
    assert target.statistics().stored_bytes - size < 10 * CHUNK


def test_a_repository_made_like_another_gets_sealed_chunks_without_reading_what_it_has(
    repository: Repository, store_point: StorePoint, tmp_path: Path
) -> None:
    disk = generations()[0]
    store_point(repository, "web", disk)
    target = make_target(tmp_path, "like", repository)
    store_point(target, "elsewhere", disk)

    report = copy(repository, target)
    assert report.bytes_read == 0
    assert report.bytes_stored == 0


@pytest.mark.parametrize("kind", ["like", "1"])
def test_a_copy_that_was_cut_short_leaves_no_point_and_goes_on(
    repository: Repository,
    store_point: StorePoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    first = store_point(repository, "web", generations()[0])
    noise = random.Random(5).randbytes(200 * CHUNK)
    second = store_point(repository, "db", noise)
    make_target(tmp_path, kind, repository)
    watched = WatchedBackend(LocalBackend(tmp_path / "target"))
    target = Repository.open(watched, TO_PASSPHRASE)
    monkeypatch.setattr("hotspare.repository.copy._FLUSH_EVERY", 64 * CHUNK)
    packs = 0

    def fail(name: str) -> None:
        nonlocal packs
        packs += name.startswith("data/")
        if packs > 3:
            raise StorageError("the line is dead")

    watched.before_put = fail
    with pytest.raises(StorageError, match="line is dead"):
        copy(repository, target)
    again = Repository.open(LocalBackend(tmp_path / "target"), TO_PASSPHRASE)
    assert [point.id for point in again.points()] == [first.id]
    report = copy(repository, again)
    assert report.bytes_stored < 0.5 * len(noise), "what two index segments listed was not sent again"
    assert content(again, second.id) == noise


@pytest.mark.parametrize("kind", ["like", "1"])
def test_damage_in_the_source_is_never_copied(
    repository: Repository, store_point: StorePoint, tmp_path: Path, kind: str
) -> None:
    store_point(repository, "web", random.Random(1).randbytes(10 * CHUNK))
    (path,) = (tmp_path / "repository" / "data").glob("*/*")
    data = bytearray(path.read_bytes())
    data[3 * CHUNK] ^= 1
    path.write_bytes(data)
    target = make_target(tmp_path, kind, repository)

    with pytest.raises(RepositoryDamaged, match="damaged chunk"):
        copy(repository, target)
    assert target.points() == []


def test_a_copy_can_be_interrupted(repository: Repository, store_point: StorePoint, tmp_path: Path) -> None:
    store_point(repository, "web", generations()[0])
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Interrupted):
        copy_points(
            repository,
            make_target(tmp_path, "1", repository),
            repository.points(),
            events.ignore,
            cancellation,
        )


def test_a_repository_is_not_copied_into_itself(repository: Repository) -> None:
    with pytest.raises(UsageError, match="same repository"):
        copy(repository, Repository.open(repository.backend, PASSPHRASE))


def test_points_are_chosen_by_machine_and_time(repository: Repository, store_point: StorePoint) -> None:
    web, database = (store_point(repository, name, b"x") for name in ("web", "db"))
    points = repository.points()
    assert select_points(points, ["web"], None) == [web]
    assert select_points(points, [], database.finished_at) == [database]
    with pytest.raises(UsageError, match="no restore point of a machine 'mail'"):
        select_points(points, ["mail"], None)


@settings(max_examples=200, deadline=None)
@given(
    chunks=st.sets(st.integers(0, 60)),
    sizes=st.sampled_from([(1, 1), (1, 4), (4, 1), (2, 8)]),
    tail=st.integers(1, 7),
)
def test_runs_in_other_chunks_cover_the_same_bytes_and_little_more(
    chunks: set[int], sizes: tuple[int, int], tail: int
) -> None:
    source_size, target_size = sizes
    disk_size = 60 * source_size + min(tail, source_size)
    runs = [(chunk, 1) for chunk in sorted(chunks)]
    found = list(in_larger_or_smaller_chunks(runs, source_size, target_size, disk_size))
    covered = [number for first, count in found for number in range(first, first + count)]
    needed = {
        byte // target_size
        for chunk in chunks
        for byte in range(chunk * source_size, min((chunk + 1) * source_size, disk_size))
    }
    assert covered == sorted(needed)


def test_changed_runs_join_over_pages() -> None:
    pages = {b"\1" * 32: b"\7" * 32 * 2048, b"\2" * 32: b"\7" * 32 * 2, b"\3" * 32: b"\1" * 32 + b"\2" * 32}
    disk_map = DiskMap(pages.__getitem__, b"\3" * 32, 2050)
    assert list(changed_runs(disk_map, None)) == [(0, 2050)]
    assert list(changed_runs(disk_map, disk_map)) == []


@pytest.mark.parametrize("kind", ["like", "1"])
def test_deltas_stay_deltas(
    repository: Repository, store_point: StorePoint, tmp_path: Path, kind: str
) -> None:
    content_before = random.Random(4).randbytes(20 * CHUNK)
    content_after = bytearray(content_before)
    for number in range(20):
        content_after[number * CHUNK + 70] ^= 1
    first = store_point(repository, "web", content_before)
    store_point(repository, "web", bytes(content_after), parent=first)
    target = make_target(tmp_path, kind, repository)
    report = copy(repository, target)

    assert report.bytes_stored < 1.2 * len(content_before), "the second point is stored as what changed"
    assert content(target, report.copied[1].id) == content_after
