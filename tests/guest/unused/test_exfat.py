"""The map of exFAT: filled with garbage, beside fsck and partclone, and of broken ones."""

import random
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.guest.unused.fat.exfat import exfat_unused
from hotspare.guest.unused.fat.exfat_boot import boot_checksum, read_layout
from hotspare.guest.unused.unused import KeepAll, Quiet, UnusedBlocks
from hotspare.guest.unused.volume_bytes import VolumeBytes
from hotspare.units import KIB, MIB
from tests.guest.unused.asking import unused_in, why_kept
from tests.guest.unused.garbage import FileFacts, facts_below, prove_unused, run
from tests.guest.unused.patched import Patched, check_sane, kept_by_partclone, served

FSCK = ["fsck.exfat", "-n"]
VARIANTS = {
    "4 KiB clusters": (64 * MIB, ["-c", "4K"]),
    "512-byte clusters": (16 * MIB, ["-c", "512"]),
    "128 KiB clusters": (128 * MIB, ["-c", "128K"]),
}


def make_exfat(image: Path, size: int, *options: str) -> None:
    with image.open("wb") as file:
        file.truncate(size)
    run(["mkfs.exfat", *options, str(image)])


@contextmanager
def looped(image: Path, *options: str) -> Iterator[Path]:
    """Make a loop device, since the FUSE program wants one."""
    device = run(["losetup", "--find", "--show", *options, str(image)]).strip()
    try:
        yield Path(device)
    finally:
        run(["losetup", "--detach", device])


def listing(image: Path) -> dict[str, FileFacts]:
    with (
        looped(image, "--read-only") as device,
        served(["mount.exfat-fuse", "-d", "-o", "ro", str(device)]) as root,
    ):
        return facts_below(root)


def populate(root: Path, size_max: int) -> None:
    chance = random.Random(1)
    for number in range(80):
        folder = root / f"folder {number % 4}" / "töief"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"a file with a long name {number}").write_bytes(
            chance.randbytes(chance.randrange(size_max))
        )
    shutil.rmtree(root / "folder 2")
    for number in range(1, 80, 8):
        (root / "folder 1" / "töief" / f"a file with a long name {number}").unlink()
    with (root / "kept").open("wb", buffering=0) as kept, (root / "gone").open("wb", buffering=0) as gone:
        for _ in range(20):
            kept.write(chance.randbytes(size_max // 4))
            gone.write(chance.randbytes(size_max // 4))
    (root / "gone").unlink()


def unused_of(image: Path) -> UnusedBlocks:
    return unused_in(exfat_unused, image, Quiet.FROZEN)


@pytest.mark.parametrize(("size", "options"), VARIANTS.values(), ids=VARIANTS.keys())
def test_what_is_free_is_needed_by_nobody(tmp_path: Path, size: int, options: list[str]) -> None:
    image = tmp_path / "image"
    make_exfat(image, size, *options)
    with looped(image) as device, served(["mount.exfat-fuse", "-d", str(device)]) as root:
        populate(root, min(200 * KIB, size // 300))
        with pytest.raises(KeepAll, match="in use"):
            unused_of(device)
    unused = unused_of(image)
    check_sane(unused, size)
    assert len(unused.free) > 5
    kept = kept_by_partclone("exfat", image)
    assert not len(unused.free & kept)
    assert unused.free.total + kept.total >= size - MIB
    facts = prove_unused(image, unused, listing=listing, fsck=FSCK)
    assert len(facts) > 50


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Patched:
    image = tmp_path_factory.mktemp("exfat") / "image"
    make_exfat(image, 8 * MIB, "-c", "4K")
    with looped(image) as device, served(["mount.exfat-fuse", "-d", str(device)]) as root:
        populate(root, 20 * KIB)
    return Patched(image.read_bytes())


def with_checksum(volume: Patched, patches: dict[int, bytes]) -> dict[int, bytes]:
    """Add the right checksum to changes of the boot region."""
    region = volume.with_patches(patches).read(0, 11 * 512)
    return patches | {11 * 512: struct.pack("<I", boot_checksum(region)) * 128}


def reason(volume: Patched, patches: dict[int, bytes]) -> str:
    return why_kept(exfat_unused, volume.with_patches(patches))


@pytest.mark.parametrize(
    ("flags", "why"),
    [(0, ""), (1, "second"), (2, "in use"), (4, "errors"), (8, ""), (16, "unknown"), (6, "in use")],
)
def test_marks(volume: Patched, flags: int, why: str) -> None:
    found = reason(volume, {106: struct.pack("<H", flags)})
    assert why in found
    assert bool(why) == bool(found)


def test_the_checksum(volume: Patched) -> None:
    assert "checksum" in reason(volume, {100: b"\x11\x22\x33\x44"})  # the serial number
    assert reason(volume, with_checksum(volume, {100: b"\x11\x22\x33\x44"})) == ""
    assert "checksum" in reason(volume, {12 * 512 - 4: b"\0"})


def test_texfat_and_other_revisions(volume: Patched) -> None:
    assert "TexFAT" in reason(volume, with_checksum(volume, {110: b"\2"}))
    assert "revision" in reason(volume, with_checksum(volume, {104: b"\0\2"}))


def test_the_percentage_is_a_hint(volume: Patched) -> None:
    assert exfat_unused(volume, Quiet.OFFLINE).remarks == ()
    unused = exfat_unused(volume.with_patches({112: b"\x63"}), Quiet.OFFLINE)
    assert "99 %" in unused.remarks[0]
    assert unused.free == exfat_unused(volume, Quiet.OFFLINE).free
    assert exfat_unused(volume.with_patches({112: b"\xff"}), Quiet.OFFLINE).remarks == ()
    assert "contradicts" in reason(volume, {112: b"\x65"})


def root_entry(volume: Patched, kind: int) -> int:
    """Say where an entry of the root directory lies."""
    layout = read_layout(VolumeBytes(volume))
    content = volume.read(layout.offset_of(layout.root), layout.cluster)
    return layout.offset_of(layout.root) + next(
        at for at in range(0, len(content), 32) if content[at] == kind
    )


def test_the_bitmap(volume: Patched) -> None:
    layout = read_layout(VolumeBytes(volume))
    at = root_entry(volume, 0x81)
    first = struct.unpack("<I", volume.read(at + 20, 4))[0]
    bitmap = layout.offset_of(first)
    assert "0 allocation bitmaps" in reason(volume, {at: b"\1"})
    assert "2 allocation bitmaps" in reason(volume, {root_entry(volume, 0x85): b"\x81"})
    assert "1 allocation bitmaps" in reason(volume, {at + 1: b"\1"})
    assert "too short" in reason(volume, {at + 24: struct.pack("<Q", layout.clusters // 8 - 1)})
    assert "longer" in reason(volume, {at + 24: struct.pack("<Q", 1 << 62)})
    assert "leads nowhere" in reason(volume, {at + 20: struct.pack("<I", layout.clusters + 2)})
    assert "ring" in reason(volume, {layout.table + 4 * first: struct.pack("<I", first)})
    assert "leads nowhere" in reason(volume, {layout.table + 4 * layout.root: struct.pack("<I", 1)})
    assert "own tables" in reason(volume, {bitmap: b"\0"})
    assert "own tables" in reason(
        volume, {at + 20: struct.pack("<I", layout.clusters)} | last_chain_end(volume)
    )


def last_chain_end(volume: Patched) -> dict[int, bytes]:
    layout = read_layout(VolumeBytes(volume))
    return {layout.table + 4 * layout.clusters: b"\xff" * 4}


def test_bad_clusters_are_kept(volume: Patched) -> None:
    layout = read_layout(VolumeBytes(volume))
    number = layout.clusters - 10
    before = exfat_unused(volume, Quiet.OFFLINE).free
    bad = {layout.table + 4 * number: struct.pack("<I", 0xFFFFFFF7)}
    after = exfat_unused(volume.with_patches(bad), Quiet.OFFLINE).free
    start = layout.offset_of(number)
    assert list(before - after) == [(start, start + layout.cluster)]


def test_a_large_empty_one_takes_a_moment(tmp_path: Path) -> None:
    image = tmp_path / "image"
    make_exfat(image, 1024 * 1024 * MIB)
    begun = time.process_time()
    unused = unused_of(image)
    assert time.process_time() - begun < 3
    assert unused.free.total > 1023 * 1024 * MIB


@given(data=st.data())
@settings(max_examples=100, deadline=None, database=None)
def test_mutations(volume: Patched, data: st.DataObject) -> None:
    layout = read_layout(VolumeBytes(volume))
    root = layout.offset_of(layout.root)
    places = st.one_of(
        st.integers(64, 113),
        st.integers(root, root + 200),
        st.integers(layout.table, layout.table + 100),
    )
    changes = data.draw(st.dictionaries(places, st.binary(min_size=1, max_size=8), min_size=1, max_size=3))
    try:
        unused = exfat_unused(volume.with_patches(with_checksum(volume, changes)), Quiet.OFFLINE)
    except KeepAll:
        return
    check_sane(unused, volume.size)


@pytest.mark.parametrize("content", [b"", b"x", bytes(512), bytes(MIB)])
def test_something_else(content: bytes) -> None:
    with pytest.raises(KeepAll):
        exfat_unused(Patched(content), Quiet.OFFLINE)


def test_a_volume_that_is_shorter_than_its_file_system(volume: Patched) -> None:
    with pytest.raises(KeepAll, match="too short"):
        exfat_unused(Patched(volume.base[:-512]), Quiet.OFFLINE)
