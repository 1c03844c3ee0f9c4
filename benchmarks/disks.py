"""The disks that are measured: real files of this host in a real file system, and what changes on them."""

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hotspare.block.extent import Extent, ExtentKind
from hotspare.units import KIB, MIB

SEED = 20261123
_EPOCH = "1700000000"
_UUID = "7d1c0f6e-6a51-4a0e-9b53-2f0f6d7c9a10"
_COPY_STEP = 8 * MIB
_FILE_MAX = 64 * MIB
"""Larger files are left out: a few of them would decide what is measured."""


def make_disk(path: Path, size: int, content: int, tree: Path = Path("/usr")) -> int:
    """Write an ext4 disk of ``size`` bytes with about ``content`` bytes of the host's files; give how many.

    The files are those of ``tree`` in the order of the hash of their paths, so that each run on a host
    chooses the same ones and they are of all kinds. The image has no holes: every program reads all of it.
    """
    stage = path.with_suffix(".files")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    placed = 0
    for source in _files(tree):
        if placed >= content:
            break
        target = stage / source.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        placed += target.stat().st_size
    sparse = path.with_suffix(".sparse")
    sparse.unlink(missing_ok=True)
    subprocess.run(
        [
            *("mke2fs", "-q", "-t", "ext4", "-d", stage, "-U", _UUID),
            *("-E", f"hash_seed={_UUID}", "-m", "1", sparse, f"{size // KIB}k"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,  # it says what it creates even when told to be quiet
        env={**os.environ, "E2FSPROGS_FAKE_TIME": _EPOCH, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
    )
    shutil.rmtree(stage)
    _copy_without_holes(sparse, path)
    sparse.unlink()
    return placed


def _files(tree: Path) -> Iterator[Path]:
    found = []
    for folder, _, names in os.walk(tree):
        for name in names:
            path = Path(folder, name)
            status = path.lstat()
            if path.is_file() and not path.is_symlink() and 0 < status.st_size <= _FILE_MAX:
                found.append(path)
    return iter(sorted(found, key=lambda path: hashlib.sha256(os.fsencode(path)).digest()))


def _copy_without_holes(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(_COPY_STEP):
            writer.write(block)


def scattered_changes(size: int, total: int, seed: int = SEED) -> list[Extent]:
    """Give ordered extents of 4 to 64 KiB, ``total`` bytes in all, in clusters within ``size`` bytes.

    A guest's changes are not spread evenly: a few files of a few folders are written to.
    """
    chance = random.Random(seed)
    blocks: set[int] = set()
    wanted = total // (4 * KIB)
    while len(blocks) < wanted:
        cluster = chance.randrange(size // MIB) * MIB
        for _ in range(chance.randint(1, 8)):
            first = (cluster + chance.randrange(MIB)) // (4 * KIB)
            blocks.update(range(first, min(first + chance.randint(1, 16), size // (4 * KIB))))
    return list(_merged(sorted(blocks)[:wanted]))


def _merged(blocks: list[int]) -> Iterator[Extent]:
    start = previous = blocks[0]
    for block in [*blocks[1:], -1]:
        if block != previous + 1:
            yield Extent(start * 4 * KIB, (previous + 1 - start) * 4 * KIB, ExtentKind.DATA)
            start = block
        previous = block


def change_disk(path: Path, changes: list[Extent], donor: Path, seed: int = SEED) -> None:
    """Overwrite the extents with bytes from elsewhere on ``donor``: as compressible as the disk itself."""
    chance = random.Random(seed)
    size = donor.stat().st_size
    with path.open("r+b") as disk, donor.open("rb") as source:
        for extent in changes:
            # An odd offset, so that no program finds the block again by its content.
            source.seek(chance.randrange(size // 2) | 1)
            disk.seek(extent.offset)
            disk.write(source.read(extent.length))


def make_sparse_disk(path: Path, size: int, donor: Path, content: int, piece: int = 256 * KIB) -> None:
    """Make a disk of ``size`` bytes: one hole but for ``content`` bytes in pieces of ``donor``."""
    chance = random.Random(SEED)
    places = sorted(chance.sample(range(size // piece), content // piece))
    path.unlink(missing_ok=True)
    with path.open("wb") as disk, donor.open("rb") as source:
        disk.truncate(size)
        for place in places:
            disk.seek(place * piece)
            disk.write(source.read(piece))


def make_long_disk(path: Path, size: int, donor: Path) -> None:
    """Make a disk that begins with ``donor`` and goes on with noise, a cheap stand-in for more real data."""
    with path.open("wb") as disk, donor.open("rb") as source:
        left = min(size, donor.stat().st_size)
        while left:
            left -= disk.write(source.read(min(_COPY_STEP, left)))
        noise = random.Random(SEED).randbytes(16 * MIB)
        while (position := disk.tell()) < size:
            # Each stretch is rotated by its position, so that no two are alike.
            turn = position // MIB * 4093 % len(noise)
            stretch = noise[turn:] + noise[:turn]
            disk.write(stretch[: size - position])


def warm(path: Path) -> None:
    """Read the file once, so that the page cache has it and is no part of what is measured."""
    with path.open("rb", buffering=0) as file:
        block = bytearray(_COPY_STEP)
        while file.readinto(block):
            pass
