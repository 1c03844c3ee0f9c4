"""Real ext2/3/4 images for tests: made with mke2fs, filled through the kernel where that can mount them."""

import os
import random
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hotspare.block.ranges import Ranges
from hotspare.guest.unused.ext.map import ext_unused
from hotspare.units import KIB, MIB
from tests.guest.unused.asking import unused_in, why_kept_in
from tests.guest.unused.garbage import FileFacts, facts_below, mounted, run

find = partial(unused_in, ext_unused)
"""Reads the map of an image."""
reason = partial(why_kept_in, ext_unused)
"""Tells why all of an image is kept; empty when it is not."""

ODD = 5 * KIB
"""Added to the size of images, so that their ends are no round numbers."""


class Variant(NamedTuple):
    """Options of mke2fs, and how large the image is."""

    options: str
    kind: str = "ext4"
    size: int = 40 * MIB
    mountable: bool = True
    """By the kernels on which the tests run."""


_EVERYTHING = "encrypt,verity,stable_inodes,orphan_file,large_dir,ea_inode,mmp,inline_data,fast_commit"
VARIANTS = {
    "ext2": Variant("-b 4096 -g 4096", "ext2"),
    "ext2-1k": Variant("-b 1024", "ext2"),
    "ext2-revision-0": Variant("-b 1024 -r 0 -O none -I 128", "ext2"),
    "ext3": Variant("-b 4096 -g 4096", "ext3"),
    "ext3-2k": Variant("-b 2048 -g 4096", "ext3"),
    "default": Variant("", size=136 * MIB),
    "1k": Variant("-b 1024"),
    "2k": Variant("-b 2048 -g 4096"),
    "64k": Variant("-b 65536 -g 1024", size=200 * MIB, mountable=False),
    "bigalloc": Variant("-O bigalloc -C 16384 -g 8192"),
    "bigalloc-64k": Variant("-O bigalloc -C 65536", size=72 * MIB),
    "bigalloc-1k": Variant("-b 1024 -O bigalloc -C 16384"),
    "bigalloc-1k-uninit": Variant("-b 1024 -O bigalloc,^metadata_csum,uninit_bg -C 8192 -g 8192"),
    "bigalloc-1k-meta_bg": Variant("-b 1024 -O bigalloc,meta_bg,^resize_inode -C 4096"),
    "meta_bg": Variant("-b 2048 -g 512 -O meta_bg,^resize_inode"),
    "meta_bg-1k-plain": Variant("-b 1024 -g 512 -O meta_bg,^resize_inode,^metadata_csum,uninit_bg,^flex_bg"),
    "no-flex_bg": Variant("-g 4096 -O ^flex_bg"),
    "no-flex_bg-1k": Variant("-b 1024 -O ^flex_bg,^resize_inode"),
    "flex_bg-2": Variant("-b 1024 -G 2"),
    "packed": Variant("-b 1024 -E packed_meta_blocks=1"),
    "no-64bit": Variant("-b 1024 -O ^64bit"),
    "no-sparse_super": Variant("-b 1024 -O ^sparse_super,^resize_inode"),
    "sparse_super2": Variant("-b 1024 -O sparse_super2,^resize_inode"),
    "sparse_super2-one": Variant("-g 2048 -O sparse_super2,^resize_inode -E num_backup_sb=1"),
    "uninit_bg": Variant("-g 4096 -O ^metadata_csum,uninit_bg"),
    "uninit_bg-32bit-1k": Variant("-b 1024 -O ^metadata_csum,^64bit,uninit_bg"),
    "no-checksums": Variant("-b 1024 -O ^metadata_csum"),
    "metadata_csum_seed": Variant("-b 1024 -O metadata_csum_seed"),
    "no-extent": Variant("-b 1024 -O ^extent,^64bit"),
    "inline_data": Variant("-g 4096 -O inline_data"),
    "everything": Variant(f"-b 1024 -O {_EVERYTHING}"),
    "quota": Variant("-b 1024 -O quota,project,casefold", mountable=False),
    "reserved": Variant("-b 1024 -E resize=4194304", size=24 * MIB),
    "small-groups": Variant("-b 1024 -g 256", size=24 * MIB),
}


def make(image: Path, options: str, *, kind: str = "ext4", size: int = 40 * MIB) -> Path:
    """Make an empty file system."""
    with image.open("xb") as file:
        file.truncate(size + ODD)
    run(["mke2fs", "-q", "-F", "-t", kind, *options.split(), str(image)])
    return image


def make_filled(image: Path, variant: Variant) -> Path:
    """Make a file system with all sorts of files, and with much that was deleted."""
    if variant.mountable:
        make(image, variant.options, kind=variant.kind, size=variant.size)
        with mounted(image, "ext4") as root:
            populate(root)
        return image
    with tempfile.TemporaryDirectory() as folder:
        populate(Path(folder))
        Path(folder, "deleted").write_bytes(random.Random(7).randbytes(3 * MIB))
        make(image, f"{variant.options} -d {folder}", kind=variant.kind, size=variant.size)
    run(["debugfs", "-w", "-R", "rm deleted", str(image)])
    run(["e2fsck", "-fy", str(image)], statuses=(0, 1))  # mke2fs does not count what -d brings into quotas
    return image


def populate(root: Path) -> None:
    """Write files of all kinds, the same each time, and delete some MiB of them."""
    dice = random.Random(1)
    for number in range(40):
        Path(root, f"stale{number}").write_bytes(dice.randbytes(80 * KIB))
    run(["sync", "--file-system", str(root)])
    for folder in ("many", "tiny", "deep/deeper/deepest"):
        Path(root, folder).mkdir(parents=True)
    for number in range(60):
        Path(root, "many", f"file {number}").write_bytes(dice.randbytes(dice.randrange(30 * KIB)))
        Path(root, "tiny", f"t{number}").write_bytes(b"q" * number * 2)
    for number in range(0, 40, 2):  # every second one, so that what comes now is in pieces
        Path(root, f"stale{number}").unlink()
    _fragmented(root, dice)
    with Path(root, "sparse").open("wb") as file:
        for at in (0, 1 * MIB, 9 * MIB):
            os.pwrite(file.fileno(), b"X" * 5000, at)
        file.truncate(12 * MIB + 17)
    with Path(root, "unwritten").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, MIB)
        os.pwrite(file.fileno(), b"data", 300 * KIB)
    _special(root)
    for number in range(1, 40, 2):
        Path(root, f"stale{number}").unlink()
    run(["sync", "--file-system", str(root)])


def _fragmented(root: Path, dice: random.Random) -> None:
    files = [Path(root, f"pieces{number}").open("wb") for number in range(3)]  # noqa: SIM115
    for number in range(90):
        for place, file in enumerate(files):
            os.pwrite(file.fileno(), dice.randbytes(4 * KIB), number * 8 * KIB * (place + 1))
        if number % 15 == 0:
            os.fsync(files[number % 3].fileno())
    for file in files:
        file.close()
    Path(root, "pieces1").unlink()


def _special(root: Path) -> None:
    plain = Path(root, "plain")
    plain.write_text("hello")
    os.link(plain, Path(root, "deep", "hard link"))
    Path(root, "link").symlink_to("deep/hard link")
    Path(root, "long link").symlink_to("/nowhere/" + "x" * 200)
    os.mkfifo(Path(root, "pipe"))
    os.mknod(Path(root, "null"), 0o20666, os.makedev(1, 3))
    os.chown(plain, 1000, 1001)
    plain.chmod(0o4755)
    for name, value in (("user.small", b"v"), ("user.large", b"z" * 700)):
        try:
            os.setxattr(plain, name, value)
        except OSError:  # a revision without them, or the folder that mke2fs reads
            continue


def free_by_dumpe2fs(image: Path) -> tuple[Ranges, int]:
    """Give the free bytes group by group, and how many the superblock counts."""
    told = run(["dumpe2fs", str(image)])
    size = _number(told, "Block size")
    # With clusters, a range ends with the first block of its last cluster.
    tail = _number(told, "Cluster size") if "bigalloc" in told else size
    rows = []
    for line in re.findall(r"^  Free blocks: (.*)$", told, re.MULTILINE):
        for part in filter(None, line.split(", ")):
            first, _, last = part.strip().partition("-")
            rows.append((int(first) * size, int(last or first) * size + tail))
    return Ranges.of(rows), _number(told, "Free blocks") * size


def _number(told: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", told, re.MULTILINE)
    assert found, name
    return int(found[1])


def by_debugfs(image: Path) -> dict[str, FileFacts]:
    """List files where the kernel cannot: times of change and blocks are not to be had."""
    with tempfile.TemporaryDirectory() as folder:
        run(["debugfs", "-R", f"rdump / {folder}", str(image)])
        facts = facts_below(Path(folder))
    return {
        path: replace(fact, changed=0, blocks=0, modified=0 if stat.S_ISLNK(fact.mode) else fact.modified)
        for path, fact in facts.items()
    }


def set_field(image: Path, name: str, value: str | int) -> None:
    """Change a field of the superblock, with its checksum put right."""
    run(["debugfs", "-w", "-R", f"set_super_value {name} {value}", str(image)])


def poke(image: Path, offset: int, data: bytes) -> None:
    """Overwrite some bytes."""
    with image.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), data, offset)


def peek(image: Path, offset: int, length: int) -> bytes:
    """Read some bytes."""
    with image.open("rb") as file:
        return os.pread(file.fileno(), length, offset)


@contextmanager
def frozen(root: Path) -> Iterator[None]:
    """Hold a mounted file system frozen."""
    run(["fsfreeze", "--freeze", str(root)])
    try:
        yield
    finally:
        run(["fsfreeze", "--unfreeze", str(root)])
