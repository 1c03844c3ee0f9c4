"""Damaged and hostile images: whatever they hold, reading ends soon, in files or in the typed error."""

import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.files.ext.reader import ExtFileSystem
from hotspare.guest.files.fat.exfat import ExfatFileSystem
from hotspare.guest.files.fat.reader import FatFileSystem
from hotspare.guest.files.file_system import FileSystem
from hotspare.guest.files.ntfs.isolated import IsolatedNtfs
from tests.guest.files.mounts import mounted, mounted_exfat, mounted_ntfs, new_image, run, walked
from tests.memory_disk import MemoryDisk

SECONDS_MAX = 20
"""For one damaged image, on a busy host."""


def small_tree(point: Path) -> None:
    (point / "folder/deeper").mkdir(parents=True)
    for number in range(40):
        (point / f"folder/file-{number}").write_bytes(os.urandom(number * 300))
    with (point / "sparse").open("wb") as file:
        for step in range(12):
            file.seek(step * 20_000)
            file.write(b"data")
    with suppress(OSError):
        (point / "link").symlink_to("folder/deeper")
        (point / "long-link").symlink_to("x" * 200)
        os.setxattr(point / "sparse", "user.attribute", b"value" * 20)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("images")
    found = {}
    for name, options in (
        ("extents", []),
        ("pointers", ["-O", "^extent,^64bit"]),
        ("inline", ["-O", "inline_data", "-I", "512"]),
    ):
        image = new_image(folder / name, "3M")
        run("mkfs.ext4", "-q", "-F", "-b", "1024", "-N", "128", "-O", "^has_journal", *options, image)
        with mounted(image) as point:
            small_tree(point)
        found[name] = image.read_bytes()
    source = folder / "source"
    source.mkdir()
    small_tree(source)
    for bits, size in (("12", "2M"), ("16", "8M"), ("32", "40M")):
        image = new_image(folder / f"fat{bits}", size)
        run("mkfs.vfat", "-F", bits, "-s", "1", image)
        run("mcopy", "-s", "-i", image, source / "folder", source / "sparse", "::/")
        found[f"fat{bits}"] = image.read_bytes()
    image = new_image(folder / "exfat", "4M")
    run("mkfs.exfat", "-c", "1024", image)
    with mounted_exfat(image) as point:
        small_tree(point)
    found["exfat"] = image.read_bytes()
    image = new_image(folder / "ntfs", "4M")
    run("mkntfs", "-q", "-F", "-f", image)
    with mounted_ntfs(image) as point:
        small_tree(point)
    found["ntfs"] = image.read_bytes()
    return found


def read_all(file_system: FileSystem) -> None:
    """Walk, and read some of everything."""
    found, _ = walked(file_system)
    assert len(found) < 100_000
    for entry in found[:300]:
        with suppress(FileSystemUnreadable, PathNotFound):
            file_system.attributes(entry.path)
            file_system.entry(entry.path)
            if entry.kind == "file":
                content = file_system.open(entry.path)
                read = content.read(0, 1 << 16) + content.read(max(0, content.size - 100), 1 << 16)
                assert len(read) <= 1 << 17
                for _, (start, end) in zip(range(1000), content.holes(), strict=False):
                    assert start < end <= content.size


def metadata_of(image: bytes) -> list[int]:
    """Give the offsets of sectors that hold something, those with little entropy before all."""
    sectors = [at for at in range(0, len(image), 512) if any(image[at : at + 512])]
    return [at for at in sectors if image[at : at + 512].count(0) > 100] or sectors


def mutations(image: bytes, count: int, seed: int) -> Iterator[bytearray]:
    chance = random.Random(seed)
    places = metadata_of(image)
    for _ in range(count):
        damaged = bytearray(image)
        for _ in range(chance.choice([1, 1, 2, 6, 30])):
            length = chance.choice([1, 2, 4, 8])
            at = min(chance.choice(places) + chance.randrange(512), len(image) - length)
            damaged[at : at + length] = chance.choice(
                [
                    b"\xff" * length,
                    bytes(length),
                    chance.randbytes(length),
                    (1 << chance.randrange(8 * length)).to_bytes(length, "little"),
                    damaged[(other := chance.choice(places)) : other + length],
                ]
            )
        yield damaged


READERS: dict[str, tuple[Callable[[CachedReader], FileSystem], int]] = {
    "extents": (ExtFileSystem, 60),
    "pointers": (ExtFileSystem, 40),
    "inline": (ExtFileSystem, 40),
    "fat12": (FatFileSystem, 40),
    "fat16": (FatFileSystem, 30),
    "fat32": (FatFileSystem, 5),
    "exfat": (ExfatFileSystem, 25),
}


@pytest.mark.parametrize("kind", READERS)
def test_mutated_images_end_in_files_or_the_typed_error(kind: str, images: dict[str, bytes]) -> None:
    reader, count = READERS[kind]
    for damaged in mutations(images[kind], count, seed=int(os.environ.get("HOTSPARE_FUZZ_SEED", "1"))):
        began = time.monotonic()
        with suppress(FileSystemUnreadable):
            read_all(reader(CachedReader(MemoryDisk(damaged))))
        assert time.monotonic() - began < SECONDS_MAX


def test_mutated_ntfs_ends_in_files_or_the_typed_error(images: dict[str, bytes]) -> None:
    for damaged in mutations(images["ntfs"], 6, seed=int(os.environ.get("HOTSPARE_FUZZ_SEED", "1"))):
        file_system = None
        with suppress(FileSystemUnreadable):
            file_system = IsolatedNtfs(MemoryDisk(damaged), seconds_max=SECONDS_MAX)
            read_all(file_system)
        if file_system is not None:
            file_system.close()


def test_images_that_are_cut_off(images: dict[str, bytes]) -> None:
    for kind, (reader, _) in READERS.items():
        for keep in (0, 600, 1500, len(images[kind]) // 2):
            with pytest.raises(FileSystemUnreadable):
                read_all(reader(CachedReader(MemoryDisk(images[kind][:keep]))))
    for keep in (0, 600):
        with pytest.raises(FileSystemUnreadable):
            IsolatedNtfs(MemoryDisk(images["ntfs"][:keep]))


def test_a_folder_of_ext_within_itself_ends(images: dict[str, bytes]) -> None:
    raw = bytearray(images["extents"])
    folder = raw.index(b"\x06\x02folder")
    deeper = raw.index(b"\x06\x02deeper")
    raw[deeper - 6 : deeper - 2] = raw[folder - 6 : folder - 2]
    found, failure = walked(ExtFileSystem(CachedReader(MemoryDisk(raw))))
    assert "/folder/file-1" in {entry.path for entry in found}
    assert "in two places" in str(failure)


def test_folders_that_share_their_blocks_do_not_unfold(tmp_path: Path) -> None:
    """A hundred folders, each said to be where one of 2,000 names is: 200,000 names in a few MiB."""
    image = new_image(tmp_path / "ext.img", "4M")
    run("mkfs.ext4", "-q", "-F", "-b", "1024", "-O", "^has_journal,^metadata_csum", "-N", "3000", image)
    with mounted(image) as point:
        for number in range(100):
            (point / f"folder-{number}").mkdir()
        for number in range(2000):
            (point / "folder-0" / f"{number}{'x' * 200}").touch()
        inodes = [(point / f"folder-{number}").stat().st_ino for number in range(100)]
    raw = bytearray(image.read_bytes())
    (table,) = struct.unpack_from("<I", raw, 2048 + 8)
    assert max(inodes) <= struct.unpack_from("<I", raw, 1024 + 40)[0] * 2
    per_group = struct.unpack_from("<I", raw, 1024 + 40)[0]
    near = [number for number in inodes if number <= per_group]
    model = table * 1024 + (inodes[0] - 1) * 256
    for number in near[1:]:
        at = table * 1024 + (number - 1) * 256
        raw[at + 4 : at + 8] = raw[model + 4 : model + 8]
        raw[at + 40 : at + 100] = raw[model + 40 : model + 100]
    began = time.monotonic()
    found, failure = walked(ExtFileSystem(CachedReader(MemoryDisk(raw))))
    assert "more space than it has" in str(failure)
    assert len(found) < 40_000
    assert time.monotonic() - began < SECONDS_MAX
