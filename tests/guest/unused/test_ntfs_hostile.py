"""Whatever bytes an NTFS holds, its map is typed, quick, and never larger than it was."""

import struct
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hotspare.block.ranges import Ranges
from hotspare.guest.unused.ntfs.crosscheck import _all_owned
from hotspare.guest.unused.ntfs.map import ntfs_unused
from hotspare.guest.unused.ntfs.record import DATA, HOLE, Attribute, decode_runs
from hotspare.guest.unused.unused import KeepAll, Quiet
from hotspare.units import KIB, MIB
from tests.guest.unused.ntfs_images import (
    HIDDEN_SYSTEM,
    LOG_FILE,
    Disk,
    make_ntfs,
    ntfs_mounted,
    populate,
    restart_page,
    set_attributes,
    with_log,
)
from tests.guest.unused.patched import Patched, check_sane

SLOW = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)


class Victim:
    """An image with what lies where in it, found once."""

    def __init__(self, image: Path) -> None:
        self.disk = Disk.of(image)
        table = self.disk.table
        size = table.layout.record
        self.records = [self.disk.record_at(number) for number in range(table.data.size // size)]
        self.attributes: list[list[int]] = []
        for places in self.records:
            octets = self.disk.read(places[0], size)
            at = struct.unpack_from("<H", octets, 0x14)[0] if octets[:4] == b"FILE" else size
            while at < size - 8 and octets[at : at + 4] != b"\xff" * 4:
                self.attributes.append([place + at for place in places])
                at += struct.unpack_from("<I", octets, at + 4)[0]
        self.log = self.disk.stream_at(LOG_FILE)
        self.folder = self.disk.stream_at(5, 0xA0, "$I30")
        unused = ntfs_unused(self.disk, Quiet.OFFLINE)
        assert len(unused.free)
        assert len(unused.scratch)
        self.unused = unused.free | unused.scratch


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    image = tmp_path_factory.mktemp("victim") / "image"
    make_ntfs(image, 10 * MIB)
    with ntfs_mounted(image) as root:
        populate(root, small=40)
        (root / "System Volume Information").mkdir()
        (root / "System Volume Information" / "tracking.log").write_bytes(b"x")
        for name in ("pagefile.sys", "hiberfil.sys"):
            (root / name).write_bytes(bytes(300 * KIB))
            set_attributes(root / name, HIDDEN_SYSTEM)
    return Victim(image)


def outcome(reader: Patched, before: Ranges, quiet: Quiet = Quiet.OFFLINE) -> None:
    """Fail unless the map is none, or no larger than before, as no file has given anything back."""
    begun = time.process_time()
    try:
        unused = ntfs_unused(reader, quiet)
    except KeepAll:
        pass
    else:
        check_sane(unused, reader.size)
        assert not len((unused.free | unused.scratch) - before)
    assert time.process_time() - begun < 5
    assert reader.bytes_read < 8 * reader.size


numbers = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from([b"\0", b"\xff", b"\x7f", b"\x80"]).flatmap(
        lambda octet: st.sampled_from([octet * count for count in (1, 2, 4, 8)])
    ),
    st.integers(0, 100).map(lambda number: number.to_bytes(4, "little")),
)


@given(at=st.integers(0x0B, 0x50), octets=numbers)
@SLOW
def test_boot_sectors(victim: Victim, at: int, octets: bytes) -> None:
    outcome(victim.disk.with_patches({at: octets}), victim.unused)


@given(data=st.data(), changes=st.lists(st.tuples(st.integers(0, 47), numbers), min_size=1, max_size=3))
@SLOW
def test_heads_of_records(victim: Victim, data: st.DataObject, changes: list[tuple[int, bytes]]) -> None:
    places = data.draw(st.sampled_from(victim.records))
    outcome(
        victim.disk.with_patches({place + at: octets for place in places for at, octets in changes}),
        victim.unused,
    )


@given(data=st.data(), changes=st.lists(st.tuples(st.integers(0, 96), numbers), min_size=1, max_size=3))
@SLOW
def test_attributes(victim: Victim, data: st.DataObject, changes: list[tuple[int, bytes]]) -> None:
    """Of all files, and of the copies of those that have copies: run lists, sizes, names, flags."""
    places = data.draw(st.sampled_from(victim.attributes))
    outcome(
        victim.disk.with_patches({place + at: octets for place in places for at, octets in changes}),
        victim.unused,
    )


@given(changes=st.lists(st.tuples(st.integers(0, 4095), numbers), min_size=1, max_size=4))
@SLOW
def test_directories(victim: Victim, changes: list[tuple[int, bytes]]) -> None:
    outcome(victim.disk.with_patches({victim.folder + at: octets for at, octets in changes}), victim.unused)


@given(
    changes=st.lists(st.tuples(st.integers(0, 100), numbers), min_size=1, max_size=3),
    second=st.booleans(),
    quiet=st.sampled_from(Quiet),
)
@SLOW
def test_logs(victim: Victim, changes: list[tuple[int, bytes]], second: bool, quiet: Quiet) -> None:
    pages = with_log(victim.disk, restart_page(1, clean=True))
    start = victim.log + 4096 * second
    outcome(
        victim.disk.with_patches(pages | {start + at: octets for at, octets in changes}), victim.unused, quiet
    )


def encoded(runs: Iterable[tuple[int, int]]) -> bytes:
    """Encode a run list, as a test of decoding it."""
    found, place = b"", 0
    for first, length in runs:
        size = (length.bit_length() + 8) // 8
        step = b""
        if first != HOLE:
            step = (first - place).to_bytes(((first - place).bit_length() + 8) // 8, "little", signed=True)
            place = first
        found += bytes([len(step) << 4 | size]) + length.to_bytes(size, "little") + step
    return found + b"\0"


def part(pairs: bytes, count: int) -> Attribute:
    return Attribute(DATA, "", 0, 0, None, first=0, last=count - 1, pairs=pairs)


@given(
    runs=st.lists(
        st.tuples(st.one_of(st.just(HOLE), st.integers(0, 2**40)), st.integers(1, 2**33)),
        min_size=1,
        max_size=40,
    )
)
def test_run_lists_are_decoded(runs: list[tuple[int, int]]) -> None:
    assert decode_runs(part(encoded(runs), sum(length for _, length in runs)), 2**41) == runs


@given(pairs=st.binary(max_size=200), count=st.integers(0, 2**63))
def test_run_lists_of_any_bytes(pairs: bytes, count: int) -> None:
    try:
        runs = decode_runs(part(pairs, count), 1000)
    except KeepAll:
        return
    assert sum(length for _, length in runs) == count
    assert all(first == HOLE or 0 <= first < first + length <= 1000 for first, length in runs)


def test_many_records_at_once_are_decoded_as_one_by_one(victim: Victim) -> None:
    table = victim.disk.table
    one_by_one = []
    for number, [place, *_] in enumerate(victim.records):
        head = victim.disk.read(place, 0x30)
        if head[:4] != b"FILE" or not head[0x16] & 1:
            continue
        record = table.record(number)
        file = (record.base & (1 << 48) - 1) or number
        for found in record.attributes:
            if found.content is None and not (number == 8 and found.name):
                one_by_one += [
                    (first, first + length, file)
                    for first, length in decode_runs(found, table.layout.clusters)
                    if first != HOLE
                ]
    at_once = [row for owned in _all_owned(table) for row in zip(*map(np.ndarray.tolist, owned), strict=True)]
    assert len(at_once) > 50
    assert any(number not in {file for _, _, file in at_once} for number in range(24, len(victim.records)))
    assert sorted(at_once) == sorted(one_by_one)


def test_a_master_file_table_that_is_larger_than_its_volume(victim: Victim) -> None:
    """It would be read for ever: a run list of a few bytes may name the whole volume many times."""
    layout = victim.disk.layout
    runs = [(layout.mft, 1), (0, layout.clusters)]
    pairs = encoded(runs)
    count = sum(length for _, length in runs)
    patches = {}
    for at in victim.disk.attribute_at(0, 0x80):
        start = int.from_bytes(victim.disk.read(at + 0x20, 2), "little")
        assert start + len(pairs) <= int.from_bytes(victim.disk.read(at + 4, 4), "little")
        patches[at + start] = pairs
        patches[at + 0x18] = struct.pack("<Q", count - 1)
        patches[at + 0x28] = struct.pack("<3Q", *[count * layout.cluster] * 3)
    with pytest.raises(KeepAll, match="larger than its volume"):
        ntfs_unused(victim.disk.with_patches(patches), Quiet.OFFLINE)


@given(cut=st.integers(0, 10 * MIB))
@settings(SLOW, max_examples=30)
def test_volumes_that_end_too_early(victim: Victim, cut: int) -> None:
    assume(cut < len(victim.disk.base) - 512)
    with pytest.raises(KeepAll):
        ntfs_unused(Patched(victim.disk.base[:cut]), Quiet.OFFLINE)
