"""What check and verify find, and that they name who is hit."""

import random
import time
from pathlib import Path

import pytest

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import Interrupted, PointNotFound, RepositoryDamaged
from hotspare.repository.check import CheckReport, check_structure
from hotspare.repository.repository import Repository
from hotspare.repository.select import find_point
from hotspare.repository.verify import VerifyReport, verify_points
from tests.repository.conftest import CHUNK, PASSPHRASE, StorePoint


def check(repository: Repository) -> CheckReport:
    again = Repository.open(repository.backend, PASSPHRASE)
    return check_structure(again, events.ignore, Cancellation())


def verify(repository: Repository) -> VerifyReport:
    again = Repository.open(repository.backend, PASSPHRASE)
    return verify_points(again, again.points(), events.ignore, Cancellation())


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(data)


def pack_path(tmp_path: Path, kind: str) -> Path:
    (path,) = (tmp_path / "repository" / kind).glob("*/*")
    return path


def test_a_whole_repository_has_no_problem(repository: Repository, store_point: StorePoint) -> None:
    data = random.Random(1).randbytes(20 * CHUNK)
    store_point(repository, "web01", data)
    store_point(repository, "web01", data + bytes(CHUNK))

    assert check(repository).problems == []
    report = verify(repository)
    assert report.problems == []
    assert report.chunks == 20, "a shared chunk is read once"
    assert report.bytes == 20 * CHUNK


def test_a_flipped_bit_is_found_by_verify_and_hits_only_those_who_share_it(
    repository: Repository, store_point: StorePoint, tmp_path: Path
) -> None:
    data = random.Random(1).randbytes(20 * CHUNK)
    first = store_point(repository, "web01", data)
    both = store_point(repository, "web02", data + bytes(CHUNK))
    path = pack_path(tmp_path, "data")
    other = store_point(repository, "db01", random.Random(2).randbytes(5 * CHUNK))
    flip(path, 100_000)

    assert check(repository).problems == [], "check does not read data"
    (problem,) = verify(repository).problems
    assert problem.object == f"data/{path.parent.name}/{path.name}"
    assert set(problem.points) == {first.id, both.id}
    assert other.id not in problem.points


@pytest.mark.parametrize("kind", ["data", "meta"])
def test_a_missing_pack_is_found_by_check(
    repository: Repository, store_point: StorePoint, tmp_path: Path, kind: str
) -> None:
    point = store_point(repository, "web01", random.Random(1).randbytes(20 * CHUNK))
    pack_path(tmp_path, kind).unlink()

    problems = check(repository).problems
    assert problems
    assert {point.id} == {one for problem in problems for one in problem.points}
    assert verify(repository).problems


def test_a_truncated_pack_is_found_by_check(
    repository: Repository, store_point: StorePoint, tmp_path: Path
) -> None:
    point = store_point(repository, "web01", random.Random(1).randbytes(20 * CHUNK))
    path = pack_path(tmp_path, "data")
    path.write_bytes(path.read_bytes()[:-1000])

    (problem,) = check(repository).problems
    assert "bytes where" in problem.detail
    assert problem.points == (point.id,)


def test_a_missing_segment_is_found_by_check(
    repository: Repository, store_point: StorePoint, tmp_path: Path
) -> None:
    point = store_point(repository, "web01", random.Random(1).randbytes(20 * CHUNK))
    other = store_point(repository, "db01", random.Random(2).randbytes(20 * CHUNK))
    segments = sorted((tmp_path / "repository/index").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    segments[0].unlink()

    problems = check(repository).problems
    assert {one for problem in problems for one in problem.points} == {point.id}
    assert other.id not in str(verify(repository).problems)


def test_a_damaged_segment_says_so(repository: Repository, store_point: StorePoint, tmp_path: Path) -> None:
    store_point(repository, "web01", random.Random(1).randbytes(20 * CHUNK))
    (segment,) = (tmp_path / "repository/index").iterdir()
    flip(segment, 200)

    with pytest.raises(RepositoryDamaged, match="index segment"):
        check(repository)


def test_an_unreadable_point_is_named(
    repository: Repository, store_point: StorePoint, tmp_path: Path
) -> None:
    good = store_point(repository, "web01", random.Random(1).randbytes(2 * CHUNK))
    bad = store_point(repository, "web01", random.Random(1).randbytes(3 * CHUNK))
    (path,) = (tmp_path / "repository/points").glob(f"*/{bad.id}")
    flip(path, 60)

    (problem,) = check(repository).problems
    assert problem.points == (bad.id,)
    assert good.id not in problem.object


def test_a_damaged_newest_point_is_never_replaced_by_an_older_one_in_silence(
    repository: Repository, store_point: StorePoint, tmp_path: Path
) -> None:
    old = store_point(repository, "web01", b"old" * CHUNK)
    other = store_point(repository, "db01", b"other" * CHUNK)
    time.sleep(1)  # ids tell seconds
    bad = store_point(repository, "web01", b"new" * CHUNK)
    (path,) = (tmp_path / "repository/points").glob(f"*/{bad.id}")
    flip(path, 60)

    with pytest.raises(RepositoryDamaged, match=old.id):
        find_point(repository, "web01")
    assert find_point(repository, old.id) == old
    assert find_point(repository, "db01") == other
    with pytest.raises(PointNotFound, match="1 restore points cannot be read"):
        find_point(repository, bad.id)
    with pytest.raises(RepositoryDamaged):
        repository.points()


def test_reading_a_damaged_disk_never_gives_wrong_bytes(
    repository: Repository, store_point: StorePoint, tmp_path: Path
) -> None:
    data = random.Random(1).randbytes(6 * CHUNK)
    point = store_point(repository, "web01", data)
    path = pack_path(tmp_path, "data")
    size = path.stat().st_size
    whole = path.read_bytes()
    for seed in range(30):
        flip(path, random.Random(seed).randrange(size))
        buffer = bytearray(len(data))
        try:
            repository.disk(point.disks[0]).read_into(0, memoryview(buffer))
        except RepositoryDamaged:
            pass
        else:
            assert buffer == data, "the flipped bit was outside of every chunk"
        path.write_bytes(whole)


def test_verify_can_be_interrupted(repository: Repository, store_point: StorePoint) -> None:
    store_point(repository, "web01", random.Random(1).randbytes(6 * CHUNK))
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Interrupted):
        verify_points(repository, repository.points(), events.ignore, cancellation)
