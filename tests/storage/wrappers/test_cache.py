"""The read cache: what it keeps, that it never gives anything wrong, and that it stays small."""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from hotspare.errors import ObjectNotFound, StorageError
from hotspare.storage.local import LocalBackend
from hotspare.storage.wrappers.cache import CachedBackend
from hotspare.storage.wrappers.forwarding import ForwardingBackend


class Counting(ForwardingBackend):
    """Counts what is read from the store."""

    def __init__(self, folder: Path) -> None:
        super().__init__(LocalBackend(folder))
        self.reads = 0

    def get(self, name: str) -> bytes:
        self.reads += 1
        return super().get(name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self.reads += 1
        return super().get_range(name, offset, length)


@pytest.fixture
def store(tmp_path: Path) -> Counting:
    return Counting(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


Opening = Callable[[], CachedBackend]


@pytest.fixture
def open_cache(store: Counting, folder: Path) -> Opening:
    return lambda: CachedBackend(store, folder, limit=10_000)


def named(folder: str, data: bytes) -> str:
    return f"{folder}/{blake3(data).hexdigest()}"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


@pytest.mark.parametrize("name", ["points/m/1", named("index", b"abcdef"), named("meta/aa", b"abcdef")])
def test_reads_immutable_objects_once(store: Counting, open_cache: Opening, name: str) -> None:
    store.put(name, [b"abcdef"])

    for cache in (open_cache(), open_cache()):
        assert cache.get(name) == b"abcdef"
        assert cache.get_range(name, 2, 3) == b"cde"
        assert cache.get_range(name, 6, 0) == b""
    assert store.reads == 1


def test_what_was_put_need_not_be_read(store: Counting, open_cache: Opening) -> None:
    cache = open_cache()
    cache.put("points/m/1", [b"abc", b"def"])

    assert cache.get("points/m/1") == b"abcdef"
    assert store.reads == 0


@pytest.mark.parametrize("name", ["config", "data/aa/x", "keys/1", "sessions/1", "gc/1/condemned"])
def test_everything_else_is_read_each_time(store: Counting, open_cache: Opening, name: str) -> None:
    cache = open_cache()
    cache.put(name, [b"old"])
    assert cache.get(name) == b"old"
    store.put(name, [b"new"])

    assert cache.get(name) == b"new"
    assert cache.get_range(name, 0, 1) == b"n"


def test_listings_and_sizes_are_the_stores(store: Counting, open_cache: Opening) -> None:
    cache = open_cache()
    cache.put("points/m/1", [b"abc"])
    store.delete("points/m/1")

    assert list(cache.list("")) == []
    with pytest.raises(ObjectNotFound):
        cache.size("points/m/1")


def test_what_is_deleted_through_it_is_gone(open_cache: Opening) -> None:
    cache = open_cache()
    cache.put("points/m/1", [b"abc"])
    cache.delete("points/m/1")

    with pytest.raises(ObjectNotFound):
        cache.get("points/m/1")


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "cut off": lambda content: content[:-1],
    "empty": lambda _: b"",
    "longer": lambda content: content + b"x",
    "another header": lambda content: b"X" + content[1:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_copy_is_fetched_again(
    store: Counting, open_cache: Opening, folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    open_cache().put("points/m/1", [b"abcdef"])
    (copy,) = files(folder)
    copy.write_bytes(damage(copy.read_bytes()))

    cache = open_cache()
    assert cache.get_range("points/m/1", 1, 2) == b"bc"
    assert store.reads == 1
    assert cache.get("points/m/1") == b"abcdef"
    assert store.reads == 1


def test_what_does_not_match_its_name_is_not_kept(store: Counting, open_cache: Opening, folder: Path) -> None:
    name = named("meta/aa", b"right")
    store.put(name, [b"wrong"])
    cache = open_cache()

    assert cache.get(name) == b"wrong", "the store's damage is for the reader to find"
    assert not folder.exists()
    store.put(name, [b"right"])
    assert cache.get(name) == b"right"


def test_a_range_past_the_end_is_refused(store: Counting, open_cache: Opening) -> None:
    store.put("points/m/1", [b"abc"])
    cache = open_cache()

    for _ in range(2):
        with pytest.raises(StorageError, match="ends before byte 5"):
            cache.get_range("points/m/1", 2, 3)


def test_the_folder_is_private(open_cache: Opening, folder: Path) -> None:
    open_cache().put("points/m/1", [b"abc"])

    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in files(folder)] == [0o600]


def test_the_copies_unused_for_longest_give_way(store: Counting, open_cache: Opening, folder: Path) -> None:
    cache = open_cache()
    for number in range(8):
        cache.put(f"points/m/{number}", [bytes(1000)])
        time.sleep(0.01)
    cache.get("points/m/0")
    for number in range(8, 12):
        cache.put(f"points/m/{number}", [bytes(1000)])

    assert sum(path.stat().st_size for path in files(folder)) <= 10_000
    cache.get("points/m/0")
    assert store.reads == 0, "it was used, so it stayed"
    cache.get("points/m/1")
    assert store.reads == 1


def test_what_is_larger_than_the_cache_is_not_kept(open_cache: Opening, folder: Path) -> None:
    cache = open_cache()
    cache.put("points/m/1", [bytes(20_000)])

    assert cache.get("points/m/1") == bytes(20_000)
    assert not folder.exists()


def test_a_folder_that_cannot_be_used_costs_only_speed(store: Counting, folder: Path) -> None:
    folder.write_text("a file")
    cache = CachedBackend(store, folder, limit=10_000)
    cache.put("points/m/1", [b"abc"])

    assert cache.get("points/m/1") == b"abc"
    assert store.reads == 1


def test_crashed_writers_leavings_are_removed(open_cache: Opening, folder: Path) -> None:
    folder.mkdir()
    stale = folder / ".tmp-stale"
    stale.write_bytes(b"half")
    os.utime(stale, (time.time() - 100_000,) * 2)
    open_cache().put("points/m/1", [b"abc"])

    assert not stale.exists()


def _read_and_write(store: Path, folder: Path, seed: int) -> None:
    cache = CachedBackend(LocalBackend(store), folder, limit=30_000)
    for round_ in range(150):
        number = (seed * 7 + round_ * 13) % 40
        assert cache.get(f"points/m/{number}") == bytes([number]) * 2000
        assert cache.get_range(f"points/m/{number}", 100, 50) == bytes([number]) * 50


def test_several_processes_share_it(store: Counting, folder: Path, tmp_path: Path) -> None:
    for number in range(40):
        store.put(f"points/m/{number}", [bytes([number]) * 2000])
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_read_and_write, args=(tmp_path / "store", folder, seed)) for seed in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    # Each may add a sixteenth of the limit before it looks what the others added.
    assert sum(path.stat().st_size for path in files(folder)) <= 30_000 * (1 + 3 / 16) + 3 * 2040
