"""Swap files inside ext2/3/4: their content is scratch, and nothing odd is taken for one."""

import os
import random
import re
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from ctypes import CDLL, c_long
from dataclasses import replace
from pathlib import Path

import pytest

from hotspare.block.ranges import NOTHING, Ranges
from hotspare.guest.unused.ext.extents import runs_of
from hotspare.guest.unused.ext.inode import Inode, Odd
from hotspare.guest.unused.ext.map import ext_unused
from hotspare.guest.unused.ext.superblock import Superblock
from hotspare.guest.unused.ext.swap import HEAD
from hotspare.guest.unused.unused import KeepAll, Quiet
from hotspare.units import KIB, MIB
from tests.guest.unused.ext_images import find, make, peek, poke, reason
from tests.guest.unused.garbage import by_mount, mounted, prove_unused, run
from tests.memory_disk import MemoryDisk

_LIBC = CDLL(None)
LAYOUTS = {
    "ext2-1k": ("ext2", "-b 1024"),
    "ext2-revision-0": ("ext2", "-b 1024 -r 0 -O none -I 128"),
    "ext3": ("ext3", "-b 4096"),
    "ext4": ("ext4", "-b 4096"),
    "ext4-1k": ("ext4", "-b 1024"),
    "plain": ("ext4", "-b 2048 -O ^metadata_csum,^64bit"),
    "bigalloc": ("ext4", "-b 4096 -O bigalloc"),
}


def make_swap(path: Path, size: int) -> None:
    """Write a swap file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(random.Random(5).randbytes(size))
    path.chmod(0o600)
    run(["mkswap", str(path)])


def make_scattered_swap(root: Path, path: str, size: int) -> None:
    """Write a swap file of which no two pages are neighbours: the file system is filled for that."""
    make_swap(root / path, size)
    holes = [(at, min(4096, size - at)) for at in range(4096, size, 8192)]
    filler, between = root / "filler", root / "between"
    write_until_full(filler, (MIB, 4 * KIB, KIB))
    with (root / path).open("r+b", buffering=0) as file:
        content = [os.pread(file.fileno(), length, at) for at, length in holes]
        for at, length in holes:
            assert _LIBC.fallocate(file.fileno(), 3, c_long(at), c_long(length)) == 0  # punches a hole
        run(["sync", "--file-system", str(root)])
        write_until_full(between, (4 * KIB,))
        filler.unlink()
        run(["sync", "--file-system", str(root)])
        for (at, _), data in zip(holes, content, strict=True):
            os.pwrite(file.fileno(), data, at)
    between.unlink()


def write_until_full(path: Path, pieces: tuple[int, ...]) -> None:
    with path.open("wb", buffering=0) as file:
        for piece in pieces:
            with suppress(OSError):
                while file.write(b"f" * piece) == piece:
                    pass
    run(["sync", "--file-system", str(path.parent)])


def content_by_debugfs(image: Path, path: str, size: int) -> Ranges:
    """Give where a file's whole blocks after its head lie."""
    block = KIB << int.from_bytes(peek(image, 1024 + 0x18, 4), "little")
    requests = "".join(f"bmap {path} {number}\n" for number in range(HEAD // block, size // block))
    done = subprocess.run(
        ["debugfs", "-f", "-", str(image)], input=requests, check=True, capture_output=True, text=True
    )
    words = [line.split()[0] for line in done.stdout.splitlines() if line]
    places = [int(word) for word in words if word.isdigit()]
    assert len(places) == size // block - HEAD // block
    return Ranges.of([(place * block, place * block + block) for place in places])


@pytest.mark.parametrize(
    ("name", "path"), [*((name, "/swapfile") for name in sorted(LAYOUTS)), ("ext4", "/swap/swapfile")]
)
def test_the_content_of_a_swap_file_is_scratch(tmp_path: Path, name: str, path: str) -> None:
    kind, options = LAYOUTS[name]
    image = make(tmp_path / "image", options, kind=kind, size=16 * MIB)
    size = 2 * MIB + 1536
    with mounted(image, "ext4") as root:
        make_scattered_swap(root, path[1:], size)
        Path(root, "big").write_bytes(random.Random(1).randbytes(MIB))
    unused = find(image)
    assert unused.scratch == content_by_debugfs(image, path, size)
    assert unused.remarks == ()
    prove_unused(image, unused, listing=by_mount("ext4"), fsck=["e2fsck", "-fn"], worthless=[path[1:]])
    with mounted(image, "ext4", "ro") as root:
        assert Path(root, path[1:]).read_bytes()[4086:4096] == b"SWAPSPACE2"


def test_an_extent_tree_with_two_levels_of_blocks(tmp_path: Path) -> None:
    image = make(tmp_path / "image", "-b 1024", size=20 * MIB)
    size = 4 * MIB
    with mounted(image, "ext4") as root:
        make_scattered_swap(root, "swap.img", size)
    assert "(ETB1)" in run(["debugfs", "-R", "stat /swap.img", str(image)])
    assert find(image).scratch == content_by_debugfs(image, "/swap.img", size)


def test_block_pointers_three_times_removed(tmp_path: Path) -> None:
    image = make(tmp_path / "image", "-b 1024 -O ^extent,^64bit", size=90 * MIB)
    size = 66 * MIB
    with mounted(image, "ext4") as root:
        make_swap(root / "swap.img", size)
    assert "(TIND)" in run(["debugfs", "-R", "stat /swap.img", str(image)])
    assert find(image).scratch == content_by_debugfs(image, "/swap.img", size)


def test_in_a_folder_that_has_no_block_it_is_not_found(tmp_path: Path) -> None:
    image = make(tmp_path / "image", "-b 4096 -O inline_data")
    with mounted(image, "ext4") as root:
        make_swap(root / "swap/swapfile", MIB)
    assert find(image).scratch == NOTHING


FSTAB = """\
# a comment: /commented none swap sw 0 0
UUID=1 / ext4 defaults 0 1
  /var/lib/swap\tnone   swap  sw 0 0
/data/swap none swap sw 0 0
/dev/sda2 none swap sw 0 0
/srv/swap none swap sw
/dev/sdb1 /srv ext4 defaults 0 2
/data.txt none bind
short line
/gone none swap
"""


def test_swap_files_that_fstab_names(tmp_path: Path) -> None:
    """Not what a comment names, and not what another file system hides."""
    image = make(tmp_path / "image", "-b 4096")
    names = ["commented", "var/lib/swap", "data/swap", "srv/swap", "data.txt"]
    with mounted(image, "ext4") as root:
        for name in names:
            make_swap(root / name, MIB)
        Path(root, "etc").mkdir()
        Path(root, "etc/fstab").write_text(FSTAB)
    expected = [content_by_debugfs(image, f"/{name}", MIB) for name in ("var/lib/swap", "data/swap")]
    assert find(image).scratch == Ranges.union(expected)


def spoil(offset: int, data: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), data, offset)

    return change


def punch(path: Path) -> None:
    run(["fallocate", "--punch-hole", "--offset", str(512 * KIB), "--length", "4096", str(path)])


def punch_start(path: Path) -> None:
    content = path.read_bytes()
    run(["fallocate", "--punch-hole", "--offset", "0", "--length", "4096", str(path)])
    assert content


def cut(path: Path) -> None:
    os.truncate(path, HEAD)


def grow(path: Path) -> None:
    os.truncate(path, 2 * MIB)


ODD_ONES: dict[str, tuple[Callable[[Path], None], str]] = {
    "asleep": (spoil(4086, b"S1SUSPEND\0"), "a system sleeps in it"),
    "asleep-by-uswsusp": (spoil(4086, b"ULSUSPEND\0"), "a system sleeps in it"),
    "asleep-too": (spoil(65526, b"LINHIB0001"), "a system sleeps in it"),
    "no-signature": (spoil(4086, b"SWAP-SPACE"), "it has no signature of swap space"),
    "two-signatures": (spoil(16374, b"SWAPSPACE2"), "it has no signature of swap space"),
    "version": (spoil(1024, b"\2\0\0\0"), "its header of swap space makes no sense"),
    "pages": (spoil(1028, struct.pack("<I", 256)), "its header of swap space makes no sense"),
    "hole": (punch, "it has holes"),
    "hole-at-start": (punch_start, "it has holes"),
    "hole-at-end": (grow, "it has holes"),
    "short": (cut, "it is too small for swap space"),
}


@pytest.mark.parametrize("name", sorted(ODD_ONES))
@pytest.mark.parametrize("options", ["", "-O ^extent,^64bit"])
def test_what_is_odd_is_kept(tmp_path: Path, name: str, options: str) -> None:
    image = make(tmp_path / "image", f"-b 4096 {options}")
    change, expected = ODD_ONES[name]
    with mounted(image, "ext4") as root:
        make_swap(root / "swapfile", MIB)
        change(root / "swapfile")
    unused = find(image)
    assert unused.scratch == NOTHING
    assert unused.remarks == (f"/swapfile is kept: {expected}",)


def test_what_is_no_swap_file_at_all(tmp_path: Path) -> None:
    image = make(tmp_path / "image", "-b 4096")
    with mounted(image, "ext4") as root:
        Path(root, "swapfile").mkdir()
        make_swap(root / "real", MIB)
        Path(root, "swap.img").symlink_to("real")
        Path(root, "swap").write_text("no folder")
    unused = find(image)
    assert unused.scratch == NOTHING
    assert unused.remarks == tuple(
        f"{path} is kept: it is not a regular file" for path in ("/swapfile", "/swap.img")
    )


def test_content_that_goes_through_the_journal_is_kept(tmp_path: Path) -> None:
    image = make(tmp_path / "image", "-b 4096")
    with mounted(image, "ext4") as root:
        make_swap(root / "swapfile", MIB)
    run(["debugfs", "-w", "-R", "set_inode_field /swapfile flags 0x84000", str(image)])
    assert find(image).scratch == NOTHING


def test_allocated_and_never_written(tmp_path: Path) -> None:
    image = make(tmp_path / "image", "-b 4096", size=160 * MIB)
    with mounted(image, "ext4") as root:
        run(["fallocate", "--length", str(130 * MIB), str(root / "swapfile")])
        run(["mkswap", str(root / "swapfile")])
    unused = find(image)
    assert unused.scratch.total == 130 * MIB - HEAD
    prove_unused(image, unused, listing=by_mount("ext4"), fsck=["e2fsck", "-fn"], worthless=["swapfile"])


@pytest.mark.parametrize("page", [4, 8, 16, 32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pages_and_processors_of_all_kinds(tmp_path: Path, page: int, order: str) -> None:
    image = make(tmp_path / "image", "-b 4096")
    head = bytearray(HEAD)
    head[1024:1036] = struct.pack(f"{order}III", 1, MIB // KIB // page - 1, 0)
    head[page * KIB - 10 : page * KIB] = b"SWAPSPACE2"
    with mounted(image, "ext4") as root:
        Path(root, "swapfile").write_bytes(bytes(head) + bytes(MIB - HEAD))
    assert find(image).scratch.total == MIB - HEAD


def test_a_bitmap_that_calls_a_swap_file_free_is_not_believed(tmp_path: Path) -> None:
    """A block of it is swapped for a free one, so that all counters still agree."""
    image = make(tmp_path / "image", "-b 4096 -O ^metadata_csum")
    with mounted(image, "ext4") as root:
        make_swap(root / "swapfile", MIB)
    unused = find(image)
    used = list(unused.scratch)[-1][1] // 4096 - 1
    free = list(unused.free)[-1][0] // 4096
    run(["debugfs", "-w", "-R", f"freeb {used}", str(image)])
    run(["debugfs", "-w", "-R", f"setb {free}", str(image)])
    assert reason(image) == "its block bitmaps call free what is in use"


def spots_of(image: Path) -> list[tuple[int, int]]:
    """Give where the root folder, the swap file's inode and its tree lie: offsets and lengths."""
    folder = int(run(["debugfs", "-R", "blocks /", str(image)]).split()[0]) * KIB
    found = re.search(r"block (\d+), offset 0x(\w+)", run(["debugfs", "-R", "imap /swapfile", str(image)]))
    assert found
    inode = int(found[1]) * KIB + int(found[2], 16)
    told = run(["debugfs", "-R", "stat /swapfile", str(image)])
    nodes = [int(node) * KIB for node in re.findall(r"\((?:ETB\d|D?IND)\):(\d+)", told)]
    assert len(nodes) > 1
    return [(inode, 128), (inode + 0x28, 60), (folder, 128), *((node, 64) for node in nodes)]


@pytest.mark.parametrize(
    "options", ["-b 1024", "-b 1024 -O ^metadata_csum", "-b 1024 -O ^extent,^64bit,^metadata_csum"]
)
def test_whatever_its_inodes_hold_it_ends_well(tmp_path: Path, options: str) -> None:
    """Bytes of the folder, of the inode and of the swap file's tree are replaced at random."""
    image = make(tmp_path / "image", options, size=12 * MIB)
    with mounted(image, "ext4") as root:
        make_scattered_swap(root, "swapfile", MIB)
    disk = MemoryDisk(image.read_bytes())
    whole = ext_unused(disk, Quiet.OFFLINE)
    assert whole.scratch.total == MIB - HEAD
    dice = random.Random(11)
    spots = spots_of(image)
    kept = 0
    for _ in range(120):
        start, length = dice.choice(spots)
        at = start + dice.randrange(length)
        before = bytes(disk.data[at : at + 2])
        disk.write(at, dice.choice([b"\0", b"\xff", b"\xff\xff", dice.randbytes(1), dice.randbytes(2)]))
        with suppress(KeepAll):
            unused = ext_unused(disk, Quiet.OFFLINE)
            assert unused.free == whole.free
            assert len(unused.scratch & unused.free) == 0
            kept += unused.scratch == NOTHING
        disk.write(at, before)
    assert ext_unused(disk, Quiet.OFFLINE) == whole
    assert kept > 20


@pytest.mark.parametrize("piece", ["64KiB", "8MiB"])
def test_blocks_beyond_its_end_are_no_part_of_a_swap_file(tmp_path: Path, piece: str) -> None:
    image = make(tmp_path / "image", "-b 4096")
    with mounted(image, "ext4") as root:
        make_swap(root / "swapfile", MIB)
        place = ["--keep-size", "--offset", "2MiB", "--length", piece]
        run(["fallocate", *place, str(root / "swapfile")])
    unused = find(image)
    assert unused.remarks == ()
    assert unused.scratch == content_by_debugfs(image, "/swapfile", MIB)


def test_checksums_of_inodes_and_of_extent_trees_count(tmp_path: Path) -> None:
    """Bytes are changed that mean nothing here: an access time, and a node's entries that are not in use."""
    image = make(tmp_path / "image", "-b 1024", size=12 * MIB)
    with mounted(image, "ext4") as root:
        make_scattered_swap(root, "swapfile", MIB)
    whole = find(image)
    inode, _, _, *nodes = (start for start, _ in spots_of(image))
    for place, remarks in (
        (inode + 8, ()),
        (nodes[-1] + 1000, ("/swapfile is kept: the checksum of its extent tree is wrong",)),
    ):
        before = peek(image, place, 1)
        poke(image, place, bytes([before[0] ^ 1]))
        unused = find(image)
        assert (unused.scratch, unused.remarks, unused.free) == (NOTHING, remarks, whole.free)
        poke(image, place, before)
    assert find(image) == whole


def test_long_extents_and_far_ones(tmp_path: Path) -> None:
    """32768 blocks are an extent that is written; from 32769 on the length is that of one which is not."""
    image = make(tmp_path / "image", "-b 4096")
    superblock = Superblock.parse(peek(image, 1024, 1024), image.stat().st_size)
    far = replace(superblock, blocks=1 << 34)
    entries = [(0, 32768, 0, 1000), (32768, 32769, 1, 7), (40000, 65535, 3, 9)]
    tree = struct.pack("<HHHHI", 0xF30A, 3, 4, 0, 0) + b"".join(struct.pack("<IHHI", *one) for one in entries)
    inode = Inode(12, 0o100600, MIB, has_extents=True, map=tree.ljust(60, b"\0"), seed=0)
    disk = MemoryDisk(b"")
    assert runs_of(disk, far, inode).tolist() == [
        [0, 1000, 32768],
        [32768, (1 << 32) + 7, 1],
        [40000, (3 << 32) + 9, 32767],
    ]
    with pytest.raises(Odd, match="beyond the end"):
        runs_of(disk, superblock, inode)
