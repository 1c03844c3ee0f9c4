"""The map of Btrfs against its own programs, partclone, and garbage in all that it calls free."""

import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from hotspare.block.ranges import NOTHING, Ranges
from hotspare.guest.unused.unused import Quiet, UnusedBlocks
from hotspare.units import GIB, KIB, MIB, TIB
from tests.guest.unused.btrfs_images import (
    SIZE,
    STRIPED,
    VARIANTS,
    Chunks,
    devices_of,
    fill_up,
    find,
    make,
    make_filled,
    mounted_devices,
    reason,
    with_block_group_tree,
)
from tests.guest.unused.ext_images import populate
from tests.guest.unused.garbage import by_mount, facts_below, fill, prove_unused, run
from tests.guest.unused.live import mounted
from tests.guest.unused.patched import kept_by_partclone

CHECK = ["btrfs", "check", "--check-data-csum"]
FIXED = Ranges.of([(0, MIB), (64 * MIB, 64 * MIB + 64 * KIB)])


def expected_free(image: Path, size: int, device: int = 1) -> Ranges:
    """Work it out from what the programs of Btrfs say."""
    chunks = Chunks(image)
    striped = Ranges.union(chunks.whole(kind, device) for kind in STRIPED)
    kept = chunks.places(chunks.used, device) | chunks.whole("SYSTEM", device) | striped | FIXED
    return kept.complement(size).aligned_inside(4096)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_nobody_misses_what_is_free(tmp_path: Path, name: str) -> None:
    options = ["space_cache=v1"] if name == "space-cache-v1" else []
    image = make_filled(tmp_path / "image", VARIANTS[name], *options)
    unused = find(image)
    assert unused.file_system == "btrfs"
    assert SIZE - 64 * KIB < unused.size <= SIZE
    assert unused.free == expected_free(image, unused.size)
    assert unused.scratch == NOTHING
    assert unused.remarks == ()
    assert len(unused.free) > 60
    assert find(image, Quiet.FROZEN) == unused
    assert len(prove_unused(image, unused, listing=by_mount("btrfs"), fsck=CHECK)) > 500


def test_the_proof_notices_a_block_that_is_in_use(tmp_path: Path) -> None:
    image = make_filled(tmp_path / "image")
    unused = find(image)
    chunks = Chunks(image)
    data = Ranges.of((at, at + length) for at, length, kind, _ in chunks.all if "DATA" in kind)
    start, end = next(iter(chunks.used & data))
    wrong = UnusedBlocks("btrfs", unused.size, unused.free | chunks.places(Ranges.of([(start, end)])))
    with pytest.raises(AssertionError):
        prove_unused(image, wrong, listing=by_mount("btrfs"), fsck=CHECK)


def test_partclone_keeps_more_only_where_it_mistakes_addresses(tmp_path: Path) -> None:
    """It takes logical addresses of file extents for places on the device, besides the right places."""
    if shutil.which("partclone.btrfs") is None:
        pytest.skip("partclone is not installed")
    # Without a subvolume that is half deleted: of such, partclone reads also what was deleted.
    image = make(tmp_path / "image")
    with mounted(image, "btrfs") as root:
        populate(root)
    more = kept_by_partclone("btrfs", image) & find(image).free
    told = run(["btrfs", "inspect-internal", "dump-tree", str(image)])
    found = [(int(at), int(length)) for at, length in re.findall(r"disk byte (\d+) nr (\d+)", told)]
    mistaken = in_nodes((at, at + length) for at, length in found if at)
    chunks = Chunks(image)
    # It counts in tree blocks, and keeps up to 64 KiB for one of them.
    least = Ranges.of((at, max(end, at + 64 * KIB)) for at, end in chunks.extents)
    assert not len(more - mistaken - in_nodes(chunks.places(least)))
    assert (more & mistaken).total > more.total * 3 // 4
    assert more.total > MIB


def in_nodes(ranges: Iterable[tuple[int, int]]) -> Ranges:
    node = 16 * KIB
    return Ranges.of((start // node * node, -(-end // node) * node) for start, end in ranges)


def test_a_terabyte_takes_no_time(tmp_path: Path) -> None:
    image = make(tmp_path / "image", size=TIB)
    started = time.process_time()
    unused = find(image)
    assert time.process_time() - started < 2
    assert unused.free.total > TIB - GIB
    assert len(unused.free) < 20
    assert not len(unused.free & Ranges.of([(256 * GIB, 256 * GIB + 64 * KIB)]))
    assert unused.free.covers(256 * GIB + 64 * KIB, 300 * GIB)


def test_resized_balanced_and_renamed(tmp_path: Path) -> None:
    """After a balance, logical addresses are nowhere near their places."""
    image = make_filled(tmp_path / "image")
    with image.open("r+b") as file:
        file.truncate(SIZE + 200 * MIB)
    assert find(image).size <= SIZE
    with mounted(image, "btrfs") as root:
        run(["btrfs", "filesystem", "resize", "max", str(root)])
    larger = find(image)
    assert larger.size > SIZE + 199 * MIB
    assert larger.free == expected_free(image, larger.size)
    with mounted(image, "btrfs") as root:
        run(["btrfs", "filesystem", "resize", "-150M", str(root)])
        run(["btrfs", "balance", "start", "--full-balance", str(root)])
    run(["btrfstune", "-m", str(image)])  # another UUID in metadata
    unused = find(image)
    assert unused.size < SIZE + 60 * MIB
    assert unused.free == expected_free(image, unused.size)
    prove_unused(image, unused, listing=by_mount("btrfs"), fsck=CHECK)


def test_with_a_block_group_tree(tmp_path: Path) -> None:
    image = with_block_group_tree(make(tmp_path / "image"))
    with mounted(image, "btrfs") as root:
        fill_up(root)
    unused = find(image)
    assert unused.free == expected_free(image, unused.size)
    prove_unused(image, unused, listing=by_mount("btrfs"), fsck=CHECK)


def test_a_deletion_goes_on_over_garbage(tmp_path: Path) -> None:
    """A subvolume that is half deleted is deleted by the next mount, which reads what is in use of it."""
    image = make_filled(tmp_path / "image")
    fill(image, find(image).free)
    with mounted(image, "btrfs") as root:
        run(["btrfs", "subvolume", "sync", str(root)])
        facts_below(root)
    run([*CHECK, str(image)])


def test_converted_from_ext4(tmp_path: Path) -> None:
    """Its chunks lie where ext4 had its blocks, and a file holds the ext4 of before."""
    image = tmp_path / "image"
    with image.open("xb") as file:
        file.truncate(SIZE // MIB * MIB)
    run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", str(image)])
    with mounted(image, "ext4") as root:
        for number in range(30):
            (root / f"{number}").write_bytes(bytes([number + 1]) * 100_000)
    run(["btrfs-convert", str(image)])
    unused = find(image)
    assert unused.free.total > 100 * MIB
    prove_unused(image, unused, listing=by_mount("btrfs"), fsck=CHECK)


@pytest.mark.parametrize(
    ("options", "count", "maps"),
    [
        ("-d raid1 -m raid1", 2, True),
        ("-d single -m raid1", 2, True),
        ("-d raid0 -m raid1", 2, True),
        ("-d raid10 -m raid1c4", 4, True),
        ("-d raid5 -m raid1c3", 3, True),
        ("-d raid1 -m raid1", 3, False),
        ("-d raid0 -m raid0", 2, False),
    ],
)
def test_on_many_devices(tmp_path: Path, options: str, count: int, maps: bool) -> None:
    images = [tmp_path / f"image{number}" for number in range(count)]
    with devices_of(images, options) as devices:
        with mounted_devices(devices) as root:
            fill_up(root)
            before = facts_below(root)
        told = {reason(image, Quiet.OFFLINE) for image in images}
        assert told == {f"it spans {count} devices, and nothing proves that all have the same last commit"}
        reasons = [reason(image, Quiet.FROZEN) for image in images]
        if not maps:
            assert any(reasons)
            return
        assert reasons == [""] * count
        for number, image in enumerate(images):
            unused = find(image, Quiet.FROZEN)
            assert unused.remarks[0] == f"one of {count} devices"
            assert len(unused.remarks) == 1 + any(f"-d {word.lower()} " in options for word in STRIPED)
            assert unused.free == expected_free(images[0], unused.size, number + 1)
            fill(image, unused.free)
        run([*CHECK, devices[0]])
        with mounted_devices(devices, "ro") as root:
            run(["btrfs", "scrub", "start", "-B", "-r", str(root)])
            assert facts_below(root) == before
