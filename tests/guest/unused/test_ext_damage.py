"""Damaged, unknown and hostile ext2/3/4: all of it is kept, in bounded time and memory."""

import random
import struct
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hotspare.guest.unused.ext import groups as ext_groups
from hotspare.guest.unused.ext.checksum import crc32c_of
from hotspare.guest.unused.ext.map import ext_unused
from hotspare.guest.unused.ext.superblock import Compat, Incompat, RoCompat, Superblock
from hotspare.guest.unused.unused import KeepAll, Quiet, UnusedBlocks
from hotspare.units import KIB, MIB
from tests.guest.unused.ext_images import find, make, peek, poke, reason, set_field
from tests.guest.unused.garbage import run
from tests.memory_disk import MemoryDisk

PLAIN = "-b 1024 -g 1024 -O ^metadata_csum,^64bit,^has_journal"
SUMMED = "-b 1024 -g 1024 -O ^has_journal"
DESCRIPTORS = 2 * KIB
"""Where they start, with blocks of 1 KiB."""


def outcome(disk: MemoryDisk) -> UnusedBlocks | str:
    try:
        return ext_unused(disk, Quiet.OFFLINE)
    except KeepAll as kept:
        return kept.reason


def disk_of(folder: Path, options: str, size: int = 4 * MIB) -> MemoryDisk:
    return MemoryDisk(make(folder / "image", options, size=size).read_bytes())


@pytest.mark.parametrize(
    ("field", "known", "bits"),
    [(0x5C, sum(Compat), "compat"), (0x60, sum(Incompat), "incompat"), (0x64, sum(RoCompat), "ro_compat")],
)
def test_unknown_features(tmp_path: Path, field: int, known: int, bits: str) -> None:
    disk = disk_of(tmp_path, PLAIN)
    for bit in range(32):
        if known >> bit & 1:
            continue
        found = struct.unpack_from("<I", disk.data, 1024 + field)[0]
        struct.pack_into("<I", disk.data, 1024 + field, found | 1 << bit)
        assert outcome(disk) == f"it has features that are not known here ({bits} {1 << bit:#x})"
        struct.pack_into("<I", disk.data, 1024 + field, found)
    assert isinstance(outcome(disk), UnusedBlocks)


def test_nothing_there() -> None:
    assert outcome(MemoryDisk(b"")) == "it is too small for a file system"
    assert outcome(MemoryDisk(bytes(2047))) == "it is too small for a file system"
    assert outcome(MemoryDisk(bytes(MIB))) == "it has no ext superblock"
    assert outcome(MemoryDisk(random.Random(1).randbytes(MIB))) == "it has no ext superblock"


def test_a_volume_that_is_too_short(tmp_path: Path) -> None:
    disk = disk_of(tmp_path, SUMMED)
    assert outcome(MemoryDisk(disk.data[: 4 * MIB])) == "it is larger than its volume"


SUPERBLOCK, DESCRIPTOR, BITMAP = (
    f"the checksum of {what} is wrong" for what in ("its superblock", "a group descriptor", "a block bitmap")
)
COUNTED = "the free counter of a group is not what its block bitmap says"


def bitmap_of(image: Path, group: int) -> int:
    """Give where a group's block bitmap lies; with descriptors of 32 bytes or 64."""
    size = int.from_bytes(peek(image, 1024 + 0xFE, 2), "little") or 32
    return int.from_bytes(peek(image, DESCRIPTORS + group * size, 4), "little") * KIB


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (SUMMED, (SUPERBLOCK, DESCRIPTOR, BITMAP)),
        (SUMMED + ",^64bit", (SUPERBLOCK, DESCRIPTOR, BITMAP)),
        ("-b 1024 -g 1024 -O ^metadata_csum,uninit_bg,^has_journal", (None, DESCRIPTOR, COUNTED)),
        (PLAIN, (None, COUNTED, COUNTED)),
    ],
)
def test_every_checksum_and_counter_is_looked_at(
    tmp_path: Path, options: str, expected: tuple[str | None, str, str]
) -> None:
    image = make(tmp_path / "image", options)
    assert reason(image) == ""
    places = [1024 + 0x78, DESCRIPTORS + 0xC, bitmap_of(image, 0) + 127]  # a label, a counter, a last byte
    for place, why in zip(places, expected, strict=True):
        before = peek(image, place, 1)
        poke(image, place, bytes([before[0] ^ 0x80]))
        assert reason(image) == (why or "")
        poke(image, place, before)
    set_field(image, "free_blocks_count", 17)
    assert reason(image) == "the free counter of its superblock is not what its block bitmaps say"


def test_both_halves_of_a_bitmap_checksum_count(tmp_path: Path) -> None:
    """The descriptor's own checksum is put right, as a hostile guest would."""
    image = make(tmp_path / "image", SUMMED)
    seed = crc32c_of(peek(image, 1024 + 0x68, 16), 0xFFFFFFFF)
    for at in (0x18, 0x38):
        before = peek(image, DESCRIPTORS, 64)
        changed = bytearray(before)
        changed[at] ^= 1
        changed[0x1E:0x20] = b"\0\0"
        total = crc32c_of(bytes(4) + bytes(changed), seed) & 0xFFFF
        changed[0x1E:0x20] = total.to_bytes(2, "little")
        poke(image, DESCRIPTORS, bytes(changed))
        assert reason(image) == BITMAP
        poke(image, DESCRIPTORS, before)
    assert reason(image) == ""


def test_structures_may_not_be_free(tmp_path: Path) -> None:
    """A block of an inode table is called free and a free one used, so that the counters still agree."""
    image = make(tmp_path / "image", PLAIN)
    table = int.from_bytes(peek(image, DESCRIPTORS + 8, 4), "little")
    start, end = next(iter(find(image).free))
    assert start < end <= MIB + KIB  # in group 0, as the table
    run(["debugfs", "-w", "-R", f"freeb {table + 1}", str(image)])
    run(["debugfs", "-w", "-R", f"setb {start // KIB}", str(image)])
    assert reason(image) == "its block bitmaps call free what is in use"


@pytest.mark.parametrize("at", [0, 4, 8])
def test_two_groups_may_not_share_a_structure(tmp_path: Path, at: int) -> None:
    image = make(tmp_path / "image", PLAIN)
    poke(image, DESCRIPTORS + 32 + at, peek(image, DESCRIPTORS + at, 4))
    assert reason(image) == "its group descriptors contradict each other"
    poke(image, DESCRIPTORS + 32 + at, b"\xff\xff\xff\xff")
    assert reason(image) == "a group descriptor points beyond the end of the file system"


def test_too_many_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotspare.guest.unused.ext.superblock.GROUPS_MAX", 39)
    assert outcome(disk_of(tmp_path, PLAIN, 40 * MIB)) == "it has more groups than can be looked at here"


@pytest.mark.parametrize("extreme", [0, 1, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF])
def test_every_field_of_the_superblock_at_its_extremes(tmp_path: Path, extreme: int) -> None:
    """Also with all features on, so that every field counts."""
    disk = disk_of(tmp_path, "-b 1024 -g 1024 -O ^metadata_csum,^64bit,bigalloc -C 2048", 4 * MIB)
    started = time.process_time()
    for at in (*range(1024, 1024 + 0x290, 4), 1024 + 0x3FC):
        before = bytes(disk.data[at : at + 4])
        struct.pack_into("<I", disk.data, at, extreme)
        outcome(disk)
        disk.write(at, before)
    assert time.process_time() - started < 10


VARIANTS = {
    "plain": PLAIN,
    "uninit": "-b 1024 -g 256 -O ^metadata_csum,uninit_bg,^has_journal,^flex_bg",
    "meta": "-b 1024 -g 256 -O ^metadata_csum,^has_journal,meta_bg,^resize_inode",
    "big": "-b 1024 -O ^metadata_csum,bigalloc,^has_journal -C 4096",
}


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_random_damage_ends_in_a_result_or_in_keep_all(tmp_path: Path, name: str) -> None:
    disk = disk_of(tmp_path, VARIANTS[name])
    whole = outcome(disk)
    assert isinstance(whole, UnusedBlocks)
    dice = random.Random(name)
    spots = [(1024, 0x70), (1024, 1024), (DESCRIPTORS, 512), (DESCRIPTORS, 16 * KIB)]
    found = []
    for _ in range(120):
        before = bytes(disk.data[: 32 * KIB])
        for _ in range(dice.randrange(1, 4)):
            start, length = dice.choice(spots)
            at = start + dice.randrange(length)
            disk.write(at, dice.randbytes(dice.choice([1, 2, 4])))
        result = outcome(disk)
        found.append(result)
        if isinstance(result, UnusedBlocks):
            assert result.free.total <= whole.free.total + 64 * KIB
            assert result.size <= disk.size
        disk.write(0, before)
    assert outcome(disk) == whole
    assert 1 < sum(isinstance(one, UnusedBlocks) for one in found) < 119


@pytest.mark.parametrize("options", [SUMMED, "-b 1024 -g 256 -O bigalloc -C 2048 -g 8192"])
def test_with_checksums_no_damage_goes_unnoticed(tmp_path: Path, options: str) -> None:
    disk = disk_of(tmp_path, options)
    whole = outcome(disk)
    assert isinstance(whole, UnusedBlocks)
    dice = random.Random(5)
    for _ in range(150):
        at = 1024 + dice.randrange(1024) if dice.randrange(2) else DESCRIPTORS + dice.randrange(64)
        before = disk.data[at]
        disk.data[at] ^= dice.randrange(1, 256)
        assert isinstance(outcome(disk), str)
        disk.data[at] = before
    assert outcome(disk) == whole


def test_a_hostile_superblock_with_right_checksums(tmp_path: Path) -> None:
    """Random fields, and the checksum over them: as only somebody who means it would write."""
    disk = disk_of(tmp_path, SUMMED)
    original = bytes(disk.data)
    dice = random.Random(9)
    started = time.process_time()
    for _ in range(150):
        for _ in range(dice.randrange(1, 3)):
            at = 1024 + dice.randrange(0x3F8)
            disk.write(
                at, dice.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", dice.randbytes(1), dice.randbytes(4)])
            )
        struct.pack_into("<I", disk.data, 2044, crc32c_of(bytes(disk.data[1024:2044]), 0xFFFFFFFF))
        result = outcome(disk)
        assert isinstance(result, str) or result.size <= disk.size
        disk.write(0, original[:4096])
    assert time.process_time() - started < 10


def test_reading_blocks_beyond_the_end_is_refused() -> None:
    for numbers in ([4], [-1], [0, 1, 1 << 60]):
        with pytest.raises(KeepAll, match="beyond its own end"):
            ext_groups.read_blocks(MemoryDisk(bytes(4 * KIB)), np.array(numbers, dtype=np.int64), KIB)


def test_blocks_are_read_in_the_order_that_was_asked_for() -> None:
    disk = MemoryDisk(b"".join(bytes([number]) * KIB for number in range(9)))
    for numbers in ([2, 0, 1], [5, 6, 8, 7, 0], [3, 3], []):
        found = ext_groups.read_blocks(disk, np.array(numbers, dtype=np.int64), KIB)
        assert found.shape == (len(numbers), KIB)
        assert found[:, KIB - 1].tolist() == numbers


def test_bits_beyond_the_last_group_say_nothing(tmp_path: Path) -> None:
    disk = disk_of(tmp_path, PLAIN, 4 * MIB + 512 * KIB)
    whole = outcome(disk)
    assert isinstance(whole, UnusedBlocks)
    last = struct.unpack_from("<I", disk.data, DESCRIPTORS + 4 * 32)[0] * KIB  # a group of 516 blocks
    assert bytes(disk.data[last + 65 : last + 128]) == b"\xff" * 63
    disk.write(last + 65, bytes(63))
    assert outcome(disk) == whole


def test_which_groups_have_a_superblock(tmp_path: Path) -> None:
    image = make(tmp_path / "image", PLAIN)
    groups = np.arange(1000)
    found = Superblock.parse(peek(image, 1024, 1024), image.stat().st_size)

    def with_copies(**changed: object) -> list[int]:
        changed_one = replace(found, **{"blocks": 1 << 21, **changed})  # type: ignore[arg-type]
        return np.flatnonzero(ext_groups.has_superblock(changed_one, groups)).tolist()

    assert with_copies() == [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343, 625, 729]
    assert with_copies(ro_compat=RoCompat(0)) == groups.tolist()
    assert with_copies(compat=Compat.SPARSE_SUPER2, backup_groups=(77, 900)) == [0, 77, 900]
    assert with_copies(compat=Compat.SPARSE_SUPER2, backup_groups=(0, 0)) == [0]
