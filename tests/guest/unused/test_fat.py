"""The map of FAT12, FAT16 and FAT32: filled with garbage, beside fsck and partclone, and of broken ones."""

import random
import re
import struct
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.guest.unused.fat.boot import FatLayout, read_layout
from hotspare.guest.unused.fat.map import fat_unused
from hotspare.guest.unused.unused import KeepAll, Quiet, UnusedBlocks
from hotspare.guest.unused.volume_bytes import VolumeBytes
from hotspare.units import KIB, MIB
from tests.guest.unused.asking import unused_in, why_kept
from tests.guest.unused.garbage import FileFacts, facts_below, prove_unused, run
from tests.guest.unused.patched import Patched, check_sane, kept_by_partclone

FSCK = ["fsck.fat", "-n"]
VARIANTS = {
    "FAT12": (12, 6 * MIB, ["-F", "12"]),
    "FAT12 of a floppy": (12, 1440 * KIB, []),
    "FAT16": (16, 40 * MIB, ["-F", "16"]),
    "FAT16, one table": (16, 40 * MIB, ["-F", "16", "-f", "1"]),
    "FAT16, 4 KiB sectors": (16, 40 * MIB, ["-F", "16", "-S", "4096", "-s", "1"]),
    "FAT32": (32, 72 * MIB, ["-F", "32", "-s", "2"]),
    "FAT32, 4 KiB sectors": (32, 300 * MIB, ["-F", "32", "-S", "4096", "-s", "1"]),
}


def listing(image: Path) -> dict[str, FileFacts]:
    """Read all files by mtools: names, sizes, times of files, content."""
    with tempfile.TemporaryDirectory() as folder:
        run(["mcopy", "-s", "-n", "-m", "-Q", "-i", str(image), "::*", folder])
        facts = facts_below(Path(folder))
    return {path: replace(one, changed=0, modified=0, blocks=0, size=0) for path, one in facts.items()}


def make_fat(image: Path, size: int, *options: str) -> None:
    with image.open("wb") as file:
        file.truncate(size)
    run(["mkfs.fat", *options, str(image)])


def populate(image: Path, sizes_max: int) -> None:
    """Copy files in, delete some, and copy larger ones into the gaps."""
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(60):
            below = Path(folder, f"folder {number % 4}", "deep")
            below.mkdir(parents=True, exist_ok=True)
            (below / f"a file with a long name {number}.bin").write_bytes(
                chance.randbytes(chance.randrange(sizes_max))
            )
        Path(folder, "large").write_bytes(chance.randbytes(8 * sizes_max))
        Path(folder, "empty").touch()
        tops = [str(path) for path in sorted(Path(folder).iterdir())]
        run(["mcopy", "-s", "-Q", "-i", str(image), *tops, "::"])
        run(["mdeltree", "-i", str(image), "::folder 2"])
        run(["mdel", "-i", str(image), *(f"::folder 1/deep/*{digit}.bin" for digit in "159")])
        run(["mcopy", "-Q", "-i", str(image), f"{folder}/large", "::in pieces"])
        run(["mdel", "-i", str(image), "::large", *(f"::folder 3/deep/*{digit}.bin" for digit in "37")])


def unused_of(image: Path) -> UnusedBlocks:
    return unused_in(fat_unused, image, Quiet.FROZEN)


@pytest.mark.parametrize(("bits", "size", "options"), VARIANTS.values(), ids=VARIANTS.keys())
def test_what_is_free_is_needed_by_nobody(tmp_path: Path, bits: int, size: int, options: list[str]) -> None:
    image = tmp_path / "image"
    make_fat(image, size, *options)
    populate(image, min(40 * KIB, size // 150))
    unused = unused_of(image)
    check_sane(unused, size)
    assert unused.file_system == f"fat{bits}"
    told = re.search(r"(\d+)/(\d+) clusters", run([*FSCK, str(image)]))
    assert told
    layout = layout_of(image)
    assert layout.clusters == int(told[2])
    assert unused.free.total == layout.cluster * (int(told[2]) - int(told[1]))
    assert len(unused.free) > 3
    # partclone knows only the ordinary ones, and of a FAT12 it leaves out clusters that files have.
    if bits != 12 and "-S" not in options and "-f" not in options:
        assert not len(unused.free & kept_by_partclone("fat", image))
    facts = prove_unused(image, unused, listing=listing, fsck=FSCK)
    assert len(facts) > 30
    assert "in pieces" in facts


def test_fat32_of_few_clusters_as_on_efi_partitions(tmp_path: Path) -> None:
    """The programs that could fill it take it for a FAT16."""
    image = tmp_path / "image"
    make_fat(image, 40 * MIB, "-F", "32", "-s", "8")
    unused = unused_of(image)
    assert unused.file_system == "fat32"
    assert unused.free.total == (layout_of(image).clusters - 1) * 4 * KIB
    assert not len(unused.free & kept_by_partclone("fat", image))


def layout_of(image: Path) -> FatLayout:
    return read_layout(VolumeBytes(Patched(image.read_bytes())))


@pytest.fixture(scope="module", params=[12, 16, 32])
def volume(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Patched:
    bits: int = request.param
    image = tmp_path_factory.mktemp("fat") / "image"
    size = {12: 2 * MIB, 16: 6 * MIB, 32: 36 * MIB}[bits]
    make_fat(image, size, "-F", str(bits), *(["-s", "1"] if bits != 12 else []))
    populate(image, 6 * KIB)
    return Patched(image.read_bytes())


def bits_of(volume: Patched) -> int:
    return read_layout(VolumeBytes(Patched(volume.base))).bits


def reason(volume: Patched, patches: dict[int, bytes]) -> str:
    return why_kept(fat_unused, volume.with_patches(patches), Quiet.FROZEN)


def entry(volume: Patched, number: int, value: int, tables: int = 2) -> dict[int, bytes]:
    """Give the patch that sets an entry in the first tables."""
    layout = read_layout(VolumeBytes(Patched(volume.base)))
    patches = {}
    for table in layout.tables[:tables]:
        if layout.bits == 12:
            at = table + number + number // 2
            old = int.from_bytes(volume.read(at, 2), "little")
            new = old & 0x000F | value << 4 if number % 2 else old & 0xF000 | value
            patches[at] = new.to_bytes(2, "little")
        else:
            width = layout.bits // 8
            patches[table + number * width] = value.to_bytes(width, "little")
    return patches


def test_marks_in_the_boot_sector(volume: Patched) -> None:
    at = 0x41 if bits_of(volume) == 32 else 0x25
    assert reason(volume, {}) == ""
    assert "unmounted" in reason(volume, {at: b"\1"})
    assert "bad sectors" in reason(volume, {at: b"\2"})


def test_marks_in_the_table(volume: Patched) -> None:
    bits = bits_of(volume)
    if bits == 12:
        pytest.skip("FAT12 has no room for them")
    full = (1 << bits) - 1
    assert "unmounted" in reason(volume, entry(volume, 1, full & ~{16: 0x8000, 32: 0x08000000}[bits]))
    assert "errors" in reason(volume, entry(volume, 1, full & ~{16: 0x4000, 32: 0x04000000}[bits]))


def test_tables_that_differ(volume: Patched) -> None:
    last = read_layout(VolumeBytes(volume)).clusters + 1
    mark = (1 << min(28, bits_of(volume))) - 1
    assert "differ" in reason(volume, entry(volume, last, mark, tables=1))


def test_bad_clusters_are_kept(volume: Patched) -> None:
    layout = read_layout(VolumeBytes(volume))
    before = fat_unused(volume, Quiet.OFFLINE).free
    number = layout.clusters // 2 + 2
    bad = {12: 0xFF7, 16: 0xFFF7, 32: 0x0FFFFFF7}[layout.bits]
    patches = entry(volume, number, bad)
    if layout.free_clusters is not None:
        patches[512 + 0x1E8] = struct.pack("<I", layout.free_clusters - 1)
    after = fat_unused(volume.with_patches(patches), Quiet.OFFLINE).free
    start = layout.data + (number - 2) * layout.cluster
    assert list(before - after) == [(start, start + layout.cluster)]


def test_chains_that_contradict_the_table(volume: Patched) -> None:
    layout = read_layout(VolumeBytes(volume))
    free = layout.clusters // 2 + 2
    start = layout.data + (free - 2) * layout.cluster
    assert fat_unused(volume, Quiet.OFFLINE).free.covers(start, start + 2 * layout.cluster)
    assert "said to be free" in reason(volume, entry(volume, free + 1, free))
    assert "do not exist" in reason(volume, entry(volume, free, layout.clusters + 2))
    assert "do not exist" in reason(volume, entry(volume, free, 1))
    # An entry that leads to another that is in use, or to itself, is odd, and no danger.
    assert "do not exist" not in reason(volume, entry(volume, free, free))


def test_what_fsinfo_counts() -> None:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image")
        make_fat(image, 36 * MIB, "-F", "32", "-s", "1")
        volume = Patched(image.read_bytes())
    count = 512 + 0x1E8
    assert "counts 7" in reason(volume, {count: struct.pack("<I", 7)})
    assert reason(volume, {count: b"\xff" * 4}) == ""
    assert "FSInfo" in reason(volume, {512: b"rraA"})
    assert reason(volume, {0x30: b"\xff\xff", 512: b"rraA"}) == ""
    assert "FSInfo" in reason(volume, {0x30: b"\x99\x00"})
    second = struct.unpack("<I", volume.read(0x24, 4))[0] * 512 + 32 * 512
    assert "differ" in reason(volume, {second + 4000: b"\1"})
    assert reason(volume, {second + 4000: b"\1", 0x28: b"\x80\0"}) == ""
    assert "begin" in reason(volume, {second: b"\1", 0x28: b"\x81\0"})
    assert "does not exist" in reason(volume, {0x28: b"\x82\0"})
    assert "version" in reason(volume, {0x2A: b"\0\1"})
    assert "root directory" in reason(volume, {0x2C: b"\0\0\0\0"})
    assert "root directory" in reason(volume, {0x2C: struct.pack("<I", 4000)})


@pytest.mark.parametrize("clusters", [4084, 4085, 4086, 4087, 65524, 65525])
def test_the_number_of_clusters_decides(tmp_path: Path, clusters: int) -> None:
    """A boot sector and tables made by hand, with just so many clusters."""
    bits = 12 if clusters < 4085 else 16
    table_sectors = 300
    data = 1 + 2 * table_sectors + 32
    total = data + clusters
    boot = bytearray(512)
    struct.pack_into("<3s8sHBHBHHBH", boot, 0, b"\xeb\x3c\x90", b"MSDOS5.0", 512, 1, 1, 2, 512, 0, 0xF8, 0)
    struct.pack_into("<H", boot, 0x16, table_sectors)
    struct.pack_into("<I", boot, 0x20, total)
    boot[510:] = b"\x55\xaa"
    table = b"\xf8\xff\xff" + (b"\xff" if bits == 16 else b"")
    table += bytes(table_sectors * 512 - len(table))
    volume = Patched(bytes(boot) + table + table + bytes((32 + clusters) * 512))
    if clusters in {4085, 4086, 65525}:
        with pytest.raises(KeepAll, match="FAT12, FAT16 or FAT32"):
            fat_unused(volume, Quiet.OFFLINE)
    else:
        unused = fat_unused(volume, Quiet.OFFLINE)
        assert unused.file_system == f"fat{bits}"
        assert list(unused.free) == [(data * 512, total * 512)]


def test_a_large_empty_one_takes_a_moment(tmp_path: Path) -> None:
    image = tmp_path / "image"
    make_fat(image, 512 * 1024 * MIB, "-F", "32", "-s", "64")
    begun = time.process_time()
    unused = unused_of(image)
    assert time.process_time() - begun < 5
    assert unused.free.total > 511 * 1024 * MIB


@given(data=st.data())
@settings(max_examples=60, deadline=None, database=None)
def test_mutations(volume: Patched, data: st.DataObject) -> None:
    layout = read_layout(VolumeBytes(Patched(volume.base)))
    places = st.one_of(
        st.integers(0x0B, 0x60),
        st.integers(layout.tables[0], layout.tables[0] + 400),
        st.integers(512 + 0x1E0, 512 + 0x1F0),
    )
    changes = data.draw(st.dictionaries(places, st.binary(min_size=1, max_size=4), min_size=1, max_size=3))
    if data.draw(st.booleans()):
        changes |= {
            at + layout.table_size: octets
            for at, octets in changes.items()
            if layout.tables[0] <= at < layout.tables[0] + 500
        }
    try:
        unused = fat_unused(volume.with_patches(changes), Quiet.OFFLINE)
    except KeepAll:
        return
    check_sane(unused, volume.size)


@pytest.mark.parametrize("content", [b"", b"x", bytes(512), b"\xeb" * 512, bytes(MIB)])
def test_something_else(content: bytes) -> None:
    with pytest.raises(KeepAll):
        fat_unused(Patched(content), Quiet.OFFLINE)


def test_a_volume_that_is_shorter_than_its_file_system(volume: Patched) -> None:
    with pytest.raises(KeepAll, match="larger than its volume"):
        fat_unused(Patched(volume.base[:-512]), Quiet.OFFLINE)
