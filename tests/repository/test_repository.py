"""A repository as a whole: created, opened, filled, read back, and everything that may be wrong with it."""

import itertools
import json
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.errors import (
    PointNotFound,
    RepositoryDamaged,
    RepositoryExists,
    RepositoryNotFound,
    RepositoryTooNew,
    UsageError,
    WrongKey,
)
from hotspare.repository.repository import Repository
from hotspare.repository.select import find_point
from hotspare.storage.local import LocalBackend
from tests.repository.conftest import CHUNK, PASSPHRASE, StorePoint, store


def read_disk(repository: Repository, point_name: str, number: int = 0) -> bytes:
    disk = repository.disk(find_point(repository, point_name).disks[number])
    buffer = bytearray(disk.size)
    disk.read_into(0, memoryview(buffer))
    return bytes(buffer)


def sample_disk(seed: int, size: int) -> bytearray:
    """Part random, part compressible, part repeated, part zero."""
    source = random.Random(seed)
    data = bytearray(size)
    for start in range(0, size, CHUNK):
        length = min(CHUNK, size - start)
        match source.randrange(4):
            case 0:
                data[start : start + length] = source.randbytes(length)
            case 1:
                data[start : start + length] = (b"line %d\n" % source.randrange(50) * length)[:length]
            case 2:
                data[start : start + length] = b"the same chunk everywhere " * (length // 26) + bytes(
                    length % 26
                )
            case _:
                pass
    return data


def test_gives_back_every_byte(repository: Repository, store_point: StorePoint) -> None:
    disks = [sample_disk(1, 40 * CHUNK), sample_disk(2, 3 * CHUNK + 1000), sample_disk(3, 512)]
    point = store_point(repository, "web01", *disks)

    again = Repository.open(repository.backend, PASSPHRASE)
    for number, data in enumerate(disks):
        assert read_disk(again, point.id, number) == data


@pytest.fixture(scope="module")
def ranges(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, bytes]:
    """One repository for all examples: only the ranges vary."""
    content = sample_disk(7, 9 * CHUNK + 700)
    repository = Repository.create(
        LocalBackend(tmp_path_factory.mktemp("ranges")), PASSPHRASE, chunk_size=CHUNK
    )
    store(repository, "web01", content)
    return repository, bytes(content)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_range_reads_as_the_disk_does(ranges: tuple[Repository, bytes], data: st.DataObject) -> None:
    repository, content = ranges
    disk = repository.disk(repository.points()[0].disks[0])
    start = data.draw(st.integers(0, len(content) - 1))
    length = data.draw(st.integers(1, len(content) - start))
    buffer = bytearray(length)
    disk.read_into(start, memoryview(buffer))
    assert buffer == content[start : start + length]
    extents = list(disk.extents(start, length))
    assert extents[0].offset == start
    assert extents[-1].end == start + length
    assert all(before.end == after.offset for before, after in itertools.pairwise(extents))


def test_the_same_data_is_stored_once(repository: Repository, store_point: StorePoint) -> None:
    data = sample_disk(4, 30 * CHUNK)
    store_point(repository, "web01", data)
    before = repository.statistics().stored_bytes
    second = store_point(repository, "web02", data)

    assert second.disks[0].bytes_new == 0
    assert repository.statistics().stored_bytes - before < 4096


def test_zeroes_take_no_space(repository: Repository, store_point: StorePoint) -> None:
    point = store_point(repository, "empty", bytes(100 * CHUNK + 5))

    assert point.disks[0].root == bytes(32)
    assert repository.statistics().packs == 0
    assert read_disk(repository, "empty") == bytes(100 * CHUNK + 5)


def test_no_plaintext_reaches_the_store(
    repository: Repository, store_point: StorePoint, tmp_path: Path
) -> None:
    secret = b"the launch code is 00000000. "
    store_point(repository, "very-secret-machine", random.Random(1).randbytes(2000) + secret * 4000)

    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"launch" not in path.read_bytes()
            assert b"very-secret-machine" not in path.read_bytes()
        assert "secret-machine" not in path.name


def test_a_second_repository_in_the_same_place_is_refused(repository: Repository) -> None:
    with pytest.raises(RepositoryExists, match="not empty"):
        Repository.create(repository.backend, "other")
    Repository.open(repository.backend, PASSPHRASE)


def test_a_repository_is_not_made_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(RepositoryExists, match="holiday"):
        Repository.create(LocalBackend(tmp_path), PASSPHRASE)


def test_creation_that_was_cut_short_can_be_repeated(backend: LocalBackend) -> None:
    Repository.create(backend, PASSPHRASE)
    backend.delete("config")
    with pytest.raises(RepositoryNotFound):
        Repository.open(backend, PASSPHRASE)

    Repository.create(backend, "another one")
    Repository.open(backend, "another one")


def test_a_wrong_passphrase_opens_nothing(repository: Repository) -> None:
    with pytest.raises(WrongKey, match="does not open"):
        Repository.open(repository.backend, PASSPHRASE + "!")


def test_an_empty_place_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFound, match="repo create"):
        Repository.open(LocalBackend(tmp_path / "nothing"), PASSPHRASE)


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"features": {"read": ["delta", "unheard-of"], "write": [], "gc": []}}],
    ids=["version", "feature"],
)
def test_a_newer_repository_is_refused_with_words(repository: Repository, change: dict[str, object]) -> None:
    config = json.loads(repository.backend.get("config").splitlines()[0])
    repository.backend.put("config", [json.dumps(config | change).encode(), b"\n"])

    with pytest.raises(RepositoryTooNew, match="Upgrade"):
        Repository.open(repository.backend, PASSPHRASE)


def test_an_altered_config_is_found_out(repository: Repository) -> None:
    data = repository.backend.get("config")
    repository.backend.put("config", [data.replace(b'"chunk_size":65536', b'"chunk_size":131072')])

    with pytest.raises(RepositoryDamaged, match="altered"):
        Repository.open(repository.backend, PASSPHRASE)


@pytest.mark.parametrize("junk", [b"", b"{}", b"[1]\n", b"\xff\xfe", b'{"format":"x"}', b"{" * 5000])
def test_a_config_that_is_none_is_found_out(repository: Repository, junk: bytes) -> None:
    repository.backend.put("config", [junk])

    with pytest.raises(RepositoryDamaged):
        Repository.open(repository.backend, PASSPHRASE)


def test_an_unreadable_key_slot_does_not_shut_out_the_others(repository: Repository) -> None:
    repository.backend.put("keys/00", [b"junk"])
    Repository.open(repository.backend, PASSPHRASE)


def test_key_parameters_that_would_exhaust_the_reader_are_not_tried(repository: Repository) -> None:
    (slot,) = [item.name for item in repository.backend.list("keys/")]
    wild = json.loads(repository.backend.get(slot))
    wild["kdf"]["memory_kib"] = 1 << 40
    repository.backend.put(slot, [json.dumps(wild).encode()])

    with pytest.raises(RepositoryDamaged, match="no usable"):
        Repository.open(repository.backend, PASSPHRASE)


def test_a_point_cannot_pass_for_another(repository: Repository, store_point: StorePoint) -> None:
    first, second = (store_point(repository, name, sample_disk(1, CHUNK)) for name in ("a", "b"))
    names = list(repository.point_names())
    (name_a,) = [name for name in names if name.endswith(first.id)]
    (name_b,) = [name for name in names if name.endswith(second.id)]
    repository.backend.put(name_b, [repository.backend.get(name_a)])

    with pytest.raises(RepositoryDamaged, match="not what was written"):
        repository.points()


def test_points_are_found_by_machine_id_and_prefix(repository: Repository, store_point: StorePoint) -> None:
    old, new = (store_point(repository, "web01", sample_disk(seed, CHUNK)) for seed in (1, 2))

    assert find_point(repository, "web01") == new
    assert find_point(repository, "web01@latest") == new
    assert find_point(repository, old.id) == old
    assert find_point(repository, new.id[:-1]) == new
    with pytest.raises(UsageError, match="fits 2"):
        find_point(repository, old.id[:4])
    with pytest.raises(PointNotFound, match="web02"):
        find_point(repository, "web02")
    with pytest.raises(PointNotFound):
        find_point(repository, "")


def test_forgetting_one_point_leaves_the_others_whole(
    repository: Repository, store_point: StorePoint
) -> None:
    data = sample_disk(1, 10 * CHUNK)
    old = store_point(repository, "web01", data)
    store_point(repository, "web01", data)
    repository.forget(old)

    assert len(repository.points()) == 1
    assert read_disk(repository, "web01") == data


def test_a_copied_repository_is_the_same_repository(
    repository: Repository, store_point: StorePoint, tmp_path: Path
) -> None:
    data = sample_disk(1, 10 * CHUNK)
    store_point(repository, "web01", data)
    shutil.copytree(tmp_path / "repository", tmp_path / "copy")

    assert read_disk(Repository.open(LocalBackend(tmp_path / "copy"), PASSPHRASE), "web01") == data
