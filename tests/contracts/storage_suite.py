"""What every object store must do: a store's test class inherits ``StorageSuite`` and gives ``backend``."""

import threading
from itertools import pairwise

import pytest

from hotspare.errors import ObjectNotFound, StorageError
from hotspare.storage.backend import Backend


class StorageSuite:
    def test_gives_back_what_was_put(self, backend: Backend) -> None:
        backend.put("data/aa/one", [b"first ", memoryview(b"second"), bytearray(b" third")])

        assert backend.get("data/aa/one") == b"first second third"
        assert backend.size("data/aa/one") == 18

    def test_keeps_an_empty_object(self, backend: Backend) -> None:
        backend.put("empty", [])

        assert backend.get("empty") == b""
        assert backend.size("empty") == 0

    def test_keeps_a_large_object(self, backend: Backend) -> None:
        large = bytes(range(256)) * (40 * 4096)
        backend.put("data/bb/large", [large])

        assert backend.get("data/bb/large") == large
        assert backend.get_range("data/bb/large", 41_000_003, 300) == large[41_000_003:41_000_303]

    def test_replaces_in_one_step(self, backend: Backend) -> None:
        backend.put("config", [b"old and longer"])
        backend.put("config", [b"new"])

        assert backend.get("config") == b"new"
        assert [item.name for item in backend.list("")] == ["config"]

    def test_names_what_is_missing(self, backend: Backend) -> None:
        with pytest.raises(ObjectNotFound):
            backend.get("data/none")
        with pytest.raises(ObjectNotFound):
            backend.get_range("data/none", 0, 1)
        with pytest.raises(ObjectNotFound):
            backend.size("data/none")

    def test_refuses_a_range_past_the_end(self, backend: Backend) -> None:
        backend.put("short", [b"12345"])

        with pytest.raises(StorageError):
            backend.get_range("short", 3, 5)

    def test_gives_an_empty_range(self, backend: Backend) -> None:
        backend.put("short", [b"12345"])

        assert backend.get_range("short", 0, 0) == b""
        assert backend.get_range("short", 5, 0) == b""

    def test_takes_any_buffer(self, backend: Backend) -> None:
        words = memoryview(bytearray(b"abcdefgh")).cast("I")
        backend.put("points/m/words", [words, memoryview(b"..12..")[2:4]])

        assert backend.get("points/m/words") == b"abcdefgh12"

    def test_keeps_names_with_every_allowed_letter(self, backend: Backend) -> None:
        name = "points/abcdefghijklmnopqrstuvwxyz-_.0123456789/v1.2_x-y"
        backend.put(name, [b"x"])

        assert [item.name for item in backend.list("points/")] == [name]
        assert backend.get(name) == b"x"

    def test_says_what_survival_rests_on(self, backend: Backend) -> None:
        assert backend.durability in {"fsync", "best-effort", "store"}

    def test_puts_new_objects_only_if_it_says_so(self, backend: Backend) -> None:
        puts = backend.capabilities.conditional_puts
        if puts:
            assert puts.put_new("once", [b"first"])
            assert not puts.put_new("once", [b"second"])
            assert backend.get("once") == b"first"

    def test_closes_twice(self, backend: Backend) -> None:
        backend.put("config", [b"x"])
        backend.close()
        backend.close()

        assert backend.get("config") == b"x", "a later call connects anew"
        backend.close()

    def test_lists_by_prefix_in_order_of_names(self, backend: Backend) -> None:
        names = ["points/b/2", "points/a/1", "points/a-b", "points/a.b/1", "pointsx", "data/ff/00", "config"]
        for name in names:
            backend.put(name, [name.encode()])

        assert [item.name for item in backend.list("")] == sorted(names)
        assert [item.name for item in backend.list("points/")] == sorted(
            name for name in names if name.startswith("points/")
        )
        assert [item.name for item in backend.list("points/a")] == [
            "points/a-b",
            "points/a.b/1",
            "points/a/1",
        ]
        assert [item.size for item in backend.list("config")] == [6]
        assert list(backend.list("nothing/here")) == []

    def test_deletes_and_forgives_what_is_gone(self, backend: Backend) -> None:
        backend.put("data/cc/x", [b"x"])
        backend.delete("data/cc/x")
        backend.delete("data/cc/x")

        assert list(backend.list("data/")) == []
        with pytest.raises(ObjectNotFound):
            backend.get("data/cc/x")

    def test_tells_how_full_it_is_or_that_it_does_not(self, backend: Backend) -> None:
        backend.put("data/dd/x", [b"x"])
        ask = backend.capabilities.space
        space = ask() if ask else None
        assert space is None or 0 <= space.free <= space.total

    def test_serves_several_threads(self, backend: Backend) -> None:
        failures = []

        def work(number: int) -> None:
            for round_ in range(10):
                name = f"data/{number:02x}/{round_}"
                backend.put(name, [bytes([number]) * 10_000])
                if backend.get(name) != bytes([number]) * 10_000:
                    failures.append(name)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert failures == []
        names = [item.name for item in backend.list("data/")]
        assert len(names) == 60
        assert all(before < after for before, after in pairwise(names))
