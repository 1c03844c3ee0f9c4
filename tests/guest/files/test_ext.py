"""ext2/3/4, read in process, against the kernel's own driver."""

import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.block.file import RawFile
from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.files.ext.attributes import access_list
from hotspare.guest.files.ext.folder import parse_names
from hotspare.guest.files.ext.reader import ExtFileSystem
from hotspare.guest.files.file_system import NeedsAppliance
from tests.guest.files.mounts import differences, mounted, new_image, run, walked
from tests.guest.files.posix_content import fill

VARIANTS = {
    "default": ("64M", []),
    "ext2": ("64M", ["-t", "ext2"]),
    "ext3-small-inodes": ("64M", ["-t", "ext3", "-I", "128"]),
    "1k-pointers": ("64M", ["-t", "ext3", "-b", "1024"]),
    "1k-small-inodes": ("64M", ["-b", "1024", "-I", "128"]),
    "inline-data": ("64M", ["-O", "inline_data", "-I", "256"]),
    "inline-data-1k-large-inodes": ("64M", ["-b", "1024", "-I", "1024", "-O", "inline_data,ea_inode"]),
    "bigalloc-1k": ("128M", ["-b", "1024", "-O", "bigalloc"]),
    "bigalloc": ("128M", ["-b", "4096", "-I", "128", "-O", "bigalloc", "-C", "16384"]),
    "meta-bg": ("96M", ["-b", "1024", "-O", "meta_bg,^resize_inode,^sparse_super"]),
    "meta-bg-2k": ("128M", ["-b", "2048", "-O", "meta_bg,^resize_inode,mmp", "-g", "1024"]),
    "sparse-super2": ("64M", ["-O", "sparse_super2,^resize_inode"]),
    "plain": ("64M", ["-O", "^64bit,^flex_bg,^metadata_csum,^dir_index,^huge_file"]),
    "gdt-csum": ("64M", ["-O", "^metadata_csum,uninit_bg,^64bit"]),
    "newest": ("64M", ["-O", "large_dir,orphan_file,metadata_csum_seed,fast_commit,stable_inodes"]),
    "no-filetype": ("64M", ["-O", "^filetype"]),
}


@contextmanager
def opened(image: Path) -> Iterator[ExtFileSystem]:
    disk = RawFile.open(image)
    try:
        yield ExtFileSystem(CachedReader(disk))
    finally:
        disk.close()


def made(folder: Path, size: str, options: list[str]) -> Path:
    image = new_image(folder / "ext.img", size)
    with image.open("r+b") as file:  # whoever reads blocks that were never written sees it
        for _ in range(image.stat().st_size >> 20):
            file.write(b"RUBBISH!" * (1 << 17))
    program = "mkfs.ext4" if "-t" not in options else "mke2fs"
    run(program, "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", *options, image)
    return image


@pytest.mark.parametrize("variant", VARIANTS)
def test_everything_is_as_the_kernel_has_it(variant: str, tmp_path: Path) -> None:
    image = made(tmp_path, *VARIANTS[variant])
    with mounted(image) as point:
        fill(point, names=1000 if variant == "newest" else 200)
    with mounted(image, "ro") as point, opened(image) as file_system:
        different, compared = differences(file_system, point)
        assert different == []
        found, failure = walked(file_system)
        assert failure is None
        assert len(found) + 1 == compared
        assert compared > 200


def test_project_ids_and_quotas_change_nothing(tmp_path: Path) -> None:
    image = made(tmp_path, "64M", [])
    with mounted(image) as point:
        fill(point, large=False, names=50)
    run("tune2fs", "-O", "quota,project", image)
    subprocess.run(["e2fsck", "-fy", image], check=False, capture_output=True, timeout=60)
    with mounted(image, "ro") as point, opened(image) as file_system:
        assert differences(file_system, point)[0] == []


def test_blocks_of_64k_which_this_kernel_cannot_mount(tmp_path: Path) -> None:
    image = new_image(tmp_path / "ext.img", "256M")
    source = tmp_path / "source"
    source.mkdir()
    for number in range(700):
        (source / f"{number:03d}{'x' * (number % 100)}").write_bytes(b"%d" % number)
    run("mkfs.ext4", "-q", "-F", "-b", "65536", "-d", source, image)
    with opened(image) as file_system:
        names = {entry.name for entry in file_system.entries("/")} - {"lost+found"}
        assert names == {path.name for path in source.iterdir()}
        assert file_system.open("/699" + "x" * 99).read(0, 10) == b"699"


def test_a_frozen_file_system_is_read_with_files_that_are_open_and_deleted(tmp_path: Path) -> None:
    image = made(tmp_path, "64M", ["-O", "orphan_file"])
    copy = tmp_path / "frozen.img"
    with mounted(image) as point:
        fill(point, large=False, names=50)
        (point / "deleted").write_bytes(b"x" * 100_000)
        with (point / "deleted").open("rb"):
            (point / "deleted").unlink()
            run("fsfreeze", "-f", point)
            try:
                run("cp", "--sparse=always", image, copy)
            finally:
                run("fsfreeze", "-u", point)
        with opened(copy) as file_system:
            assert differences(file_system, point)[0] == []


def test_a_journal_that_is_not_replayed_is_refused(tmp_path: Path) -> None:
    image = made(tmp_path, "64M", [])
    copy = tmp_path / "live.img"
    with mounted(image) as point:
        (point / "file").write_bytes(b"x")
        run("sync", "-f", point)
        run("cp", "--sparse=always", image, copy)
    with pytest.raises(NeedsAppliance, match="journal has to be replayed") as caught, opened(copy):
        pass
    assert caught.value.kind == "ext4"


@pytest.mark.parametrize(
    ("feature", "options"),
    [
        ("folders that ignore case", ["-O", "casefold", "-E", "encoding=utf8"]),
        ("read-only compatible 0x8000", ["-O", "verity"]),
    ],
)
def test_what_is_not_proven_is_refused(feature: str, options: list[str], tmp_path: Path) -> None:
    image = new_image(tmp_path / "ext.img", "32M")
    run("mkfs.ext4", "-q", "-F", *options, image)
    with pytest.raises(NeedsAppliance, match=feature), opened(image):
        pass


@pytest.mark.parametrize("offset", [92, 96, 100])
@pytest.mark.parametrize("bit", range(32))
def test_unknown_features_are_refused(offset: int, bit: int, plain_superblock: bytes, tmp_path: Path) -> None:
    known = {
        92: {2, 3, 4, 5, 9, 10, 11, 12},
        96: {1, 4, 6, 7, 8, 9, 10, 13, 14, 15, 16},
        100: {0, 1, 3, 4, 5, 6, 8, 9, 10, 12, 13, 16},
    }
    image = tmp_path / "ext.img"
    raw = bytearray(plain_superblock)
    (flags,) = struct.unpack_from("<I", raw, 1024 + offset)
    struct.pack_into("<I", raw, 1024 + offset, flags | 1 << bit)
    image.write_bytes(raw)
    try:
        with opened(image):
            refused = False
    except NeedsAppliance:
        refused = True
    except FileSystemUnreadable:
        refused = False  # some features change what the numbers mean
    assert refused == (bit not in known[offset])


@pytest.fixture(scope="module")
def plain_superblock(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    image = new_image(tmp_path_factory.mktemp("plain") / "ext.img", "2M")
    run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", image)
    return image.read_bytes()


def test_encrypted_folders_are_refused_one_by_one(tmp_path: Path) -> None:
    image = made(tmp_path, "32M", ["-O", "encrypt"])
    with mounted(image) as point:
        (point / "open").write_bytes(b"for all")
        (point / "secret").mkdir()
    run("debugfs", "-w", "-R", "set_inode_field /secret flags 0x80800", image)
    with opened(image) as file_system:
        assert {entry.name for entry in file_system.entries("/")} == {"open", "secret", "lost+found"}
        assert file_system.open("/open").read(0, 100) == b"for all"
        with pytest.raises(FileSystemUnreadable, match="encrypted"):
            list(file_system.entries("/secret"))
        found, failure = walked(file_system)
        assert {entry.path for entry in found} == {"/open", "/secret", "/lost+found"}
        assert "encrypted" in str(failure)


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    image = made(tmp_path, "32M", [])
    with mounted(image) as point:
        (point / "folder").mkdir()
        (point / "file").write_bytes(b"x")
        (point / "link").symlink_to("folder")
    with opened(image) as file_system:
        for path in ("/nothing", "/file/below", "/folder/nothing", "/link/below", "/FILE"):
            with pytest.raises(PathNotFound):
                file_system.entry(path)
        with pytest.raises(PathNotFound):
            file_system.entries("/file")
        with pytest.raises(PathNotFound):
            file_system.walk("/link")
        with pytest.raises(PathNotFound):
            file_system.open("/file", "stream")
        with pytest.raises(FileSystemUnreadable, match="no content"):
            file_system.open("/folder")
        assert file_system.entry("/").path == "/"
        assert file_system.entry("/").name == ""
        assert file_system.entry("//folder/").path == "/folder"


@given(st.binary(max_size=600), st.booleans())
def test_any_block_of_a_folder_ends_in_names_or_a_value_error(block: bytes, with_type: bool) -> None:
    try:
        for name, inode in parse_names(block, with_type=with_type):
            assert name
            assert inode > 0
    except ValueError:
        pass


@given(st.binary(max_size=200))
def test_any_access_list_ends_in_bytes_or_the_typed_error(stored: bytes) -> None:
    try:
        found = access_list("ext4", stored)
    except FileSystemUnreadable:
        return
    assert len(found) % 8 == 4
