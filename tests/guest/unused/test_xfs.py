"""The map of XFS against xfs_db, xfs_repair, partclone, and garbage in all that it calls free."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from hotspare.block.ranges import NOTHING, Ranges
from hotspare.guest.unused.unused import Quiet, UnusedBlocks
from hotspare.units import GIB, MIB, TIB
from tests.guest.unused.ext_images import peek, poke, populate
from tests.guest.unused.garbage import by_mount, prove_unused, run, stale_bytes
from tests.guest.unused.live import mounted
from tests.guest.unused.patched import kept_by_partclone
from tests.guest.unused.xfs_images import (
    SIZE,
    VARIANTS,
    asked,
    find,
    free_by_superblock,
    free_by_xfs_db,
    in_pieces,
    make,
    make_filled,
    reason,
    with_checksum,
)

REPAIR = ["xfs_repair", "-n", "-f"]


def check_against_xfs_db(image: Path, unused: UnusedBlocks) -> None:
    counted, listed = free_by_xfs_db(image)
    assert unused.free == counted - listed
    assert len(listed)
    assert not len(listed - counted)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_nobody_misses_what_is_free(tmp_path: Path, name: str) -> None:
    image = make_filled(tmp_path / "image", VARIANTS[name])
    unused = find(image)
    check_against_xfs_db(image, unused)
    assert unused.file_system == "xfs"
    assert SIZE - 17 * MIB < unused.size <= SIZE
    assert unused.scratch == NOTHING
    assert unused.remarks == ()
    assert 0 <= free_by_superblock(image) - unused.free.total < MIB
    assert stale_bytes(image, unused) > MIB
    if shutil.which("partclone.xfs") is not None and "nrext64" not in VARIANTS[name]:
        assert not len(unused.free & kept_by_partclone("xfs", image))
    assert find(image, Quiet.FROZEN) == unused  # not mounted, so not frozen
    assert len(prove_unused(image, unused, listing=by_mount("xfs"), fsck=REPAIR)) > 350


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_an_empty_one_is_mapped_as_xfs_db_does(tmp_path: Path, name: str) -> None:
    image = make(tmp_path / "image", VARIANTS[name])
    check_against_xfs_db(image, find(image))


def test_the_btrees_of_the_images_have_levels(tmp_path: Path) -> None:
    """Else the images would prove too little."""
    image = make_filled(tmp_path / "image", "-b size=1024 -d agcount=1 --unsupported")
    levels, blocks = asked(image, "agf 0", "print bnolevel btreeblks")
    assert levels >= 2
    assert blocks >= 4
    check_against_xfs_db(image, find(image))


def test_the_proof_notices_a_block_that_is_in_use(tmp_path: Path) -> None:
    image = make_filled(tmp_path / "image")
    unused = find(image)
    root, group_blocks = asked(image, "agf 1", "print bnoroot", "sb 0", "print agblocks")
    at = (group_blocks + root) * 4096
    wrong = UnusedBlocks("xfs", unused.size, unused.free | Ranges.of([(at, at + 4096)]))
    with pytest.raises(AssertionError):
        prove_unused(image, wrong, listing=by_mount("xfs"), fsck=REPAIR)


@pytest.mark.parametrize(
    "options", ["", "-b size=512", "-l lazy-count=0 -n version=ci -i attr=1,projid32bit=0"]
)
def test_version_4(tmp_path: Path, options: str) -> None:
    """New kernels mount it no more, so its files come by way of mkfs."""
    contents = [np.random.default_rng(seed).bytes(300_000) for seed in range(3)]
    for number, content in enumerate(contents):
        (tmp_path / f"file{number}").write_bytes(content)
    lines = [f"file{number} ---644 0 0 {tmp_path}/file{number}" for number in range(3)]
    (tmp_path / "files").write_text("\n".join(["/", "0 0", "d--755 0 0", *lines, "$", ""]))
    image = make(tmp_path / "image", f"-m crc=0 {options} -p {tmp_path}/files")
    unused = find(image)
    check_against_xfs_db(image, unused)
    prove_unused(image, unused, listing=lambda _: {}, fsck=REPAIR)
    written = image.read_bytes()
    assert all(content in written for content in contents)


def test_with_another_uuid(tmp_path: Path) -> None:
    image = make_filled(tmp_path / "image")
    run(["xfs_admin", "-U", "generate", str(image)])
    # xfs_admin has emptied the journal in a way that is like none of the kernel's, until the next mount.
    assert reason(image) == "its journal makes no sense (cycles)"
    with mounted(image, "xfs"):
        pass
    unused = find(image)
    check_against_xfs_db(image, unused)
    prove_unused(image, unused, listing=by_mount("xfs"), fsck=REPAIR)


def test_features_of_newer_programs(tmp_path: Path) -> None:
    """Exchange of ranges and parent pointers, which the programs of Debian 12 do not know: only the kernel
    does."""
    image = make(tmp_path / "image")
    block = peek(image, 0, 512)
    features = int.from_bytes(block[216:220], "big") | 0x40 | 0x80
    poke(image, 0, with_checksum(block[:216] + features.to_bytes(4, "big") + block[220:], 224))
    try:
        with mounted(image, "xfs"):
            pass
    except AssertionError:
        pytest.skip("this kernel does not know them")
    with mounted(image, "xfs") as root:
        populate(root)
        in_pieces(root)
    assert len(prove_unused(image, find(image), listing=by_mount("xfs"), fsck=None)) > 350


def test_grown(tmp_path: Path) -> None:
    image = make_filled(tmp_path / "image")
    with image.open("r+b") as file:
        file.truncate(SIZE + 200 * MIB)
    before = find(image)
    assert before.size < SIZE
    device = run(["losetup", "--find", "--show", str(image)]).strip()
    try:
        folder = tmp_path / "folder"
        folder.mkdir()
        run(["mount", device, str(folder)])
        try:
            run(["xfs_growfs", str(folder)])
        finally:
            run(["umount", str(folder)])
    finally:
        run(["losetup", "--detach", device])
    unused = find(image)
    assert unused.size > before.size + 199 * MIB
    check_against_xfs_db(image, unused)
    prove_unused(image, unused, listing=by_mount("xfs"), fsck=REPAIR)


def test_a_terabyte_takes_no_time(tmp_path: Path) -> None:
    image = make(tmp_path / "image", "-l size=64m", size=TIB)
    started = time.process_time()
    unused = find(image)
    assert time.process_time() - started < 2
    assert unused.free.total > TIB - GIB
    assert len(unused.free) < 20


def test_other_devices(tmp_path: Path) -> None:
    other = tmp_path / "other"
    with other.open("xb") as file:
        file.truncate(80 * MIB)
    logged = make(tmp_path / "logged", f"-l logdev={other},size=64m")
    assert reason(logged) == "its journal is on another device"
    with_realtime = make(tmp_path / "realtime", f"-m reflink=0,rmapbt=0 -r rtdev={other}")
    assert reason(with_realtime) == "it has a realtime device"
