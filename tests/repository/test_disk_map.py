"""Maps against a plain list of ids."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.errors import RepositoryDamaged
from hotspare.repository import disk_map
from hotspare.repository.disk_map import DiskMap, DiskMapBuilder
from hotspare.repository.format import HOLE


class PageStore:
    def __init__(self) -> None:
        self.pages: dict[bytes, bytes] = {}

    def store(self, page: bytes, _parent_id: bytes) -> bytes:
        page_id = (len(self.pages) + 1).to_bytes(32, "little")
        for known, content in self.pages.items():
            if content == page:
                return known
        self.pages[page_id] = page
        return page_id

    def load(self, page_id: bytes) -> bytes:
        return self.pages[page_id]


def chunk_id(number: int) -> bytes:
    return number.to_bytes(32, "big")


Change = tuple[int, int, int]


@st.composite
def disks(draw: st.DrawFn) -> tuple[int, list[list[Change]]]:
    """A number of chunks, and generations of changes (first, count, id; id 0 is a hole) in rising order."""
    chunks = draw(st.integers(1, 300))
    generations = []
    for _ in range(draw(st.integers(1, 4))):
        at = 0
        changes: list[Change] = []
        while at < chunks and len(changes) < 20:
            first = draw(st.integers(at, min(chunks - 1, at + 80)))
            count = draw(st.integers(1, min(60, chunks - first)))
            changes.append((first, count, draw(st.integers(0, 6))))
            at = first + count
        generations.append(changes)
    return chunks, generations


@settings(max_examples=200, deadline=None)
@given(disks())
def test_a_map_is_what_a_list_would_be(given_disks: tuple[int, list[list[Change]]]) -> None:
    chunks, generations = given_disks
    store = PageStore()
    model = [HOLE] * chunks
    root = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_map, "PAGE_IDS", 4)  # small pages: deep trees from short lists
        patch.setattr(disk_map, "PAGE_SIZE", 4 * 32)
        for changes in generations:
            parent = DiskMap(store.load, root, chunks) if root is not None else None
            builder = DiskMapBuilder(store.store, chunks, parent)
            for first, count, number in changes:
                if number == 0:
                    builder.set_holes(first, count)
                else:
                    for chunk in range(first, first + count):
                        builder.set(chunk, chunk_id(number * 1000 + chunk))
                for chunk in range(first, first + count):
                    model[chunk] = chunk_id(number * 1000 + chunk) if number else HOLE
            root = builder.finish()
            found = DiskMap(store.load, root, chunks)
            assert [found[chunk] for chunk in range(chunks)] == model
            runs = list(found.runs(0, chunks))
            assert sum(count for _, count, _ in runs) == chunks
            for first, count, hole in runs:
                assert all((model[chunk] == HOLE) == hole for chunk in range(first, first + count))


def test_an_increment_stores_only_the_pages_that_it_touches() -> None:
    store = PageStore()
    chunks = 2048 * 50
    builder = DiskMapBuilder(store.store, chunks)
    for chunk in range(chunks):
        builder.set(chunk, chunk_id(chunk + 1))
    root = builder.finish()
    before = len(store.pages)
    builder = DiskMapBuilder(store.store, chunks, DiskMap(store.load, root, chunks))
    builder.set(5000, chunk_id(1))
    assert builder.finish() != root
    assert before == 51
    assert len(store.pages) - before == 2


def test_an_unchanged_disk_keeps_its_root() -> None:
    store = PageStore()
    builder = DiskMapBuilder(store.store, 10)
    builder.set(3, chunk_id(1))
    root = builder.finish()

    assert DiskMapBuilder(store.store, 10, DiskMap(store.load, root, 10)).finish() == root


def test_chunks_must_come_in_rising_order() -> None:
    builder = DiskMapBuilder(PageStore().store, 5000)
    builder.set(4000, chunk_id(1))
    with pytest.raises(ValueError, match="rising"):
        builder.set(3, chunk_id(1))


def test_a_page_of_the_wrong_length_is_damage() -> None:
    with pytest.raises(RepositoryDamaged, match="64 bytes where 320"):
        DiskMap(lambda _: bytes(64), chunk_id(1), 10).leaf(0)
