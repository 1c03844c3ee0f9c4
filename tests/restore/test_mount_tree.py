"""Paths of a mount, the volumes behind them, and the cache: without FUSE."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.errors import FileSystemUnreadable, PathNotFound, StorageError, UsageError
from hotspare.guest.files.file_system import FileSystem
from hotspare.restore.mount_cache import BLOCK, FileCache
from hotspare.restore.mount_tree import Branch, MountedVolume, MountTree, Place, VolumeFile
from hotspare.units import MIB
from tests.restore.folder_files import FolderFiles


def never() -> FileSystem:
    raise AssertionError("nobody has looked inside")


def place(tree: MountTree, path: str) -> tuple[int, str]:
    found = tree.resolve(path)
    assert isinstance(found, Place)
    return found.volume.number, found.path


def names(tree: MountTree, path: str) -> set[str]:
    found = tree.resolve(path)
    assert isinstance(found, Branch)
    return set(found.children)


def test_one_point_shows_its_volumes_at_the_top() -> None:
    tree = MountTree({"newest": {"vda1": never, "vg0/root": never, "vg0/home": never}})
    assert names(tree, "/") == {"vda1", "vg0"}
    assert names(tree, "/vg0") == {"root", "home"}
    assert place(tree, "/vda1") == (0, "/")
    assert place(tree, "/vg0/root/etc/fstab") == (1, "/etc/fstab")
    assert place(tree, "/vg0/home//a/") == (2, "/a")


def test_several_points_have_folders() -> None:
    tree = MountTree({"monday": {"vda1": never}, "tuesday": {"vda1": never, "vdb": never}})
    assert names(tree, "/") == {"monday", "tuesday"}
    assert names(tree, "/tuesday") == {"vda1", "vdb"}
    assert place(tree, "/monday/vda1/x") == (0, "/x")
    assert place(tree, "/tuesday/vda1/x") == (1, "/x")


@pytest.mark.parametrize("path", ["/vdb", "/vg0/none", "/vg0/root2/x", "/none/x"])
def test_what_is_not_there(path: str) -> None:
    with pytest.raises(PathNotFound):
        MountTree({"p": {"vda": never, "vg0/root": never}}).resolve(path)


@pytest.mark.parametrize(
    "volumes", [["vda", "vda/root"], ["vda/root", "vda"], ["vda/root", "vda//root"], [""], ["../.."]]
)
def test_names_that_are_in_each_other_s_way(volumes: list[str]) -> None:
    with pytest.raises(UsageError):
        MountTree({"p": dict.fromkeys(volumes, never)})


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1), max_size=6))
def test_any_path_in_a_volume_is_found(parts: list[str]) -> None:
    tree = MountTree({"p": {"vda1": never}})
    assert place(tree, "/vda1/" + "/".join(parts)) == (0, "/" + "/".join(parts))


def test_folders_have_numbers_of_their_own() -> None:
    tree = MountTree({"a": {"x/y/vda": never, "x/z/vda": never}, "b": {"x/vda": never}})
    numbers: list[int] = []

    def collect(branch: Branch) -> None:
        numbers.append(branch.number)
        for child in branch.children.values():
            if isinstance(child, Branch):
                collect(child)

    collect(tree.root)
    assert len(numbers) == 7
    assert len(set(numbers)) == 7


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "file").write_bytes(b"content")
    os.link(tmp_path / "file", tmp_path / "in" / "same")
    return tmp_path


def test_a_volume_is_opened_once_and_when_it_is_needed(folder: Path) -> None:
    opened: list[FolderFiles] = []

    def open_files() -> FolderFiles:
        opened.append(FolderFiles(folder))
        return opened[-1]

    volume = MountedVolume(0, open_files)
    assert not opened
    assert volume.entry("/file").size == 7
    assert {entry.name for entry in volume.entries("/")[0]} == {"in", "file"}
    assert volume.open("/file").read(2, 100) == b"ntent"
    assert len(opened) == 1
    volume.close()
    volume.close()
    assert opened[0].closed
    with pytest.raises(FileSystemUnreadable, match="about to end"):
        volume.entry("/in/same")


def test_a_volume_that_cannot_be_opened_is_tried_again(folder: Path) -> None:
    failures = [StorageError("the store does not answer")]

    def open_files() -> FolderFiles:
        if failures:
            raise failures.pop()
        return FolderFiles(folder)

    volume = MountedVolume(0, open_files)
    with pytest.raises(StorageError):
        volume.entry("/file")
    assert volume.entry("/file").size == 7


def test_what_a_folder_has_told_is_not_asked_again(folder: Path) -> None:
    files = FolderFiles(folder)
    volume = MountedVolume(0, lambda: files)
    volume.entries("/")
    files.broken["/file"] = AssertionError("asked again")
    assert volume.entry("/file").size == 7


def test_a_folder_that_is_damaged_gives_what_it_has(folder: Path) -> None:
    files = FolderFiles(folder)
    files.broken["/"] = FileSystemUnreadable("a block of it is damaged")
    found, failure = MountedVolume(0, lambda: files).entries("/")
    assert len(found) == 2
    assert failure is not None


def test_hard_links_are_such_within_their_volume_only(folder: Path) -> None:
    one, other = (MountedVolume(number, lambda: FolderFiles(folder)) for number in range(2))
    assert one.inode(one.entry("/file")) == one.inode(one.entry("/in/same"))
    assert one.inode(one.entry("/file")) != other.inode(other.entry("/file"))


def test_holes_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10 << 40)
        file.seek(5 << 40)
        file.write(b"in the middle")
    files = FolderFiles(tmp_path)
    opened = MountedVolume(0, lambda: files).open("/sparse")
    assert opened.read(1 << 40, MIB) == bytes(MIB)
    assert files.reads == []
    assert opened.read(5 << 40, 13) == b"in the middle"
    assert opened.read((10 << 40) - 10, 100) == bytes(10)
    assert opened.read(10 << 40, 100) == b""


class ScriptedFile:
    def __init__(self, content: bytes) -> None:
        self.key = object()
        self.size = len(content)
        self.content = content
        self.reads: list[int] = []
        self.failing = False

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append(offset // BLOCK)
        if self.failing:
            raise StorageError("the store does not answer")
        return self.content[offset : offset + length]


@pytest.fixture
def cache() -> FileCache:
    return FileCache(bytes_max=16 * BLOCK)


CONTENT = os.urandom(1 * MIB) * 10 + b"end"


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 10), (BLOCK - 5, 10), (3, 3 * BLOCK), (len(CONTENT) - 2, 100), (len(CONTENT), 5)],
)
def test_the_cache_gives_what_the_file_has(cache: FileCache, offset: int, length: int) -> None:
    file = ScriptedFile(CONTENT)
    assert cache.read(file, offset, length) == CONTENT[offset : offset + length]
    cache.close()


def test_who_reads_on_is_read_ahead_for(cache: FileCache) -> None:
    file = ScriptedFile(CONTENT)
    for offset in range(0, len(CONTENT), 128 * 1024):
        assert cache.read(file, offset, 128 * 1024) == CONTENT[offset : offset + 128 * 1024]
    cache.close()
    assert sorted(file.reads) == list(range(-(-len(CONTENT) // BLOCK))), "each block once"


def test_who_jumps_about_is_not(cache: FileCache) -> None:
    file = ScriptedFile(CONTENT)
    for block in (17, 3, 9, 14):
        cache.read(file, block * BLOCK, 10)
    cache.close()
    assert sorted(file.reads) == [3, 9, 14, 17]


def test_the_cache_is_bounded_and_tries_failures_again(cache: FileCache) -> None:
    file = ScriptedFile(CONTENT)
    file.failing = True
    with pytest.raises(StorageError):
        cache.read(file, 17 * BLOCK, 10)
    file.failing = False
    assert cache.read(file, 17 * BLOCK, 10) == CONTENT[17 * BLOCK :][:10]
    for _ in range(3):
        for block in range(20, 0, -1):
            cache.read(file, block * BLOCK, 10)
    cache.close()
    assert len(file.reads) > 50, "what was not used for long is forgotten"


def test_threads_take_turns(folder: Path) -> None:
    (folder / "large").write_bytes(CONTENT)
    files = FolderFiles(folder)
    files.before_read = lambda: time.sleep(0.002)
    volume = MountedVolume(0, lambda: files)
    cache = FileCache()
    jobs: list[Callable[[], object]] = [
        lambda: cache.read(volume.open("/large"), 0, 5 * MIB) == CONTENT[: 5 * MIB],
        lambda: volume.entry("/in"),
        lambda: volume.entries("/"),
        lambda: volume.attributes("/file") == {} or True,
    ] * 20
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda job: job(), jobs))
    cache.close()
    assert not files.met_another_thread


def test_a_file_that_was_closed_is_not_read(folder: Path) -> None:
    volume = MountedVolume(0, lambda: FolderFiles(folder))
    opened: VolumeFile = volume.open("/file")
    opened.close()
    opened.close()
    with pytest.raises(FileSystemUnreadable):
        opened.read(0, 1)
