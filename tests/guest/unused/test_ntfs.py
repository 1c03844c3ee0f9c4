"""What the map of an NTFS calls free is free: by ntfsinfo, by partclone, and filled with garbage."""

import re
import time
from pathlib import Path

import pytest

from hotspare.block.file import RawFile
from hotspare.guest.unused.ntfs.map import ntfs_unused
from hotspare.guest.unused.unused import KeepAll, Quiet, UnusedBlocks
from hotspare.units import KIB, MIB
from tests.guest.unused.garbage import copy_of, prove_unused, run
from tests.guest.unused.ntfs_images import FSCK, LISTING, Disk, fill_up, make_ntfs, ntfs_mounted, populate
from tests.guest.unused.patched import check_sane, kept_by_partclone

VARIANTS = {
    "512-byte clusters": ["-c", "512"],
    "4 KiB clusters": ["-c", "4096"],
    "64 KiB clusters": ["-c", "65536"],
    "4 KiB sectors": ["-s", "4096", "-c", "4096"],
}


def unused_of(image: Path, quiet: Quiet = Quiet.OFFLINE) -> UnusedBlocks:
    reader = RawFile.open(image)
    try:
        return ntfs_unused(reader, quiet)
    finally:
        reader.close()


def free_by_ntfsinfo(image: Path) -> int:
    """Give bytes."""
    told = run(["ntfsinfo", "-m", str(image)])
    cluster = re.search(r"Cluster Size: (\d+)", told)
    free = re.search(r"Free Clusters: (\d+)", told)
    assert cluster
    assert free
    return int(cluster[1]) * int(free[1])


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_what_is_free_is_needed_by_nobody(tmp_path: Path, options: list[str]) -> None:
    image = tmp_path / "image"
    make_ntfs(image, 48 * MIB, *options)
    with ntfs_mounted(image) as root:
        populate(root, small=150)
    unused = unused_of(image)
    check_sane(unused, image.stat().st_size)
    assert unused.free.total == free_by_ntfsinfo(image)
    assert unused.free.total > 20 * MIB
    assert len(unused.free) > 10
    assert not len(unused.free & kept_by_partclone("ntfs", image))
    facts = prove_unused(image, unused, listing=LISTING, fsck=FSCK)
    assert len(facts) > 130
    assert ("user.small", b"one") in facts["same streams"].attributes


def test_clusters_of_two_mebibytes(tmp_path: Path) -> None:
    image = tmp_path / "image"
    make_ntfs(image, 512 * MIB, "-c", str(2 * MIB))
    with ntfs_mounted(image) as root:
        (root / "kept").write_bytes(b"k" * 3 * MIB)
        (root / "gone").write_bytes(b"g" * 3 * MIB)
        (root / "gone").unlink()
    unused = unused_of(image)
    assert unused.free.total == free_by_ntfsinfo(image) > 200 * MIB
    prove_unused(image, unused, listing=LISTING, fsck=FSCK)


def test_the_master_file_table_in_many_pieces(tmp_path: Path) -> None:
    """Its run list needs a second record, which only the first part of it leads to."""
    image = tmp_path / "image"
    make_ntfs(image, 8 * MIB, "-c", "512")
    with ntfs_mounted(image) as root:
        count = fill_up(root, "old", 900)
        for number in range(0, count, 2):
            (root / f"old{number}").unlink()
        fill_up(root, "new", 0)
        for number in range(1, count, 20):
            (root / f"old{number}").unlink()
    table = Disk.of(image).table
    assert sum(part.kind == 0x80 for part in table.attributes(table.record(0))) == 2
    assert len(table.data.runs) > 150
    unused = unused_of(image)
    assert unused.free.total == free_by_ntfsinfo(image) > 0
    prove_unused(image, unused, listing=LISTING, fsck=FSCK)


def test_a_large_empty_one_takes_a_moment(tmp_path: Path) -> None:
    image = tmp_path / "image"
    make_ntfs(image, 1024 * 1024 * MIB)
    begun = time.process_time()
    unused = unused_of(image)
    assert time.process_time() - begun < 3
    assert unused.free.total > 1023 * 1024 * MIB
    assert unused.size == 1024 * 1024 * MIB - 4 * KIB


def test_the_copy_of_the_boot_sector_is_kept(tmp_path: Path) -> None:
    image = tmp_path / "image"
    make_ntfs(image, 16 * MIB)
    last = image.stat().st_size - 512
    with image.open("rb") as file:
        file.seek(last)
        assert file.read(11)[3:] == b"NTFS    "
    assert not unused_of(image).free.covers(last, last + 1)


def test_one_that_a_linux_program_has_mounted_bears_no_mark_and_is_kept(tmp_path: Path) -> None:
    image = tmp_path / "image"
    make_ntfs(image, 16 * MIB)
    with ntfs_mounted(image) as root:
        (root / "file").write_bytes(b"x" * MIB)
        with pytest.raises(KeepAll, match="Linux"):
            unused_of(copy_of(image, "frozen"), Quiet.FROZEN)


def test_a_volume_that_is_shorter_than_its_file_system(tmp_path: Path) -> None:
    image = tmp_path / "image"
    make_ntfs(image, 16 * MIB)
    with image.open("r+b") as file:
        file.truncate(16 * MIB - 64 * KIB)
    with pytest.raises(KeepAll, match="larger than its volume"):
        unused_of(image)


def test_something_else(tmp_path: Path) -> None:
    image = tmp_path / "image"
    for content in (b"", b"x", bytes(MIB)):
        image.write_bytes(content)
        with pytest.raises(KeepAll):
            unused_of(image)
