"""The index against a plain dictionary, in memory and from files."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.errors import ObjectNotFound, RepositoryDamaged
from hotspare.repository.codec import DELTA, ZSTD
from hotspare.repository.index import ChunkIndex, PackRecord, Segment, cache
from hotspare.repository.index import filter as id_filter
from hotspare.repository.index.cache import SegmentSource
from hotspare.repository.index.merge import FAN_IN, merge_piled_up, merged_segment
from hotspare.repository.index.table import Table
from hotspare.repository.keys import Keyring, new_secrets
from hotspare.repository.pack import Entry
from hotspare.storage.local import LocalBackend
from tests.watched_backend import WatchedBackend

RID = "00" * 16


@pytest.fixture(scope="module")
def keyring() -> Keyring:
    return Keyring(RID, new_secrets())


def chunk_id(number: int) -> bytes:
    return random.Random(number).randbytes(32)


def record(number: int) -> PackRecord:
    return PackRecord("data", number.to_bytes(32, "big"), 1000 + number, 1, bytes(32))


def entry(number: int, offset: int, base: int | None = None) -> Entry:
    if base is None:
        return Entry(chunk_id(number), offset, 100 + number % 50, ZSTD)
    return Entry(chunk_id(number), offset, 50 + number % 50, DELTA, chunk_id(base))


Model = list[tuple[PackRecord, Entry]]


def segment_of(model: Model) -> Segment:
    packs = list(dict.fromkeys(pack for pack, _ in model))
    return Segment.of(packs, [(packs.index(pack), one) for pack, one in model])


def best(model: Model, number: int) -> Model:
    """Give the rows that may be found for a chunk: those that are no deltas, where there are any."""
    rows = [(pack, one) for pack, one in model if one.id == chunk_id(number)]
    return [row for row in rows if not row[1].base] or rows


def can_be_read(model: Model, row: tuple[PackRecord, Entry]) -> bool:
    """Tell whether a row is no delta, or its base is there and is none."""
    base = row[1].base
    return not base or any(one.id == base and not one.base for _, one in model)


@st.composite
def models(draw: st.DrawFn) -> list[Model]:
    rows = st.tuples(st.integers(0, 30), st.integers(0, 5), st.one_of(st.none(), st.integers(0, 30)))
    segments = draw(st.lists(st.lists(rows, min_size=1, max_size=15), max_size=12))
    offset = 0
    made = []
    for rows_of in segments:
        model: Model = []
        for number, pack, base in rows_of:
            offset += 1000
            model.append((record(pack), entry(number, offset, base)))
        made.append(model)
    return made


def check_against(index: ChunkIndex, model: Model) -> None:
    ids = b"".join(chunk_id(number) for number in range(40))
    positions = index.positions(ids)
    packs = np.full(40, -1)
    packs[positions >= 0] = index.pack_numbers(positions[positions >= 0])
    lengths = index.lengths(positions)
    bases = index.bases(positions)
    for number in range(40):
        allowed = best(model, number)
        found = index.find(chunk_id(number))
        if not allowed:
            assert found is None
            assert positions[number] == -1
            continue
        assert tuple(found or ()) in allowed
        readable = [row for row in allowed if can_be_read(model, row)]
        if positions[number] < 0:
            assert len(readable) < len(allowed)
            continue
        at_position = [
            (pack, one)
            for pack, one in readable
            if pack == index.packs[packs[number]] and one.length == lengths[number]
        ]
        assert at_position
        wanted = {int(index.positions(one.base)[0]) if one.base else -1 for _, one in at_position}
        assert bases[number] in wanted


@settings(max_examples=150, deadline=None)
@given(models())
def test_an_index_finds_what_a_dictionary_would(segments: list[Model]) -> None:
    index = ChunkIndex()
    for model in segments:
        index.load([segment_of(model)])
    everything = [row for model in segments for row in model]
    check_against(index, everything)
    merged = ChunkIndex()
    tables = [Table.of(segment_of(model)) for model in segments]
    if tables:
        merged.load([merged_segment(tables, ())])
    check_against(merged, everything)
    assert len(merged) == len(everything)


@settings(max_examples=50, deadline=None)
@given(models())
def test_a_segment_is_what_was_sealed(segments: list[Model]) -> None:
    keyring = Keyring(RID, new_secrets())
    for model in segments:
        segment = segment_of(model)
        name, data = segment.seal(keyring)
        again = Segment.open(keyring, name, data)
        assert again.packs == segment.packs
        assert again.rows.tobytes() == segment.rows.tobytes()
        assert again.bases.tobytes() == segment.bases.tobytes()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_broken_body_of_a_segment_is_refused(data: st.DataObject) -> None:
    """What authentication would let through only if a writer is at fault."""
    body = data.draw(st.one_of(st.binary(max_size=300), _altered_bodies()))
    keyring = Keyring(RID, new_secrets())
    cipher = keyring.sealer(1, bytes(32), b"index")
    head = b"HSINDX\x00\x01" + (1).to_bytes(4, "big") + bytes(32)
    context = keyring.repository_id + b"index segment"
    sealed = cipher.encrypt((44).to_bytes(12, "big"), body, context)
    try:
        segment = Segment.open(keyring, "index/x", head + sealed)
    except RepositoryDamaged:
        return
    index = ChunkIndex()
    index.load([segment])
    index.bases(np.arange(len(index)))
    index.pack_numbers(np.arange(len(index)))


@st.composite
def _altered_bodies(draw: st.DrawFn) -> bytes:
    keyring = Keyring(RID, new_secrets())
    segment = segment_of([(record(1), entry(1, 100)), (record(2), entry(2, 100, base=1))])
    _, data = segment.seal(keyring)
    cipher = keyring.sealer(1, data[12:44], b"index")
    body = bytearray(
        cipher.decrypt((44).to_bytes(12, "big"), data[44:], keyring.repository_id + b"index segment")
    )
    for _ in range(draw(st.integers(1, 3))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body)


def test_the_filter_misses_nothing_and_lets_little_through() -> None:
    source = np.random.default_rng(1)
    keys = source.integers(0, 1 << 64, 100_000, dtype=np.uint64)
    others = source.integers(0, 1 << 64, 100_000, dtype=np.uint64)
    words = id_filter.build(keys)

    assert id_filter.may_have(words, keys).all()
    assert all(id_filter.may_have_one(words, int(key)) for key in keys[:1000])
    assert id_filter.may_have(words, others).mean() < 0.02
    wrong = [id_filter.may_have_one(words, int(key)) for key in others[:2000]]
    assert wrong == id_filter.may_have(words, others[:2000]).tolist()


def publish(backend: LocalBackend | WatchedBackend, keyring: Keyring, numbers: range) -> str:
    model = [(record(number % 3), entry(number, number * 1000)) for number in numbers]
    name, data = segment_of(model).seal(keyring)
    backend.put(name, [data])
    return name


def found(tables: dict[str, Table], numbers: range) -> bool:
    index = ChunkIndex()
    index.load_tables(list(tables.values()))
    return all(index.find(chunk_id(number)) is not None for number in numbers)


def test_the_index_is_read_from_the_store_once(
    backend: LocalBackend, keyring: Keyring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(backend, keyring, range(50))
    publish(backend, keyring, range(50, 80))
    assert found(SegmentSource(backend, keyring, tmp_path / "cache").tables(), range(80))

    files = list((tmp_path / "cache").glob("*/*"))
    assert len(files) == 2
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    monkeypatch.setattr(backend, "get", lambda name: pytest.fail(f"{name} was read again"))
    assert found(SegmentSource(backend, keyring, tmp_path / "cache").tables(), range(80))


def test_a_file_of_a_segment_that_is_gone_goes_too(
    backend: LocalBackend, keyring: Keyring, tmp_path: Path
) -> None:
    name = publish(backend, keyring, range(50))
    SegmentSource(backend, keyring, tmp_path / "cache").tables()
    backend.delete(name)

    assert SegmentSource(backend, keyring, tmp_path / "cache").tables() == {}
    assert not list((tmp_path / "cache").glob("*/*"))


@pytest.mark.parametrize("damage", ["empty", "cut", "head", "longer"])
def test_a_broken_file_is_made_again(
    backend: LocalBackend, keyring: Keyring, tmp_path: Path, damage: str
) -> None:
    publish(backend, keyring, range(50))
    SegmentSource(backend, keyring, tmp_path / "cache").tables()
    (path,) = (tmp_path / "cache").glob("*/*")
    whole = path.read_bytes()
    broken = {"empty": b"", "cut": whole[:-7], "head": b"x" + whole[1:], "longer": whole + b"12345678"}
    path.write_bytes(broken[damage])

    assert found(SegmentSource(backend, keyring, tmp_path / "cache").tables(), range(50))
    assert path.read_bytes() == whole


@pytest.mark.parametrize("check_all", [False, True])
def test_a_flipped_bit_in_a_file_does_no_harm(
    backend: LocalBackend, keyring: Keyring, tmp_path: Path, check_all: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would lead to wrong places, which a collector of garbage or a merge would publish."""
    if check_all:
        monkeypatch.setattr(cache, "_ALWAYS_CHECKED", 0)
    publish(backend, keyring, range(50))
    SegmentSource(backend, keyring, tmp_path / "cache").tables()
    (path,) = (tmp_path / "cache").glob("*/*")
    whole = path.read_bytes()
    for place in range(0, len(whole), 31):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        SegmentSource(backend, keyring, tmp_path / "cache", check_all=check_all).tables()
        assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_keeps_nobody_from_the_index(
    backend: LocalBackend, keyring: Keyring, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file is in the way")
    publish(backend, keyring, range(50))

    assert found(SegmentSource(backend, keyring, tmp_path / "cache").tables(), range(50))


def test_many_segments_become_one(backend: LocalBackend, keyring: Keyring) -> None:
    for at in range(FAN_IN):
        publish(backend, keyring, range(at * 10, at * 10 + 15))
    before = SegmentSource(backend, keyring, None).tables()
    (merged,) = merge_piled_up(backend, keyring, before, rows_max=1000)
    after = SegmentSource(backend, keyring, None).tables()

    assert list(after) == [merged]
    assert found(after, range(FAN_IN * 10 + 5))
    assert len(list(backend.list("index/"))) == FAN_IN + 1, "removing is left to prune"
    for name in before:
        backend.delete(name)
    assert found(SegmentSource(backend, keyring, None).tables(), range(FAN_IN * 10 + 5))


def test_few_or_large_segments_stay(backend: LocalBackend, keyring: Keyring) -> None:
    for at in range(FAN_IN - 1):
        publish(backend, keyring, range(at * 10, at * 10 + 10))
    assert merge_piled_up(backend, keyring, SegmentSource(backend, keyring, None).tables(), 1000) == []
    publish(backend, keyring, range(200, 210))
    assert merge_piled_up(backend, keyring, SegmentSource(backend, keyring, None).tables(), 70) == []


def test_a_damaged_segment_that_is_replaced_hurts_nobody(backend: LocalBackend, keyring: Keyring) -> None:
    names = [publish(backend, keyring, range(at, at + 5)) for at in range(FAN_IN)]
    merge_piled_up(backend, keyring, SegmentSource(backend, keyring, None).tables(), 1000)
    backend.put(names[0], [b"junk"])
    assert found(SegmentSource(backend, keyring, None).tables(), range(10))
    other = publish(backend, keyring, range(100, 110))
    backend.put(other, [b"junk"])
    with pytest.raises(RepositoryDamaged, match=other):
        SegmentSource(backend, keyring, None).tables()


class VanishingBackend(WatchedBackend):
    """Merges and prunes the index between the listing and the reading of a segment, once."""

    def __init__(self, inner: LocalBackend, keyring: Keyring) -> None:
        super().__init__(inner)
        self.local = inner
        self.keyring: Keyring | None = keyring

    def get(self, name: str) -> bytes:
        keyring, self.keyring = self.keyring, None
        if keyring is not None:
            old = SegmentSource(self.local, keyring, None).tables()
            merge_piled_up(self.local, keyring, old, 1000)
            for one in old:
                self.local.delete(one)
        return self.local.get(name)


def test_a_segment_that_goes_while_the_index_is_loaded(backend: LocalBackend, keyring: Keyring) -> None:
    for at in range(FAN_IN):
        publish(backend, keyring, range(at, at + 5))
    assert found(SegmentSource(VanishingBackend(backend, keyring), keyring, None).tables(), range(10))


def test_a_segment_that_is_listed_and_never_there_is_an_error(
    backend: LocalBackend, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = publish(backend, keyring, range(5))

    def refuse(_name: str) -> bytes:
        raise ObjectNotFound(f"{name} is not there")

    monkeypatch.setattr(backend, "get", refuse)
    with pytest.raises(ObjectNotFound):
        SegmentSource(backend, keyring, None).tables()
