"""Real damage to stored packs: what repair heals, what it drops, what the next backup heals, who is named."""

import random
from pathlib import Path

import pytest

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import RepositoryDamaged
from hotspare.repository.check import check_structure
from hotspare.repository.repair import RepairReport, repair_repository
from hotspare.repository.repository import Repository
from hotspare.repository.scrub import ScrubReport, scrub_store
from hotspare.repository.verify import verify_points
from hotspare.storage.local import LocalBackend
from tests.repository.conftest import CHUNK, PASSPHRASE, StorePoint

DISK = random.Random(1).randbytes(60 * CHUNK)


def again(repository: Repository) -> Repository:
    return Repository.open(repository.backend, PASSPHRASE)


def scrub(repository: Repository) -> ScrubReport:
    return scrub_store(repository.backend, events.ignore, Cancellation())


def repair(repository: Repository, *, dry_run: bool = False) -> RepairReport:
    return repair_repository(again(repository), events.ignore, Cancellation(), dry_run=dry_run)


def verified(repository: Repository) -> list[str]:
    opened = again(repository)
    return [p.object for p in verify_points(opened, opened.points(), events.ignore, Cancellation()).problems]


def read_point(repository: Repository, point_id: str) -> bytes:
    opened = again(repository)
    (point,) = [point for point in opened.points() if point.id == point_id]
    disk = opened.disk(point.disks[0])
    buffer = bytearray(disk.size)
    disk.read_into(0, memoryview(buffer))
    return bytes(buffer)


def pack_of(repository: Repository, kind: str = "data") -> Path:
    (item,) = repository.backend.list(kind + "/")
    return Path(repository.backend.url.removeprefix("file://")) / item.name


def flip(path: Path, *places: int) -> None:
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 0x20
    path.write_bytes(data)


def names(repository: Repository) -> dict[str, int]:
    return {item.name: item.size for item in repository.backend.list("")}


@pytest.fixture
def with_parity(tmp_path: Path) -> Repository:
    backend = LocalBackend(tmp_path / "with-parity")
    return Repository.create(backend, PASSPHRASE, chunk_size=CHUNK, parity=4)


def test_parity_is_written_with_every_pack(with_parity: Repository, store_point: StorePoint) -> None:
    store_point(with_parity, "web", DISK)
    found = names(with_parity)
    packs = [name for name in found if name.startswith(("data/", "meta/"))]
    assert {f"parity/{name}" for name in packs} == {name for name in found if name.startswith("parity/")}
    report = scrub(with_parity)
    assert (report.damaged, report.packs, report.parities) == ({}, 2, 2)


def test_flipped_sectors_are_given_back_by_parity(with_parity: Repository, store_point: StorePoint) -> None:
    point = store_point(with_parity, "web", DISK)
    path = pack_of(with_parity)
    whole = path.read_bytes()
    flip(path, 5, 70_000, 1_000_000, len(whole) - 3)
    assert scrub(with_parity).repairable == (f"data/{path.parent.name}/{path.name}",)
    assert verified(with_parity)

    planned = repair(with_parity, dry_run=True)
    assert path.read_bytes() != whole
    done = repair(with_parity)
    assert planned == done
    assert done.healed == (f"data/{path.parent.name}/{path.name}",)
    assert (done.dropped, done.problems) == ({}, [])
    assert path.read_bytes() == whole
    assert verified(with_parity) == []
    assert read_point(with_parity, point.id) == DISK


def test_a_truncated_pack_is_given_back_by_parity(with_parity: Repository, store_point: StorePoint) -> None:
    point = store_point(with_parity, "web", DISK)
    path = pack_of(with_parity)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100_000])
    assert repair(with_parity, dry_run=True).problems == []
    repair(with_parity)
    assert path.read_bytes() == whole
    assert read_point(with_parity, point.id) == DISK


def test_beyond_the_limit_of_parity_it_says_who_is_hit(
    with_parity: Repository, store_point: StorePoint
) -> None:
    point = store_point(with_parity, "web", DISK)
    path = pack_of(with_parity)
    flip(path, *range(1000, 600_000, 70_000))
    report = repair(with_parity)
    assert report.healed == ()
    assert sum(report.dropped.values()) == 9
    affected = [one for problem in report.problems for one in problem.affected]
    assert {one.point for one in affected} == {point.id}
    assert {one.machine for one in affected} == {"web"}
    assert sum(one.bytes for one in affected) == 9 * CHUNK


def test_damaged_parity_is_made_anew(with_parity: Repository, store_point: StorePoint) -> None:
    store_point(with_parity, "web", DISK)
    path = pack_of(with_parity)
    parity = path.parents[2] / "parity" / "data" / path.parent.name / path.name
    whole = parity.read_bytes()
    flip(parity, 3000)
    report = scrub(with_parity)
    assert list(report.damaged) == [f"parity/data/{path.parent.name}/{path.name}"]
    assert repair(with_parity).parity_renewed == (f"data/{path.parent.name}/{path.name}",)
    assert parity.read_bytes() == whole
    parity.unlink()
    assert len(repair(with_parity).parity_renewed) == 1
    assert parity.read_bytes() == whole


@pytest.mark.parametrize("seed", range(8))
def test_after_any_damage_every_byte_read_is_right_or_named_as_lost(
    repository: Repository, store_point: StorePoint, seed: int
) -> None:
    """The ranges that repair names are exactly those that cannot be read."""
    point = store_point(repository, "web", DISK, DISK[: 3 * CHUNK])
    path = pack_of(repository)
    source = random.Random(seed)
    size = path.stat().st_size
    match seed % 4:
        case 0:
            flip(path, *(source.randrange(size) for _ in range(5)))
        case 1:
            path.write_bytes(path.read_bytes()[: source.randrange(size)])
        case 2:
            path.unlink()
        case _:
            start = source.randrange(size)
            path.write_bytes(path.read_bytes()[:start].ljust(size, b"\0"))
    report = repair(repository)
    opened = again(repository)
    (found,) = opened.points()
    named = {
        (one.disk, chunk)
        for problem in report.problems
        for one in problem.affected
        for offset, length in one.ranges
        for chunk in range(offset // CHUNK, (offset + length) // CHUNK)
    }
    for number, content in ((0, DISK), (1, DISK[: 3 * CHUNK])):
        disk = opened.disk(found.disks[number])
        for chunk in range(disk.size // CHUNK):
            buffer = bytearray(CHUNK)
            try:
                disk.read_into(chunk * CHUNK, memoryview(buffer))
            except RepositoryDamaged:
                assert (found.disks[number].name, chunk) in named
            else:
                assert buffer == content[chunk * CHUNK : (chunk + 1) * CHUNK]
                assert (found.disks[number].name, chunk) not in named
    assert {one for problem in report.problems for one in problem.points} <= {point.id}


@pytest.mark.parametrize("how", ["flip", "unlink", "truncate"])
def test_the_next_backup_heals_what_repair_dropped(
    repository: Repository, store_point: StorePoint, how: str
) -> None:
    point = store_point(repository, "web", DISK)
    path = pack_of(repository)
    if how == "flip":
        flip(path, 100_000, 500_000)
    elif how == "unlink":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:1_000_000])
    before = set(names(repository))
    assert repair(repository).problems
    added = set(names(repository)) - before
    assert before <= set(names(repository)), "nothing is removed"
    assert {name.split("/")[0] for name in added} == {"damaged"}

    store_point(again(repository), "web", DISK)
    assert read_point(repository, point.id) == DISK, "the old point is whole again"
    assert check_structure(again(repository), events.ignore, Cancellation()).problems == []
    assert repair(repository).problems == []


def test_without_a_repair_a_chunk_that_is_damaged_is_not_stored_again(
    repository: Repository, store_point: StorePoint
) -> None:
    """Shows what the record of damage is for."""
    point = store_point(repository, "web", DISK)
    flip(pack_of(repository), 100_000)
    store_point(again(repository), "web", DISK)
    with pytest.raises(RepositoryDamaged):
        read_point(repository, point.id)


def test_a_pack_that_came_back_whole_is_counted_on_again(
    repository: Repository, store_point: StorePoint
) -> None:
    point = store_point(repository, "web", DISK)
    path = pack_of(repository)
    whole = path.read_bytes()
    flip(path, 100_000)
    assert repair(repository).dropped
    path.write_bytes(whole)
    report = repair(repository)
    assert (report.dropped, report.problems) == ({}, [])
    assert not list(repository.backend.list("damaged/"))
    assert read_point(repository, point.id) == DISK


def test_a_damaged_page_of_a_map_hits_the_whole_disk_or_its_part(
    repository: Repository, store_point: StorePoint
) -> None:
    point = store_point(repository, "web", DISK, b"other" * CHUNK)
    flip(pack_of(repository, "meta"), 60)
    report = repair(repository)
    (affected,) = [one for problem in report.problems for one in problem.affected]
    assert (affected.point, affected.disk, affected.ranges) == (point.id, "vda", ((0, len(DISK)),))
    store_point(again(repository), "web", DISK)
    assert read_point(repository, point.id) == DISK


def test_a_record_of_damage_that_is_damaged_is_passed_over(
    repository: Repository, store_point: StorePoint
) -> None:
    store_point(repository, "web", DISK)
    flip(pack_of(repository), 100_000)
    repair(repository)
    (record,) = repository.backend.list("damaged/")
    repository.backend.put(record.name, [b"junk"])
    assert len(again(repository).index()) > 0
    assert repair(repository).dropped


def test_a_whole_repository_is_left_as_it_is(repository: Repository, store_point: StorePoint) -> None:
    store_point(repository, "web", DISK)
    before = names(repository)
    report = repair(repository)
    assert (report.healed, report.parity_renewed, report.dropped, report.problems) == ((), (), {}, [])
    assert names(repository) == before


def test_scrubbing_needs_no_key_and_finds_damage_to_segments(
    repository: Repository, store_point: StorePoint
) -> None:
    store_point(repository, "web", DISK)
    (segment,) = repository.backend.list("index/")
    data = bytearray(repository.backend.get(segment.name))
    data[-1] ^= 1
    repository.backend.put(segment.name, [data])
    assert list(scrub(repository).damaged) == [segment.name]
