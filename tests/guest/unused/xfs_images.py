"""Real XFS images for tests: made with mkfs.xfs, filled through the kernel, told about by xfs_db."""

import random
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import google_crc32c

from hotspare.block.ranges import Ranges
from hotspare.guest.unused.xfs.map import xfs_unused
from hotspare.units import KIB, MIB
from tests.guest.unused.asking import unused_in, why_kept_in
from tests.guest.unused.ext_images import populate
from tests.guest.unused.garbage import run
from tests.guest.unused.live import mounted

find = partial(unused_in, xfs_unused)
"""Reads the map of an image."""
reason = partial(why_kept_in, xfs_unused)
"""Tells why all of an image is kept; empty when it is not."""

SIZE = 304 * MIB + 5 * KIB
"""Newer versions of mkfs.xfs make nothing under 300 MiB; and no round number."""

VARIANTS: Mapping[str, str] = {
    "default": "",
    "1k-rmapbt": "-b size=1024 -m rmapbt=1",
    "2k-many-groups": "-b size=2048 -d agcount=18 -i size=1024 -l agnum=2 --unsupported",
    "4k-sectors": "-s size=4096 -d agcount=2 -l size=128m",
    "plain": "-m reflink=0,bigtime=0,inobtcount=0,finobt=0 -i sparse=0",
    "log-stripe": "-l su=262144 -i nrext64=1 -m rmapbt=1",
}
"""Options of mkfs.xfs."""


def make(image: Path, options: str = "", *, size: int = SIZE) -> Path:
    """Make an empty file system."""
    with image.open("xb") as file:
        file.truncate(size)
    run(["mkfs.xfs", "-q", *options.split(), str(image)])
    return image


def make_filled(image: Path, options: str = "") -> Path:
    """Make a file system with all sorts of files, much that was deleted, and free space in many pieces."""
    make(image, options)
    with mounted(image, "xfs") as root:
        populate(root)
        in_pieces(root)
    return image


def in_pieces(root: Path, count: int = 440) -> None:
    """Make free space that is in so many pieces that its btrees have more than one level."""
    folder = Path(root, "small")
    folder.mkdir(exist_ok=True)
    dice = random.Random(2)
    for number in range(count):
        Path(folder, f"{number}").write_bytes(dice.randbytes(4 * KIB))
    run(["sync", "--file-system", str(root)])
    for number in range(0, count, 2):
        Path(folder, f"{number}").unlink()


def free_by_xfs_db(image: Path) -> tuple[Ranges, Ranges]:
    """Give the free bytes as ``freesp`` counts them, and those of them that are in free lists."""
    size, group_blocks, groups = asked(image, "sb 0", "print blocksize agblocks agcount")
    freesp = run(["xfs_db", "-r", "-c", "freesp -d", str(image)])
    rows = re.findall(r"^ +(\d+) +(\d+) +(\d+)$", freesp, re.MULTILINE)
    free = [
        ((int(group) * group_blocks + int(block)) * size, int(count) * size) for group, block, count in rows
    ]
    headers = [f"{word} {group}" for group in range(groups) for word in ("agf", "agfl")]
    commands = ["print flfirst fllast flcount", "print bno"] * groups
    told = run(
        [
            "xfs_db",
            "-r",
            *(f"-c{word}" for pair in zip(headers, commands, strict=True) for word in pair),
            str(image),
        ]
    )
    listed = []
    for group, part in enumerate(re.split(r"^flfirst", told, flags=re.MULTILINE)[1:]):
        ring, _, slots = part.partition("bno")
        first, last, count = (int(value) for value in re.findall(r"= (\d+)", ring))
        blocks = slots_of(slots)
        used = [blocks[(first + at) % len(blocks)] for at in range(count)]
        assert not count or used[-1] == blocks[last]
        listed += [((group * group_blocks + block) * size, size) for block in used]
    counted, kept = (Ranges.of((at, at + length) for at, length in part) for part in (free, listed))
    return counted, kept


def asked(image: Path, *commands: str) -> list[int]:
    """Give the numbers that ``xfs_db`` prints."""
    told = run(["xfs_db", "-r", *(f"-c{command}" for command in commands), str(image)])
    return [int(value) for value in re.findall(r"= (\d+)", told)]


def slots_of(printed: str) -> list[int]:
    """Read an array as ``xfs_db`` prints it: ``0:null 1:5 [2-4]:null``."""
    slots: list[int] = []
    for first, last, value in re.findall(r"\[?(\d+)(?:-(\d+))?\]?:(null|\d+)", printed):
        slots += [0 if value == "null" else int(value)] * (int(last or first) - int(first) + 1)
    return slots


def free_by_superblock(image: Path) -> int:
    """Give what the superblock counts as free, in bytes."""
    blocks, size = asked(image, "sb 0", "print fdblocks blocksize")
    return blocks * size


def with_checksum(block: bytes, at: int) -> bytes:
    """Put the right CRC-32C of a block into it."""
    found = int(google_crc32c.value(block[:at] + bytes(4) + block[at + 4 :]))
    return block[:at] + found.to_bytes(4, "little") + block[at + 4 :]
