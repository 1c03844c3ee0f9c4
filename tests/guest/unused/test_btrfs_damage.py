"""Damaged, unknown and hostile Btrfs: all of it is kept, in bounded time and memory."""

import contextlib
import random
import re
import struct
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.block.ranges import Ranges
from hotspare.guest.unused.btrfs import extents as btrfs_extents
from hotspare.guest.unused.btrfs.chunks import ChunkMap, parse_chunk, parse_system_chunks
from hotspare.guest.unused.btrfs.map import btrfs_unused
from hotspare.guest.unused.unused import KeepAll, Quiet, UnusedBlocks
from hotspare.units import GIB, KIB, MIB
from tests.guest.unused.asking import why_kept
from tests.guest.unused.btrfs_images import (
    Chunks,
    Editor,
    Item,
    field,
    make,
    make_filled,
    reason,
    with_checksum,
)
from tests.guest.unused.garbage import run
from tests.guest.unused.overlaid import Overlaid
from tests.memory_disk import MemoryDisk

SUPERBLOCK = 64 * KIB
outcome = partial(why_kept, btrfs_unused)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("btrfs") / "image")


@pytest.fixture(scope="module")
def chunks(empty: Path) -> Chunks:
    return Chunks(empty)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_filled(tmp_path_factory.mktemp("btrfs") / "image", "--nodesize 4096")


@pytest.fixture
def disk(empty: Path) -> Iterator[Overlaid]:
    with Overlaid(empty) as overlaid:
        yield overlaid


def change(disk: Overlaid, place: int, length: int, at: int, data: bytes) -> None:
    block = disk.get(place, length)
    disk.put(place, with_checksum(block[:at] + data + block[at + len(data) :]))


@pytest.mark.parametrize(
    ("at", "known"),
    [(172, 0), (180, 0xF), (188, 0xFFF)],
    ids=["compat", "compat_ro", "incompat"],
)
def test_unknown_features(disk: Overlaid, at: int, known: int) -> None:
    found = int.from_bytes(disk.get(SUPERBLOCK + at, 8), "little")
    for bit in range(64):
        if not known >> bit & 1:
            change(disk, SUPERBLOCK, 4096, at, (found | 1 << bit).to_bytes(8, "little"))
            expected = r"it has (features that are not known|a feature that is not supported)"
            assert re.match(expected, outcome(disk)), bit


@pytest.mark.parametrize(
    ("at", "data", "expected"),
    [
        (196, b"\1\0", "its checksums are xxHash64"),
        (196, b"\7\0", "its type of checksums, 7, is not known"),
        (196, b"\2\0", "the checksum of its superblock is wrong"),
        (48, bytes(8), "the checksum of its superblock is wrong"),
        (64, b"_BHxf", "it has no Btrfs superblock"),
        (72, struct.pack("<Q", 3), "a mirror of its superblock is newer than the superblock"),
        (80, struct.pack("<Q", 5), "one of its trees points to an address that no chunk has"),
        (80, struct.pack("<Q", 2**64 - 1), "one of its trees points to an address that no chunk has"),
        (88, struct.pack("<Q", 5), "one of its trees points to an address that no chunk has"),
        (120, struct.pack("<Q", 2**63), "its superblock counts"),
        (120, struct.pack("<Q", 16384), "its tree 4 makes no sense (more blocks than are in use)"),
        (120, struct.pack("<Q", 0), "its tree 3 makes no sense (more blocks than are in use)"),
        (136, struct.pack("<Q", 0), "its superblock makes no sense (sizes)"),
        (136, struct.pack("<Q", 2), "it spans 2 devices"),
        (144, struct.pack("<I", 0), "its superblock makes no sense (sizes)"),
        (148, struct.pack("<I", 2**31), "its superblock makes no sense (sizes)"),
        (148, struct.pack("<I", 4096), "its tree 3 makes no sense (a block is damaged, or of another tree)"),
        (160, struct.pack("<I", 2**32 - 1), "its superblock makes no sense (system chunks)"),
        (160, struct.pack("<I", 0), "one of its trees points to an address that no chunk has"),
        (160, struct.pack("<I", 128), "its system chunks make no sense"),
        (164, struct.pack("<Q", 2), "its tree 3 makes no sense (a block is damaged, or of another tree)"),
        (198, b"\x09", "its tree 1 makes no sense (levels)"),
        (199, b"\xff", "its tree 3 makes no sense (levels)"),
        (198, b"\1", "its tree 1 makes no sense (a block is damaged, or of another tree)"),
        (201, struct.pack("<Q", 0), "its superblock makes no sense (sizes)"),
        (201, struct.pack("<Q", 2), "a part of its metadata is on another device"),
        (209, struct.pack("<Q", 2**63), "it is larger than its volume"),
        (209, struct.pack("<Q", 64 * MIB), "its device is not as its superblock says"),
        (267, b"another UUID 123", "its device is not as its superblock says"),
        (32, b"another UUID 123", "its tree 3 makes no sense (a block is damaged, or of another tree)"),
    ],
)
def test_damaged_superblock(disk: Overlaid, at: int, data: bytes, expected: str) -> None:
    assert outcome(disk) == ""
    change(disk, SUPERBLOCK, 4096, at, data)
    found = outcome(disk)
    assert found.startswith(expected) or (expected == "its system chunks make no sense" and "chunk" in found)


def test_the_checksum_of_the_superblock_counts(disk: Overlaid) -> None:
    disk.put(SUPERBLOCK + 300, b"?")
    assert outcome(disk) == "the checksum of its superblock is wrong"


def test_one_damaged_copy_is_no_harm_and_two_are(disk: Overlaid, empty: Path) -> None:
    editor = Editor(empty)
    first, second = editor.places(editor.root(2))
    disk.put(first + 200, b"?")
    assert outcome(disk) == ""
    disk.put(second + 200, b"?")
    assert outcome(disk) == "its tree 2 makes no sense (a block is damaged, or of another tree)"


def _replaced(items: list[Item], kind: int, at: int, data: bytes) -> list[Item]:
    return [
        (key, content[:at] + data + content[at + len(data) :] if key[1] == kind else content)
        for key, content in items
    ]


@pytest.mark.parametrize(
    ("tree", "kind", "at", "data", "expected"),
    [
        (2, 192, 0, struct.pack("<Q", 4096), "its superblock counts"),
        (2, 192, 16, struct.pack("<Q", 1), "its block groups do not agree with its chunks"),
        (3, 228, 0, struct.pack("<Q", 0), "one of its chunks makes no sense"),
        (3, 228, 0, struct.pack("<Q", 2**63), "one of its chunks makes no sense"),
        (3, 228, 0, struct.pack("<Q", MIB), "its system chunks are not those of its superblock"),
        (3, 228, 24, struct.pack("<Q", 1 << 40), "one of its chunks makes no sense"),
        (3, 228, 44, struct.pack("<H", 9), "one of its chunks makes no sense"),
        (3, 228, 48, struct.pack("<Q", 7), "its system chunks are not those of its superblock"),
        (3, 216, 0, struct.pack("<Q", 2), "one of its devices makes no sense"),
        (3, 216, 16, struct.pack("<Q", 2), "the counter of its device does not agree with its chunks"),
        (3, 216, 82, b"another UUID 123", "it was sprouted from a seed"),
        (4, 204, 16, struct.pack("<Q", 2), "its device tree does not agree with its chunks"),
        (4, 204, 24, struct.pack("<Q", 2), "its device tree does not agree with its chunks"),
        (1, 132, 176, struct.pack("<Q", 2), "one of its trees points to an address that no chunk has"),
        (1, 132, 160, struct.pack("<Q", 99), "its tree 4 makes no sense (a block newer than the superblock)"),
        (1, 132, 238, b"\1", "its tree 4 makes no sense (a block is damaged, or of another tree)"),
    ],
)
def test_damaged_items(
    tmp_path: Path, empty: Path, chunks: Chunks, tree: int, kind: int, at: int, data: bytes, expected: str
) -> None:
    image = tmp_path / "image"
    run(["cp", "--sparse=always", str(empty), str(image)])
    editor = Editor(image, chunks)
    editor.change(tree, _replaced(editor.leaf(editor.root(tree)), kind, at, data))
    assert reason(image).startswith(expected)


@pytest.mark.parametrize(
    ("tree", "item", "expected"),
    [
        (2, ((30408704 + 30 * MIB, 169, 0), bytes(33)), "its superblock counts"),
        (2, ((30408704, 168, 65536), bytes(33)), "two of its extents overlap"),
        (2, ((5000, 168, 4096), bytes(33)), "one of its extents makes no sense"),
        (2, ((8192, 168, 4097), bytes(33)), "one of its extents makes no sense"),
        (2, ((8192, 168, 0), bytes(33)), "one of its extents makes no sense"),
        (2, ((8192, 168, 2**64 - 4096), bytes(33)), "one of its extents makes no sense"),
        (2, ((2**64 - 4096, 168, 4096), bytes(33)), "one of its extents makes no sense"),
        (2, ((8192, 168, 4096), bytes(33)), "its superblock counts"),
        (2, ((8192, 180, 4096), bytes(33)), "its extent tree has items of an unknown type"),
        (2, ((8192, 192, 4096), bytes(24)), "its block groups do not agree with its chunks"),
        (2, ((8192, 192, 4096), bytes(23)), "one of its block groups makes no sense"),
        (3, ((1, 216, 7), bytes(98)), "it was sprouted from a seed"),
        (3, ((256, 229, 7), bytes(98)), "its chunk tree has items of an unknown type"),
        (4, ((1, 204, MIB), bytes(48)), "its device tree does not agree with its chunks"),
        (4, ((1, 204, MIB), bytes(47)), "its device tree makes no sense"),
        (4, ((1, 250, 0), bytes(3)), "one of its devices is being replaced"),
        (1, ((2, 132, 8), bytes(239)), "its root tree makes no sense"),
        (1, ((11, 132, 0), bytes(239)), "its root tree makes no sense"),
        (1, ((11, 132, 0), bytes(10)), "its root tree makes no sense"),
    ],
)
def test_items_too_many(
    tmp_path: Path, empty: Path, chunks: Chunks, tree: int, item: Item, expected: str
) -> None:
    image = tmp_path / "image"
    run(["cp", "--sparse=always", str(empty), str(image)])
    editor = Editor(image, chunks)
    editor.change(tree, [*editor.leaf(editor.root(tree)), item])
    assert reason(image).startswith(expected)


def test_counters_of_block_groups(tmp_path: Path, empty: Path, chunks: Chunks) -> None:
    """Right in sum, and each of them wrong."""
    image = tmp_path / "image"
    run(["cp", "--sparse=always", str(empty), str(image)])
    editor = Editor(image, chunks)
    items = dict(editor.leaf(editor.root(2)))
    groups = sorted(key for key in items if key[1] == 192)
    for key, add in zip(groups[:2], (16384, -16384), strict=True):
        used = struct.unpack_from("<Q", items[key])[0] + add
        items[key] = struct.pack("<Q", used) + items[key][8:]
    editor.change(2, list(items.items()))
    assert reason(image) == "the counters of its block groups do not agree with its extents"


def nodes_of(image: Path, tree: str) -> list[tuple[int, int]]:
    """Give logical address and level of all blocks of a tree."""
    told = run(["btrfs", "inspect-internal", "dump-tree", "-t", tree, str(image)])
    nodes = [
        (int(at), int(level)) for at, level in re.findall(r"^node (\d+) level (\d+)", told, re.MULTILINE)
    ]
    return nodes + [(int(at), 0) for at in re.findall(r"^leaf (\d+) items", told, re.MULTILINE)]


def blocks_of(image: Path, tree: str) -> list[list[int]]:
    """Give the places of all copies of each block of a tree, the topmost first."""
    chunks, size = Chunks(image), field(image, "nodesize")
    return [
        [start for start, _ in chunks.places(Ranges.of([(at, at + size)]))]
        for at, _ in sorted(nodes_of(image, tree), key=lambda node: -node[1])
    ]


@pytest.mark.parametrize(
    ("at", "data", "expected"),
    [
        (101 + 17, struct.pack("<Q", 2**60), "one of its trees points to an address that no chunk has"),
        (101 + 25, struct.pack("<Q", 2**60), "its tree 2 makes no sense (a block newer than the superblock)"),
        (
            101 + 25,
            struct.pack("<Q", 1),
            "its tree 2 makes no sense (a block is damaged, or of another tree)",
        ),
        (101, struct.pack("<Q", 1), "its tree 2 makes no sense (the first key of a block)"),
        (101, struct.pack("<Q", 2**63), "its tree 2 makes no sense (the order of keys)"),
        (96, struct.pack("<I", 0), "its tree 2 makes no sense (an empty node)"),
        (96, struct.pack("<I", 2**32 - 1), "its tree 2 makes no sense (a block has too many keys)"),
        (100, b"\7", "its tree 2 makes no sense (a block is damaged, or of another tree)"),
    ],
)
def test_damaged_nodes(filled: Path, at: int, data: bytes, expected: str) -> None:
    with Overlaid(filled) as disk:
        assert outcome(disk) == ""
        for place in blocks_of(filled, "extent")[0]:
            change(disk, place, 4096, at, data)
        assert outcome(disk) == expected


def test_loops(filled: Path) -> None:
    with Overlaid(filled) as disk:
        for place in blocks_of(filled, "extent")[0]:
            first = disk.get(place + 101 + 17, 16)
            change(disk, place, 4096, 101 + 33 + 17, first)
        assert outcome(disk) == "its tree 2 makes no sense (a loop)"


@pytest.mark.parametrize(
    ("at", "data", "what"),
    [
        (101 + 17, struct.pack("<I", 2**32 - 1), "an item beyond its block"),
        (101 + 21, struct.pack("<I", 2**32 - 1), "an item beyond its block"),
        (101 + 17, struct.pack("<I", 0), "an item beyond its block"),
        (96, struct.pack("<I", 0), "the first key of a block"),
        (101 + 25, struct.pack("<Q", 1), "the order of keys"),
    ],
)
def test_damaged_leaves(filled: Path, at: int, data: bytes, what: str) -> None:
    with Overlaid(filled) as disk:
        for place in blocks_of(filled, "extent")[-1]:
            change(disk, place, 4096, at, data)
        assert outcome(disk) == f"its tree 2 makes no sense ({what})"


def test_leaves_that_reach_into_each_other(filled: Path) -> None:
    with Overlaid(filled) as disk:
        root = disk.get(blocks_of(filled, "extent")[0][0], 4096)
        assert root[100] == 1
        first = struct.unpack_from("<Q", root, 101 + 17)[0]
        for place, _ in Chunks(filled).places(Ranges.of([(first, first + 4096)])):
            last = 101 + 25 * (struct.unpack_from("<I", disk.get(place, 4096), 96)[0] - 1)
            change(disk, place, 4096, last, struct.pack("<Q", 2**61))
        assert outcome(disk) == "its tree 2 makes no sense (the last key of a block)"


def test_too_many_pieces(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(btrfs_extents, "_RUNS_MAX", 50)
    assert reason(filled) == "what it uses is in too many pieces"


def test_volumes_that_are_too_short(empty: Path) -> None:
    with empty.open("rb") as file:
        head = file.read(2 * MIB)
    for size in (0, 4096, 65536, 68 * KIB - 1):
        assert outcome(MemoryDisk(head[:size])) == "it points beyond its own end"
    assert outcome(MemoryDisk(head)) == "it is larger than its volume"
    assert outcome(MemoryDisk(bytes(MIB))) == "it has no Btrfs superblock"


def test_anything_may_be_written_anywhere(filled: Path) -> None:
    """With right checksums, so that all checks are reached; there is a map if nothing is contradicted."""
    dice = random.Random(6)
    blocks = [copies for tree in ("root", "chunk", "dev", "extent") for copies in blocks_of(filled, tree)]
    maps: list[UnusedBlocks] = []
    started = time.perf_counter()
    with Overlaid(filled) as disk:
        sound = btrfs_unused(disk, Quiet.OFFLINE)
        for _ in range(120):
            length = dice.choice((1, 1, 2, 4, 8))
            data = dice.choice((dice.randbytes(length), b"\xff" * length, bytes(length)))
            if dice.random() < 0.2:
                change(disk, SUPERBLOCK, 4096, dice.randrange(32, 3000), data)
            else:
                at = dice.choice((dice.randrange(32, 500), dice.randrange(32, 4096 - length)))
                for place in dice.choice(blocks):
                    change(disk, place, 4096, at, data)
            disk.bytes_read = 0
            with contextlib.suppress(KeepAll):
                maps.append(btrfs_unused(disk, dice.choice(list(Quiet))))
            assert disk.bytes_read < 64 * MIB
            disk.patches.clear()
    assert all(found.free == sound.free for found in maps)
    assert 0 < len(maps) < 115
    assert time.perf_counter() - started < 60


@given(st.binary(max_size=400), st.integers(0, 2**64 - 1))
def test_chunks_of_anything(data: bytes, start: int) -> None:
    with contextlib.suppress(KeepAll):
        chunk = parse_chunk(start, data)
        assert chunk.stripe_length > 0
    with contextlib.suppress(KeepAll):
        ChunkMap(parse_system_chunks(data), 1)


@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**11),
    st.integers(0, 8),
    st.integers(0, 3),
    st.integers(0, 2**64 - 1),
)
def test_chunks_of_any_kind(length: int, kind: int, stripes: int, substripes: int, offset: int) -> None:
    item = struct.pack("<QQQQIIIHH", length, 2, 65536, kind, 0, 0, 0, stripes, substripes)
    item += b"".join(struct.pack("<QQ16s", 1, offset, b"") for _ in range(stripes))
    try:
        chunk = parse_chunk(GIB, item)
    except KeepAll:
        return
    assert 0 < chunk.stripe_length <= chunk.length
    assert chunk.length % chunk.stripe_length == 0
