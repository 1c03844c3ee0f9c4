"""The map of ext2/3/4 against the programs of e2fsprogs, partclone, and garbage in all that it calls free."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from hotspare.block.ranges import NOTHING, Ranges
from hotspare.guest.unused.unused import UnusedBlocks
from hotspare.units import MIB, TIB
from tests.guest.unused import ext_images
from tests.guest.unused.ext_images import ODD, VARIANTS, Variant, by_debugfs, find, free_by_dumpe2fs, make
from tests.guest.unused.garbage import by_mount, prove_unused, run, stale_bytes


@pytest.fixture(params=sorted(VARIANTS))
def variant(request: pytest.FixtureRequest) -> Variant:
    return VARIANTS[request.param]


def test_nobody_misses_what_is_free(tmp_path: Path, variant: Variant) -> None:
    image = ext_images.make_filled(tmp_path / "image", variant)
    unused = find(image)
    by_tool, counted = free_by_dumpe2fs(image)
    assert unused.free == by_tool
    assert unused.free.total == counted
    assert unused.file_system == variant.kind
    assert variant.size - MIB < unused.size <= variant.size + ODD
    assert unused.scratch == NOTHING
    assert unused.remarks == ()
    assert stale_bytes(image, unused) > MIB
    listing = by_mount("ext4") if variant.mountable else by_debugfs
    assert len(prove_unused(image, unused, listing=listing, fsck=["e2fsck", "-fn"])) > 130


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_an_empty_one_is_mapped_as_dumpe2fs_does(tmp_path: Path, name: str) -> None:
    """Nothing was mounted, so that most bitmaps were never written."""
    image = make(
        tmp_path / "image", VARIANTS[name].options, kind=VARIANTS[name].kind, size=VARIANTS[name].size
    )
    unused = find(image)
    assert (unused.free, unused.free.total) == free_by_dumpe2fs(image)


def test_the_proof_notices_a_block_that_is_in_use(tmp_path: Path) -> None:
    image = ext_images.make_filled(tmp_path / "image", VARIANTS["1k"])
    unused = find(image)
    told = run(["debugfs", "-R", 'blocks "/many/file 7"', str(image)])
    block = int(told.split()[-1])
    more = unused.free | Ranges.of([(block * 1024, block * 1024 + 1024)])
    wrong = UnusedBlocks(unused.file_system, unused.size, more)
    with pytest.raises(AssertionError, match=r"1 of \d+ files differ: \['many/file 7'\]"):
        prove_unused(image, wrong, listing=by_mount("ext4"), fsck=["e2fsck", "-fn"])


@pytest.mark.parametrize("name", ["default", "ext3", "meta_bg-1k-plain"])
def test_nothing_is_left_out_that_partclone_keeps(tmp_path: Path, name: str) -> None:
    """Not with ``bigalloc``, at which this version of partclone fails."""
    if shutil.which("partclone.extfs") is None:
        pytest.skip("partclone is not installed")
    image = ext_images.make_filled(tmp_path / "image", VARIANTS[name])
    domain = tmp_path / "domain"
    log = tmp_path / "log"
    run(["partclone.extfs", "-q", "-D", "-s", str(image), "-o", str(domain), "-L", str(log)])
    lines = [line.split() for line in domain.read_text().splitlines() if not line.startswith("#")]
    kept = Ranges.of(
        [(int(at, 16), int(at, 16) + int(size, 16)) for at, size, kind in lines[1:] if kind == "+"]
    )
    assert kept.total > MIB
    assert len(find(image).free & kept) == 0


def test_what_the_volume_has_beyond_is_kept(tmp_path: Path) -> None:
    image = make(tmp_path / "image", "-b 1024")
    before = find(image)
    with image.open("ab") as file:
        file.write(b"x" * MIB)
    assert find(image) == before


@pytest.mark.parametrize("options", ["", "-O ^metadata_csum,^flex_bg"])
def test_a_terabyte_takes_a_moment(tmp_path: Path, options: str) -> None:
    image = tmp_path / "image"
    with image.open("xb") as file:
        file.truncate(TIB)
    made = subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", *options.split(), str(image)], check=False)
    assert made.returncode == 0
    started = time.process_time()
    unused = find(image)
    assert time.process_time() - started < 2
    assert unused.free.total > 0.9 * TIB


def test_of_very_many_pieces_the_smallest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = ext_images.make_filled(tmp_path / "image", VARIANTS["1k"])
    whole = find(image)
    monkeypatch.setattr("hotspare.guest.unused.free_runs._RUNS_MAX", len(whole.free) // 2)
    unused = find(image)
    assert unused.remarks == ("its free space is in too many pieces: the smallest are kept",)
    assert 0 < len(unused.free) <= len(whole.free) // 2
    assert len(unused.free - whole.free) == 0


@pytest.mark.parametrize("feature", ["read-only", "FEATURE_C31", "FEATURE_R20"])
def test_a_feature_is_known_or_all_is_kept(tmp_path: Path, feature: str) -> None:
    image = make(tmp_path / "image", "-b 1024")
    before = find(image)
    run(["debugfs", "-w", "-R", f"feature {feature}", str(image)])
    if feature == "read-only":
        assert find(image) == before
    else:
        assert "features that are not known here" in ext_images.reason(image)
