"""Damaged, unknown and hostile XFS: all of it is kept, in bounded time and memory."""

import contextlib
import random
import struct
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.guest.unused.unused import KeepAll, Quiet, UnusedBlocks
from hotspare.guest.unused.xfs import map as xfs
from hotspare.guest.unused.xfs.log_record import Position, changes_superblock_only, is_unmount, parse_record
from hotspare.guest.unused.xfs.map import xfs_unused
from hotspare.units import MIB
from tests.guest.unused.asking import why_kept
from tests.guest.unused.overlaid import Overlaid
from tests.guest.unused.xfs_images import asked, make, make_filled, with_checksum
from tests.memory_disk import MemoryDisk

SECTOR = 512
BLOCK = 1024
outcome = partial(why_kept, xfs_unused)
SUPERBLOCK, HEADER, FREE_LIST, TREE = (0, SECTOR, 224), (SECTOR, SECTOR, 216), (3 * SECTOR, SECTOR, 32), 52
"""Place, length, and where the checksum is."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One group, with btrees of more than one level."""
    return make_filled(
        tmp_path_factory.mktemp("xfs") / "image", "-b size=1024 -d agcount=1 -m rmapbt=1 --unsupported"
    )


@pytest.fixture
def disk(filled: Path) -> Iterator[Overlaid]:
    with Overlaid(filled) as overlaid:
        yield overlaid


def change(disk: Overlaid, part: tuple[int, int, int], at: int, data: bytes) -> None:
    """Change some bytes of a part, with its checksum put right."""
    place, length, checksum = part
    block = disk.get(place, length)
    disk.put(place, with_checksum(block[:at] + data + block[at + len(data) :], checksum))


def root_of(disk: Overlaid, by_size: bool = False) -> tuple[int, int, int]:
    return int.from_bytes(disk.get(SECTOR + (20 if by_size else 16), 4), "big") * BLOCK, BLOCK, TREE


def leaf_of(disk: Overlaid, number: int = 0, *, by_size: bool = False) -> tuple[int, int, int]:
    """Give the leaf that one of the root's pointers leads to."""
    pointers = 56 + (BLOCK - 56) // 12 * 8
    at = int.from_bytes(disk.get(root_of(disk, by_size)[0] + pointers + 4 * number, 4), "big")
    return at * BLOCK, BLOCK, TREE


def test_sound(disk: Overlaid, filled: Path) -> None:
    assert outcome(disk) == ""
    assert asked(filled, "agf 0", "print bnolevel") == [2]


@pytest.mark.parametrize(
    ("field", "known"), [(208, 0), (212, 0xF), (216, 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80), (220, 0)]
)
def test_unknown_features(disk: Overlaid, field: int, known: int) -> None:
    found = int.from_bytes(disk.get(field, 4), "big")
    for bit in range(32):
        if not known >> bit & 1:
            change(disk, SUPERBLOCK, field, (found | 1 << bit).to_bytes(4, "big"))
            repair = field == 216 and bit == 4
            expected = (
                "it is marked as in need of a repair" if repair else "it has features that are not known"
            )
            assert outcome(disk).startswith(expected)


def test_states(disk: Overlaid) -> None:
    change(disk, SUPERBLOCK, 126, b"\1")
    assert outcome(disk) == "mkfs.xfs has not finished it"
    change(disk, SUPERBLOCK, 126, b"\0")
    assert outcome(disk) == ""
    disk.put(200, b"\1")
    assert outcome(disk) == "the checksum of its superblock is wrong"


def test_unknown_features_of_version_4(tmp_path: Path) -> None:
    with Overlaid(make(tmp_path / "image", "-m crc=0")) as disk:
        assert outcome(disk) == ""
        for place, bits in ((100, 0x0200), (200, 0x1), (202, 0x10), (202, 0x0400)):
            found = int.from_bytes(disk.get(place, 2), "big")
            disk.put(place, (found | bits).to_bytes(2, "big"))
            assert outcome(disk).startswith("it has features that are not known")
            disk.put(place, found.to_bytes(2, "big"))
        assert outcome(disk) == ""


@pytest.mark.parametrize(
    ("part", "at", "data", "expected"),
    [
        (SUPERBLOCK, 8, (2**40).to_bytes(8, "big"), "its superblock makes no sense (sizes)"),
        (SUPERBLOCK, 4, bytes(4), "its superblock makes no sense (sizes)"),
        (SUPERBLOCK, 84, bytes(4), "its superblock makes no sense (sizes)"),
        (SUPERBLOCK, 88, b"\xff" * 4, "its superblock makes no sense (sizes)"),
        (SUPERBLOCK, 102, bytes(2), "its superblock makes no sense (sector size)"),
        (SUPERBLOCK, 96, b"\x7f" * 4, "its superblock makes no sense (journal)"),
        (SUPERBLOCK, 48, b"\x7f" * 8, "its superblock makes no sense (journal)"),
        (SUPERBLOCK, 151, b"\x11", "its superblock counts"),
        (SUPERBLOCK, 32, b"another UUID 123", "its journal is of another file system"),
        (HEADER, 0, b"YAGF", "the header of its allocation group 0 makes no sense"),
        (HEADER, 8, b"\0\0\0\1", "the header of its allocation group 0 makes no sense"),
        (HEADER, 12, b"\0\0\1\0", "the header of its allocation group 0 makes no sense"),
        (HEADER, 64, b"another UUID 123", "the header of its allocation group 0 is of another file system"),
        (HEADER, 16, b"\xff" * 4, "the btree of free space by place in group 0 makes no sense (pointers)"),
        (HEADER, 16, bytes(4), "the btree of free space by place in group 0 makes no sense (magic number)"),
        (
            HEADER,
            28,
            b"\0\0\0\1",
            "the btree of free space by place in group 0 makes no sense (block header)",
        ),
        (
            HEADER,
            28,
            b"\0\0\0\3",
            "the btree of free space by place in group 0 makes no sense (block header)",
        ),
        (HEADER, 28, b"\xff" * 4, "the btree of free space by place in group 0 makes no sense (levels)"),
        (HEADER, 52, b"\0\0\0\1", "the counters of allocation group 0 do not agree"),
        (HEADER, 56, b"\0\0\0\1", "the counters of allocation group 0 do not agree"),
        (HEADER, 60, b"\0\0\0\0", "the counters of allocation group 0 do not agree"),
        (HEADER, 40, b"\xff" * 4, "the free list of allocation group 0 makes no sense"),
        (HEADER, 44, b"\0\0\0\0", "the free list of allocation group 0 makes no sense"),
        (HEADER, 48, b"\0\0\0\1", "the free list of allocation group 0 makes no sense"),
        (FREE_LIST, 0, b"XAFK", "the free list of allocation group 0 makes no sense"),
        (
            FREE_LIST,
            36,
            bytes(476),
            "allocation group 0 has blocks in use that it calls free, or in two uses",
        ),
        (
            FREE_LIST,
            36,
            b"\xff" * 476,
            "allocation group 0 has blocks in use that it calls free, or in two uses",
        ),
    ],
)
def test_damaged(disk: Overlaid, part: tuple[int, int, int], at: int, data: bytes, expected: str) -> None:
    change(disk, part, at, data)
    assert outcome(disk).startswith(expected)


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (SUPERBLOCK, "its superblock"),
        (HEADER, "the header of allocation group 0"),
        (FREE_LIST, "the free list of allocation group 0"),
    ],
)
def test_checksums(disk: Overlaid, part: tuple[int, int, int], what: str) -> None:
    disk.put(part[0] + 300, b"?")
    assert outcome(disk) == f"the checksum of {what} is wrong"
    disk.patches.clear()
    disk.put(leaf_of(disk)[0] + 1000, b"?")
    assert outcome(disk) == "the checksum of the btree of free space by place in group 0 is wrong"


@pytest.mark.parametrize(
    ("at", "data", "what"),
    [
        (4, b"\0\1", "block header"),
        (6, b"\xff\xff", "block header"),
        (6, b"\0\0", "an empty block"),
        (8, b"\0\0\0\1", "siblings"),
        (12, b"\0\0\0\1", "siblings"),
        (16, b"\1", "owner"),
        (32, b"another UUID 123", "owner"),
        (48, b"\1", "owner"),
        (56, b"\0\0\0\0", "keys"),
        (64, b"\0\0\0\0", "records"),
        (64, b"\0\0\0\1", "order"),
        (72, b"\xff\xff\xff\xff", "records"),
        (68, b"\xff\xff\xff\xff", "records"),
        (68, b"\0\0\0\0", "records"),
        (68, b"\0\0\xff\xff", "order"),
    ],
)
def test_damaged_leaf(disk: Overlaid, at: int, data: bytes, what: str) -> None:
    change(disk, leaf_of(disk), at, data)
    assert outcome(disk) == f"the btree of free space by place in group 0 makes no sense ({what})"


def test_loops(disk: Overlaid) -> None:
    """A node that points to one leaf twice, and one that points to itself."""
    root = root_of(disk)
    pointers = 56 + (BLOCK - 56) // 12 * 8
    first = disk.get(root[0] + pointers, 4)
    change(disk, root, pointers + 4, first)
    assert outcome(disk) == "the btree of free space by place in group 0 makes no sense (a loop)"
    change(disk, root, pointers + 4, (root[0] // BLOCK).to_bytes(4, "big"))
    assert outcome(disk) == "the btree of free space by place in group 0 makes no sense (a loop)"


def test_trees_that_differ(disk: Overlaid) -> None:
    leaf = leaf_of(disk, by_size=True)
    start = int.from_bytes(disk.get(leaf[0] + 64, 4), "big")
    change(disk, leaf, 64, (start - 1).to_bytes(4, "big"))
    assert outcome(disk) == "the two btrees of free space in allocation group 0 differ"


def test_too_many_pieces(disk: Overlaid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xfs, "_RECORDS_MAX", 100)
    assert outcome(disk) == "its free space is in too many pieces"


def test_a_volume_that_is_too_short(filled: Path) -> None:
    head = filled.read_bytes()[: 2 * MIB]
    assert outcome(MemoryDisk(head)) == "it is larger than its volume"
    for size in (0, 1, 511, 512):
        short = outcome(MemoryDisk(head[:size]))
        assert short in {"it points beyond its own end", "it is larger than its volume"}
    assert outcome(MemoryDisk(bytes(MIB))) == "it has no XFS superblock"


def test_anything_may_be_written_anywhere(disk: Overlaid) -> None:
    """With right checksums, so that all checks are reached; there is a map if nothing is contradicted."""
    dice = random.Random(5)
    parts = [SUPERBLOCK, HEADER, FREE_LIST, root_of(disk), root_of(disk, by_size=True)]
    parts += [leaf_of(disk, number) for number in range(3)]
    sound = xfs_unused(disk, Quiet.OFFLINE)
    started = time.perf_counter()
    maps: list[UnusedBlocks] = []
    for _ in range(80):
        part = dice.choice(parts)
        length = dice.choice((1, 1, 2, 4, 8))
        data = dice.choice((dice.randbytes(length), b"\xff" * length, bytes(length)))
        change(disk, part, dice.randrange(part[1] - length), data)
        disk.bytes_read = 0
        with contextlib.suppress(KeepAll):
            maps.append(xfs_unused(disk, dice.choice(list(Quiet))))
        assert disk.bytes_read < 64 * MIB
        disk.patches.clear()
    assert all(found.free == sound.free for found in maps)
    assert 0 < len(maps) < 64
    assert time.perf_counter() - started < 60


RECORD = Position(1, 2)


def record(operations: list[bytes], **changes: int) -> bytes:
    """Build a record of one header."""
    data = b"".join(operations)
    field = {"magic": 0xFEEDBABE, "version": 2, "length": len(data), "count": len(operations), **changes}
    header = struct.pack(">IIII", field["magic"], RECORD.cycle, field["version"], field["length"])
    header += struct.pack(">QQIII", 1 << 32 | 2, 1 << 32 | 2, 0, 0, field["count"])
    blocks = [data[at : at + 512].ljust(512, b"\0") for at in range(0, len(data), 512)]
    kept = b"".join(block[:4] for block in blocks)
    header += kept.ljust(256, b"\0") + struct.pack(">I", 1) + bytes(16) + struct.pack(">I", 32768)
    return header.ljust(512, b"\0") + b"".join(b"\0\0\0\1" + block[4:] for block in blocks)


def operation(flags: int, data: bytes = b"", writer: int = 0x69) -> bytes:
    return struct.pack(">IIBBH", 7, len(data), writer, flags, 0) + data


START, COMMIT = operation(1), operation(2)
TRANSACTION = operation(0, struct.pack("<IIII", 0x5452414E, 0, 7, 1))
SUPER = operation(0, struct.pack("<HHHHqI", 0x123C, 2, 0, 1, 0, 1))
REGION = operation(0, bytes(384))


@pytest.mark.parametrize(
    ("operations", "allowed"),
    [
        ([START, TRANSACTION, SUPER, REGION, COMMIT], True),
        ([START, TRANSACTION, SUPER, REGION, SUPER, REGION, COMMIT], True),
        ([operation(0x20, bytes(8), writer=0xAA)], True),
        ([START, TRANSACTION, COMMIT], True),
        ([START, TRANSACTION, SUPER, COMMIT], False),
        ([START, TRANSACTION, SUPER], False),
        ([START, TRANSACTION, SUPER, operation(0, bytes(1024)), COMMIT], False),
        ([START, TRANSACTION, SUPER, operation(4, bytes(100)), COMMIT], False),
        ([START, TRANSACTION, operation(0, struct.pack("<HHHHqI", 0x123C, 2, 0, 1, 8, 1)), REGION], False),
        ([START, TRANSACTION, operation(0, struct.pack("<HHHHqI", 0x123C, 2, 0, 2, 0, 1)), REGION], False),
        ([START, TRANSACTION, operation(0, struct.pack("<HHHHqI", 0x123B, 2, 0, 1, 0, 1)), REGION], False),
        ([START, TRANSACTION, operation(0, struct.pack("<HHHHqI", 0x1236, 1, 0, 0, 0, 1))], False),
        ([START, TRANSACTION, operation(0, b"x")], False),
        ([operation(0, bytes(8), writer=0x02)], False),
    ],
)
def test_what_a_record_changes(operations: list[bytes], allowed: bool) -> None:
    found = parse_record(record(operations), RECORD, bytes(16), has_checksums=False)
    assert changes_superblock_only(found, 512) is allowed
    assert is_unmount(found) is (len(operations) == 1 and operations[0][8] == 0xAA)


@pytest.mark.parametrize(
    "changes", [{"length": 0}, {"length": 2**31}, {"version": 4}, {"magic": 1}, {"count": 9}]
)
def test_a_record_that_makes_no_sense(changes: dict[str, int]) -> None:
    with pytest.raises(KeepAll):
        changes_superblock_only(
            parse_record(record([START, TRANSACTION], **changes), RECORD, bytes(16), has_checksums=False), 512
        )


def test_the_checksum_of_a_record_counts() -> None:
    with pytest.raises(KeepAll, match="checksum of a record"):
        parse_record(record([START, TRANSACTION]), RECORD, bytes(16), has_checksums=True)


@given(st.binary(max_size=600), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_record_of_anything(data: bytes, length: int, count: int) -> None:
    for what in (record([data], length=length, count=count), record([data], count=count)):
        try:
            found = parse_record(what, RECORD, bytes(16), has_checksums=False)
            assert changes_superblock_only(found, 512) in {True, False}
        except KeepAll:
            continue
