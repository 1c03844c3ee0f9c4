"""The index of file names: what was put in comes out, unchanged parts cost nothing, damage is noticed."""

import random
from functools import cached_property

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.errors import RepositoryDamaged
from hotspare.repository.file_index import FileIndexBuilder, IndexedName, IndexedRoot
from hotspare.repository.file_index_reader import FileIndex, decode_segment
from tests.memory_disk import MemoryDisk

ALIGN = 64 * 1024
ROOT = IndexedRoot("/", "ext4", None)


class Disk(MemoryDisk):
    """What a repository's disk is to an index."""

    @cached_property
    def map(self) -> dict[int, bytes]:
        return {at // ALIGN: bytes(self.data[at : at + ALIGN]) for at in range(0, self.size, ALIGN)}


def opened(content: bytes) -> FileIndex:
    return FileIndex(Disk(bytearray(content)), ALIGN)  # type: ignore[arg-type]


def rows_of(content: bytes) -> list[IndexedName]:
    index = opened(content)
    segments = [source.read() for _, _, source in index.segments()]
    return [segment.row(number) for segment in segments for number in range(len(segment))]


def index_of(rows: list[IndexedName]) -> bytes:
    builder = FileIndexBuilder(ALIGN)
    for row in rows:
        builder.add(row)
    builder.end_root(ROOT)
    return builder.finish()


def many(count: int, seed: int = 1) -> list[IndexedName]:
    source = random.Random(seed)
    return [
        IndexedName(
            f"/srv/{number // 50:06}",
            f"{number % 50:03}-{source.randrange(10**6)}.conf",
            "file",
            source.randrange(10**9),
            source.randrange(-(10**18), 2 * 10**18),
            0o644,
            source.randrange(2**32 - 1),
            0,
            source.randrange(2**64),
        )
        for number in range(count)
    ]


NAMES = st.binary(min_size=1, max_size=20).map(
    lambda name: name.replace(b"\0", b"0").decode("utf-8", "surrogateescape")
)
ROWS = st.builds(
    IndexedName,
    folder=NAMES.map(lambda name: "/" + name),
    name=NAMES,
    kind=st.sampled_from(["file", "folder", "link", "socket"]),
    size=st.integers(0, 2**63),
    modified=st.integers(-(2**63), 2**63 - 1),
    mode=st.none() | st.integers(0, 0o7777),
    uid=st.none() | st.integers(0, 2**32 - 2),
    gid=st.none() | st.integers(0, 2**32 - 2),
    inode=st.integers(0, 2**64 - 1),
)


@given(rows=st.lists(ROWS, max_size=8))
@settings(max_examples=50, deadline=None)
def test_what_was_put_in_comes_out(rows: list[IndexedName]) -> None:
    assert rows_of(index_of(rows)) == rows


def test_many_names_and_volumes() -> None:
    rows = many(20_000)
    builder = FileIndexBuilder(ALIGN)
    for row in rows:
        builder.add(row)
    builder.end_root(ROOT)
    builder.end_root(IndexedRoot("vdb:/", "xfs", "its log has to be replayed"))
    for row in rows[:10]:
        builder.add(row)
    builder.end_root(IndexedRoot("vdc:/\udcff", "ntfs", None))
    content = builder.finish()
    assert rows_of(content) == [*rows, *rows[:10]]
    index = opened(content)
    assert [root.path for root in index.roots] == ["/", "vdb:/", "vdc:/?"]
    assert {number for number, _, _ in index.segments()} == {0, 2}


def test_a_root_that_fails_is_not_in_it() -> None:
    builder = FileIndexBuilder(ALIGN)
    for row in many(5000):
        builder.add(row)
    builder.drop_root()
    for row in many(3):
        builder.add(row)
    builder.end_root(ROOT)
    assert rows_of(builder.finish()) == many(3)


def test_what_did_not_change_is_stored_once() -> None:
    rows = many(60_000)
    changed = [*rows[:30_000], *many(3, seed=2), *rows[30_000:]]
    before, after = (
        {content[at : at + ALIGN] for at in range(0, len(content), ALIGN)}
        for content in (index_of(rows), index_of(changed))
    )
    assert len(after - before) < len(after) / 4


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_damage_is_noticed_or_harmless(data: st.DataObject) -> None:
    content = bytearray(index_of(many(30)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 300) | st.integers(ALIGN, ALIGN + 1000))
        content[at % len(content)] = data.draw(st.integers(0, 255))
    try:
        for row in rows_of(bytes(content)):
            assert row.kind
    except RepositoryDamaged:
        pass


@pytest.mark.parametrize("size", [0, 1, 11, 12, 100])
def test_what_is_too_short_is_noticed(size: int) -> None:
    with pytest.raises(RepositoryDamaged):
        opened(index_of(many(30))[:size])
    with pytest.raises(RepositoryDamaged):
        decode_segment(bytes(size) + b"\1")
