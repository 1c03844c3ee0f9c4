"""Whatever a store, or a writer that has the keys, puts into a record: a typed error, and soon.

Sealed records are altered before they are sealed: authentication would hide what the parsers do. Packs and
their tables are in test_pack.py, index segments in test_index.py, key slots in test_keys.py, and the
protocols in tests/block/nbd, tests/storage/served and tests/mover.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hotspare.errors import HotspareError, RepositoryDamaged
from hotspare.repository import damaged, disk_map, record
from hotspare.repository.disk_map import DiskMap
from hotspare.repository.file_index import HEAD as INDEX_HEAD
from hotspare.repository.file_index import MAGIC as INDEX_MAGIC
from hotspare.repository.file_index import SEGMENT_HEAD, Head, IndexedRoot, SegmentPlace
from hotspare.repository.file_index_reader import FileIndex, decode_segment
from hotspare.repository.format import DISK_SIZE_MAX, HOLE, decode_config
from hotspare.repository.keys import Keyring, new_secrets
from hotspare.repository.keys.keychest import read_slots
from hotspare.repository.left_out import decode_ranges, encode_ranges, extra_name, left_out_of
from hotspare.repository.pack import nonce_at
from hotspare.repository.point import (
    PointDisk,
    PointExtra,
    PointState,
    RestorePoint,
    new_point_id,
    open_point,
    order_of_points,
    point_name,
)
from hotspare.repository.repository import Repository
from tests.memory_disk import MemoryDisk
from tests.repository.conftest import PASSPHRASE, StorePoint

KEYRING = Keyring("00" * 16, new_secrets())
NOW = datetime(2026, 11, 23, 2, 15, tzinfo=UTC)
POINT = RestorePoint(
    id="20261123-021500-aaaaa",
    machine_id="m",
    machine_name="web",
    platform="test:",
    started_at=NOW,
    finished_at=NOW,
    consistency="crash",
    disks=(PointDisk(name="vda", size=1, root=bytes(32), mode="full", token={"a": 1}),),
    state=(PointState(name="nvram", size=1, root=bytes(32)),),
    extras=(PointExtra(name="unused/vda", size=16, root=bytes(32)),),
    machine={"name": "web"},
)
CONFIG: dict[str, Any] = {
    "format": "hotspare-repository",
    "version": 1,
    "id": "0" * 32,
    "chunk_size": 1 << 18,
    "created": "2026-11-23T02:15:00+00:00",
    "features": {"read": ["delta"]},
}
DEEP = 200_000
SAID = st.none() | st.booleans() | st.integers(-(2**64), 2**65) | st.floats() | st.text(max_size=20)
JSON_LIKE = st.recursive(
    SAID, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def sealed(name: str, plain: bytes, magic: bytes, purpose: bytes) -> bytes:
    """Seal what no writer of ours would write."""
    seed = bytes(32)
    cipher = KEYRING.sealer(KEYRING.epoch, seed, purpose)
    context = KEYRING.repository_id + name.encode()
    head = record.HEAD.pack(magic, KEYRING.epoch, seed)
    return head + cipher.encrypt(nonce_at(record.HEAD.size), plain, context)


def open_plain(plain: bytes) -> RestorePoint:
    name = point_name(KEYRING, POINT)
    return open_point(KEYRING, name, sealed(name, plain, record.POINT.magic, record.POINT.purpose))


def altered(whole: bytes) -> st.SearchStrategy[bytes]:
    """Give what is left of bytes of which some were replaced and the end cut off."""

    def alter(changes: list[tuple[int, int]], end: int) -> bytes:
        data = bytearray(whole)
        for at, value in changes:
            data[at % len(data)] = value
        return bytes(data[: len(data) if end > len(data) else end])

    places = st.integers(0, len(whole) - 1)
    return st.builds(
        alter,
        st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4),
        st.just(len(whole) + 1) | st.integers(0, len(whole)),
    )


@contextmanager
def little_memory() -> Iterator[None]:
    """Whoever asks for a GiB more than there is now fails, so that nobody does in silence."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no path of ours
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@given(st.binary(max_size=300) | altered(msgspec.json.encode(CONFIG)))
@example(b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}")
@example(b'{"x":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}")
@example(b'{"format":"\xff"}')
@settings(max_examples=150, deadline=None)
def test_a_config_of_any_bytes(line: bytes) -> None:
    with suppress(HotspareError):
        decode_config(line, "there")


@given(st.sampled_from(sorted(CONFIG)) | st.sampled_from(["parity", "lock_seconds", "store"]), JSON_LIKE)
@settings(max_examples=150, deadline=None)
def test_a_config_with_any_value(field: str, value: object) -> None:
    with suppress(HotspareError):
        config = decode_config(msgspec.json.encode({**CONFIG, field: value}), "there")
        assert 1 << 16 <= config.chunk_size <= 1 << 23
        assert 0 <= config.parity <= 50


GOOD = msgspec.msgpack.encode(POINT)


def instead(part: bytes, other: bytes) -> bytes:
    """Give the good point with one part of it replaced."""
    assert GOOD.count(part) == 1
    return GOOD.replace(part, other)


@given(st.binary(max_size=300) | altered(GOOD))
@example(instead(b"\xa4name\xa3web", b"\xa4name" + b"\x91" * DEEP + b"\xc0"))
@example(instead(b"\xa4name\xa3web", b"\xa4name\xa3\xff\xff\xff"))
@example(instead(b"\xa5token\x81\xa1a\x01", b"\xa5token\xdf\xff\xff\xff\xff"))
@settings(max_examples=150, deadline=None)
def test_a_point_of_any_bytes(plain: bytes) -> None:
    with suppress(RepositoryDamaged), little_memory():
        point = open_plain(plain)
        assert sorted([point, POINT], key=order_of_points)
        assert all(0 < one.size <= DISK_SIZE_MAX and len(one.root) == 32 for one in point.contents)


@given(st.sampled_from(RestorePoint.__struct_fields__), JSON_LIKE)
@settings(max_examples=150, deadline=None)
def test_a_point_with_any_value(field: str, value: object) -> None:
    with suppress(RepositoryDamaged, OverflowError):  # of packing too large a number
        plain = msgspec.msgpack.encode({**msgspec.to_builtins(POINT, builtin_types=[bytes]), field: value})
        open_plain(plain)


@pytest.mark.parametrize(
    "broken",
    [
        msgspec.structs.replace(POINT, started_at=NOW.replace(tzinfo=None)),
        msgspec.structs.replace(POINT, finished_at=NOW.replace(tzinfo=None)),
        msgspec.structs.replace(POINT, disks=(msgspec.structs.replace(POINT.disks[0], root=b""),)),
        msgspec.structs.replace(POINT, disks=(msgspec.structs.replace(POINT.disks[0], size=1 << 60),)),
        msgspec.structs.replace(POINT, state=(msgspec.structs.replace(POINT.state[0], size=1 << 40),)),
    ],
    ids=["start without zone", "end without zone", "short root", "huge disk", "huge state"],
)
def test_a_point_that_would_trip_who_uses_it_is_damaged(broken: RestorePoint) -> None:
    assert open_plain(GOOD) == POINT
    with pytest.raises(RepositoryDamaged):
        open_plain(msgspec.msgpack.encode(broken))


@given(
    st.text(max_size=22)
    | st.builds("{:08}-{:06}-aaaaa".format, st.integers(0, 99991231), st.integers(0, 235959))
)
@example("99991231-235959-aaaaa")
@example("00010101-000000-aaaaa")
@settings(max_examples=150, deadline=None)
def test_no_id_of_an_earlier_point_hinders_the_next_one(after: str) -> None:
    made = new_point_id(NOW, after=after)
    assert made[:15] >= f"{NOW:%Y%m%d-%H%M%S}"
    assert len(made) == 21


def test_ids_follow_each_other_to_the_end_of_time() -> None:
    last = "99991231-235958-aaaaa"
    assert new_point_id(NOW, after=last)[:15] == "99991231-235959"
    assert new_point_id(NOW, after=POINT.id)[:15] == "20261123-021501"


def test_a_listing_and_a_backup_survive_a_point_of_the_last_second(
    repository: Repository, store_point: StorePoint
) -> None:
    good = store_point(repository, "web01", b"data" * 100)
    hostile = msgspec.structs.replace(good, id="99991231-235959-aaaaa", started_at=good.started_at)
    name = point_name(repository.keyring, hostile)
    repository.backend.put(name, [record.seal_record(repository.keyring, name, hostile, record.POINT)])
    naive = msgspec.structs.replace(good, id="20200101-000000-aaaaa", started_at=NOW.replace(tzinfo=None))
    name = point_name(repository.keyring, naive)
    repository.backend.put(name, [record.seal_record(repository.keyring, name, naive, record.POINT)])
    told = list[str]()
    listed = repository.points(lambda name, _error: told.append(name))
    assert [point.id for point in listed] == [good.id, hostile.id]
    assert told == [name]
    assert new_point_id(NOW, after=hostile.id)


@given(st.binary(max_size=200) | altered(msgspec.msgpack.encode({bytes(32): bytes(64)})))
@example(b"\x91" * DEEP)
@example(b"\x81\xa1a" + b"\x91" * DEEP + b"\xc0")
@example(b"\x81\xa1a\xa1\xff")
@example(b"\xdf\xff\xff\xff\xff")
@settings(max_examples=150, deadline=None)
def test_records_of_damage_and_notes_of_any_bytes(plain: bytes) -> None:
    data = sealed("damaged/x", plain, damaged.FORM.magic, damaged.FORM.purpose)
    with suppress(RepositoryDamaged), little_memory():
        damaged.open_damaged(KEYRING, "damaged/x", data)
    note = sealed("sessions/x", plain, record.NOTE.magic, record.NOTE.purpose)
    with suppress(RepositoryDamaged), little_memory():
        record.open_record(KEYRING, "sessions/x", note, dict[str, Any])


def test_a_key_slot_nested_without_end_shuts_nobody_out(repository: Repository) -> None:
    repository.backend.put("keys/" + "0" * 16 + "-" + "0" * 8, [b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}"])
    assert len(read_slots(repository.backend)) == 1
    assert Repository.open(repository.backend, PASSPHRASE)


@given(st.integers(1, 40), st.dictionaries(st.integers(0, 3), st.binary(max_size=200), max_size=4))
@settings(max_examples=150, deadline=None)
def test_map_pages_of_any_bytes(chunks: int, pages: dict[int, bytes]) -> None:
    """Pages that point to each other, are cut, or too long: every chunk has an id, or an error is raised."""

    def load(page_id: bytes) -> bytes:
        page = pages.get(page_id[0] % 4, bytes(page_id))
        return page * 2 if page_id[0] & 4 else page

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_map, "PAGE_IDS", 4)
        with suppress(RepositoryDamaged):
            found = DiskMap(load, b"\1" * 32, chunks)
            assert all(len(found[chunk]) == 32 for chunk in range(chunks))
            assert sum(count for _, count, _ in found.runs(0, chunks)) == chunks


def test_map_pages_that_list_themselves() -> None:
    page = b"\1" * 32 * 2048
    found = DiskMap(lambda _id: page, b"\1" * 32, 2048 * 2048)
    assert found[2048 * 2048 - 1] == b"\1" * 32
    with pytest.raises(RepositoryDamaged):
        DiskMap(lambda _id: page, b"\1" * 32, 2048 * 2048 + 1)


@given(st.data(), st.integers(1, DISK_SIZE_MAX) | st.sampled_from([1 << 22, DISK_SIZE_MAX]))
@settings(max_examples=150, deadline=None)
def test_lists_of_what_was_left_out_of_any_bytes(data: st.DataObject, size: int) -> None:
    steps = data.draw(
        st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 1 << 21) | st.just(size), max_size=40)
    )
    content = b"".join(step.to_bytes(8, "little") for step in steps)
    content += data.draw(st.just(b"") | st.binary(max_size=20))
    try:
        ranges = decode_ranges(content, size)
    except RepositoryDamaged:
        return
    edges = ranges.bounds.reshape(-1).tolist()
    assert edges == sorted(set(edges))
    assert not edges or (edges[0] >= 0 and edges[-1] <= size)
    assert encode_ranges(ranges) == content


def test_sums_that_come_round_to_where_they_should_be_are_refused() -> None:
    step = DISK_SIZE_MAX.to_bytes(8, "little")
    with pytest.raises(RepositoryDamaged):
        decode_ranges(step * 258, DISK_SIZE_MAX)


def test_a_list_of_petabytes_is_not_made_room_for(repository: Repository) -> None:
    disk = POINT.disks[0]
    extra = PointExtra(name=extra_name(disk.name), size=1 << 50, root=HOLE)
    with pytest.raises(RepositoryDamaged), little_memory():
        left_out_of(repository, msgspec.structs.replace(POINT, extras=(extra,)), disk)


def file_index(head: bytes, body: bytes = bytes(4096)) -> FileIndex:
    content = INDEX_HEAD.pack(INDEX_MAGIC, len(head)) + head + body
    return FileIndex(cast("Any", MemoryDisk(bytearray(content))), 1 << 16)


INDEX_TABLE = msgspec.msgpack.encode(Head((IndexedRoot("/", "ext4", None),), (SegmentPlace(0, 64, 2048),)))


@given(st.binary(max_size=100) | altered(INDEX_TABLE))
@example(b"\x91" * DEEP)
@example(b"\x92\xdd\xff\xff\xff\xff")
@example(b"\x92\x91\x93\xa1\xff\xa0\xc0\x90")
@settings(max_examples=150, deadline=None)
def test_tables_of_file_names_of_any_bytes(head: bytes) -> None:
    with suppress(RepositoryDamaged), little_memory():
        index = file_index(head)
        assert len(index.roots) >= 0


def test_segments_of_file_names_that_all_lie_in_one_place_are_refused() -> None:
    """Each would be read, and there may be millions."""
    places = (SegmentPlace(0, 0, 4096),) * 3
    with pytest.raises(RepositoryDamaged, match="overlap"):
        file_index(msgspec.msgpack.encode(Head((IndexedRoot("/", "ext4", None),), places)))


@given(
    st.binary(max_size=200),
    st.tuples(*[st.integers(0, 3) | st.integers(0, 2**32 - 1)] * 4),
    st.binary(max_size=200),
)
@settings(max_examples=150, deadline=None)
def test_segments_of_file_names_of_any_bytes(junk: bytes, head: tuple[int, ...], body: bytes) -> None:
    for data in (junk, SEGMENT_HEAD.pack(*head) + body):
        with suppress(RepositoryDamaged), little_memory():
            segment = decode_segment(data)
            assert all(segment.row(number).kind for number in range(len(segment)))


def test_a_chunk_of_another_length_than_its_place_is_damage(
    repository: Repository, store_point: StorePoint
) -> None:
    point = store_point(repository, "web01", b"data" * 1000)
    disk = msgspec.structs.replace(point.disks[0], size=4100)
    with pytest.raises(RepositoryDamaged, match="another length"):
        repository.disk(disk).read_into(0, memoryview(bytearray(4100)))
