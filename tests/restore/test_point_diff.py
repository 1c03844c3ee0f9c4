"""What changed between two points: of trees in memory, and of disks by their maps."""

import random
from pathlib import Path

import pytest
from blake3 import blake3

from hotspare.cancellation import Cancellation
from hotspare.errors import PathNotFound
from hotspare.repository.disk_map import DiskMap, DiskMapBuilder
from hotspare.repository.format import CHUNK_ID_SIZE, PAGE_IDS
from hotspare.repository.repository import Repository
from hotspare.restore.point_diff import Change, TreeDiff, compare_disks, leaves_that_differ
from hotspare.storage.local import LocalBackend
from tests.repository.conftest import CHUNK, PASSPHRASE, store
from tests.restore.files.memory_files import MODIFIED, MemoryFiles


def diff(before: MemoryFiles, after: MemoryFiles, path: str = "/", *, content: bool = False) -> list[Change]:
    return list(TreeDiff(before, after, Cancellation(), content).changes(path))


def told(changes: list[Change]) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(one.change, one.path, one.what) for one in changes]


def test_added_removed_and_changed() -> None:
    before, after = MemoryFiles(), MemoryFiles()
    for files in (before, after):
        files.add("/same", content=b"x", inode=5)
        files.add("/d", "folder", modified=id(files))
    before.add("/d/gone", content=b"123")
    after.add("/d/new", content=b"1234")
    before.add("/grown", content=b"1", inode=6)
    after.add("/grown", content=b"12", inode=6, modified=MODIFIED + 1)
    before.add("/mode", content=b"1", inode=7)
    after.add("/mode", content=b"1", inode=7, mode=0o600, uid=4)
    before.add("/link", "link", target="a")
    after.add("/link", "link", target="b")
    changes = diff(before, after)
    assert told(changes) == [
        ("removed", "/d/gone", ()),
        ("added", "/d/new", ()),
        ("changed", "/grown", ("size", "modified")),
        ("changed", "/link", ("target",)),
        ("changed", "/mode", ("mode", "owner")),
    ]
    assert [one.bytes for one in changes] == [3, 4, 2, 0, 0]
    assert told(diff(before, after, "/d")) == told(changes)[:2]
    assert diff(before, before) == []


def test_folders_that_come_and_go_are_told_with_all_that_is_in_them() -> None:
    before, after = MemoryFiles(), MemoryFiles()
    before.add("/x", "folder")
    before.add("/x/y", "folder")
    before.add("/x/y/z", content=b"1")
    after.add("/x", content=b"now a file")
    assert told(diff(before, after)) == [
        ("removed", "/x", ()),
        ("removed", "/x/y", ()),
        ("removed", "/x/y/z", ()),
        ("added", "/x", ()),
    ]
    assert told(diff(MemoryFiles(), before, "/x/y")) == [("added", "/x/y", ()), ("added", "/x/y/z", ())]
    with pytest.raises(PathNotFound):
        diff(before, after, "/nowhere")


def test_content_decides_in_doubt_and_when_asked_for() -> None:
    before, after = MemoryFiles(), MemoryFiles()
    before.add("/replaced", content=b"a", inode=50)
    after.add("/replaced", content=b"b", inode=51)
    before.add("/moved", content=b"a", inode=60)
    after.add("/moved", content=b"a", inode=61)
    before.add("/sly", content=b"a", inode=70)
    after.add("/sly", content=b"b", inode=70)
    before.add("/touched", content=b"a", inode=80)
    after.add("/touched", content=b"a", inode=80, modified=MODIFIED + 1)
    assert told(diff(before, after)) == [
        ("changed", "/replaced", ("content",)),
        ("changed", "/touched", ("modified",)),
    ]
    assert told(diff(before, after, content=True)) == [
        ("changed", "/replaced", ("content",)),
        ("changed", "/sly", ("content",)),
        ("changed", "/touched", ("modified",)),
    ]


def test_damage_is_told_and_the_rest_compared() -> None:
    before, after = MemoryFiles(), MemoryFiles()
    for files in (before, after):
        files.add("/d", "folder")
    after.add("/d/new", content=b"1")
    after.broken_folders.add("/d")
    comparison = TreeDiff(before, after, Cancellation())
    assert told(list(comparison.changes())) == [("added", "/d/new", ())]
    assert len(comparison.damage) == 1


def test_disks_are_compared_by_chunks(tmp_path: Path) -> None:
    repository = Repository.create(LocalBackend(tmp_path / "repository"), PASSPHRASE, chunk_size=CHUNK)
    size = 40 * CHUNK + 700
    data = bytearray(size)
    data[: 9 * CHUNK] = random.Random(1).randbytes(9 * CHUNK)
    data[-10:] = b"0123456789"
    first = store(repository, "web", bytes(data), b"x" * CHUNK)
    data[2 * CHUNK : 3 * CHUNK] = bytes(CHUNK)
    data[5 * CHUNK + 7] ^= 1
    data[25 * CHUNK] = 1
    data[-1:] = b"!"
    second = store(repository, "web", bytes(data))
    one, two = compare_disks(repository, first, second)
    assert one == ("vda", size, size, 3 * CHUNK + 700, CHUNK)
    assert two == ("vdb", CHUNK, None, CHUNK, CHUNK)
    assert compare_disks(repository, second, second)[0].bytes_changed == 0
    grown = store(repository, "web", bytes(data) + b"more")
    assert compare_disks(repository, second, grown)[0].bytes_changed == 704


def test_only_pages_that_differ_are_read() -> None:
    pages: dict[bytes, bytes] = {}
    loaded: list[bytes] = []

    def keep(page: bytes, _earlier: bytes) -> bytes:
        identity = blake3(page).digest()
        pages[identity] = page
        return identity

    def load(identity: bytes) -> bytes:
        loaded.append(identity)
        return pages[identity]

    def made(chunks: int, changes: dict[int, bytes]) -> DiskMap:
        builder = DiskMapBuilder(keep, chunks)
        for chunk in range(chunks):
            builder.set(chunk, changes.get(chunk, b"same".ljust(CHUNK_ID_SIZE, b".")))
        return DiskMap(load, builder.finish(), chunks)

    before, after = made(3 * PAGE_IDS, {}), made(3 * PAGE_IDS + 5, {PAGE_IDS + 3: bytes(CHUNK_ID_SIZE)})
    loaded.clear()
    found = list(leaves_that_differ(before, after))
    assert [first for first, _, _ in found] == [PAGE_IDS, 3 * PAGE_IDS]
    assert [int((old != new).any(axis=1).sum()) for _, old, new in found] == [1, 5]
    assert len(loaded) == 3
