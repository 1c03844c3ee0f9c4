"""Files restored to a folder: with everything that is noted of them, and never outside of it."""

import errno
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hotspare.cancellation import Cancellation
from hotspare.errors import FileSystemUnreadable, NoSpace, PathNotFound, TargetExists, UsageError
from hotspare.restore.files import target_folder
from hotspare.restore.files.outcome import Restored
from hotspare.restore.files.selection import Selection
from hotspare.restore.files.to_folder import FolderOptions, restore_to_folder
from hotspare.units import MIB
from tests.restore.files.memory_files import MODIFIED, MemoryFiles


def restore(files: MemoryFiles, target: Path, *paths: str, **options: Any) -> Restored:
    selection = Selection(files, paths or ("/",), full_paths=options.pop("full_paths", False))
    return restore_to_folder(selection, target, FolderOptions(**options), lambda _: None, Cancellation())


def acl(*entries: tuple[int, int, int]) -> bytes:
    """As the kernel gives it: version 2, then tag, permissions and id of each."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_content_owner_mode_and_time(tmp_path: Path) -> None:
    files = MemoryFiles()
    files.add("/etc", "folder", mode=0o751, uid=11, gid=12, modified=MODIFIED - 5)
    files.add("/etc/passwd", content=b"root\n", mode=0o4640, uid=1234, gid=4321)
    done = restore(files, tmp_path / "out", "/etc")
    assert (done.entries, done.bytes, done.failed, done.problems, done.warnings) == (2, 5, 0, [], [])
    folder, file = (tmp_path / "out/etc").stat(), (tmp_path / "out/etc/passwd").stat()
    assert (tmp_path / "out/etc/passwd").read_bytes() == b"root\n"
    assert (file.st_uid, file.st_gid, stat.S_IMODE(file.st_mode)) == (1234, 4321, 0o4640)
    assert file.st_mtime_ns == MODIFIED
    assert (folder.st_uid, folder.st_gid, stat.S_IMODE(folder.st_mode)) == (11, 12, 0o751)
    assert folder.st_mtime_ns == MODIFIED - 5
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def test_links_devices_fifos_and_names_of_one_inode(tmp_path: Path) -> None:
    files = MemoryFiles()
    files.add("/d", "folder")
    files.add("/d/a", content=b"x", inode=77, links=2)
    files.add("/d/b", content=b"x", inode=77, links=2)
    files.add("/d/link", "link", target="/etc/shadow", size=11, uid=5, gid=6)
    files.add("/d/null", "character-device", device=(1, 3), mode=0o666, size=0)
    files.add("/d/disk", "block-device", device=(259, 70000), mode=0o600, size=0)
    files.add("/d/pipe", "fifo", mode=0o620, size=0)
    files.add("/d/socket", "socket", mode=0o777, size=0)
    assert restore(files, tmp_path / "o", "/d").failed == 0
    folder = tmp_path / "o/d"
    assert (folder / "a").stat().st_ino == (folder / "b").stat().st_ino
    link = (folder / "link").lstat()
    assert (str((folder / "link").readlink()), link.st_uid, link.st_gid) == ("/etc/shadow", 5, 6)
    assert link.st_mtime_ns == MODIFIED
    null, disk = (folder / "null").stat(), (folder / "disk").stat()
    assert stat.S_ISCHR(null.st_mode)
    assert (null.st_rdev, stat.S_IMODE(null.st_mode)) == (os.makedev(1, 3), 0o666)
    assert (stat.S_ISBLK(disk.st_mode), disk.st_rdev) == (True, os.makedev(259, 70000))
    assert stat.S_ISFIFO((folder / "pipe").stat().st_mode)
    assert stat.S_ISSOCK((folder / "socket").stat().st_mode)


def test_extended_attributes_and_acls(tmp_path: Path) -> None:
    files = MemoryFiles()
    rights = acl(
        (1, 6, 0xFFFFFFFF), (2, 4, 1000), (4, 4, 0xFFFFFFFF), (0x10, 6, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF)
    )
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    files.add("/f", content=b"x", mode=0o660, uid=7)
    files.extended["/f"] = {
        "user.note": b"\x00\xff",
        "security.capability": capability,
        "system.posix_acl_access": rights,
    }
    files.add("/d", "folder", mode=0o770)
    files.extended["/d"] = {"system.posix_acl_default": rights}
    files.add("/d/inner", content=b"y", mode=0o600)
    assert restore(files, tmp_path / "o").warnings == []
    for name, value in files.extended["/f"].items():
        assert os.getxattr(tmp_path / "o/f", name) == value
    assert os.getxattr(tmp_path / "o/d", "system.posix_acl_default") == rights
    assert stat.S_IMODE((tmp_path / "o/d/inner").stat().st_mode) == 0o600
    assert "system.posix_acl_access" not in os.listxattr(tmp_path / "o/d/inner")


def test_what_cannot_be_kept_is_said_once(tmp_path: Path) -> None:
    files = MemoryFiles()
    for name in "abc":
        files.add(f"/{name}", content=b"x")
        files.extended[f"/{name}"] = {"nonsense.key": b"1"}
    done = restore(files, tmp_path / "o")
    assert done.failed == 0
    assert len(done.warnings) == 1
    assert "nonsense" in done.warnings[0]


def test_holes_stay_holes(tmp_path: Path) -> None:
    files = MemoryFiles()
    data = bytearray(9 * MIB)
    data[5 * MIB : 5 * MIB + 10] = b"0123456789"
    files.add("/sparse", content=bytes(data))
    files.holes["/sparse"] = [(0, 5 * MIB), (6 * MIB, 9 * MIB)]
    done = restore(files, tmp_path / "o")
    assert (tmp_path / "o/sparse").read_bytes() == data
    assert (tmp_path / "o/sparse").stat().st_blocks * 512 <= MIB
    assert done.bytes == MIB


@pytest.mark.parametrize("holes", [[(5, 5)], [(5, 2)], [(4, 8), (6, 9)]])
def test_holes_that_make_no_sense_are_damage(tmp_path: Path, holes: list[tuple[int, int]]) -> None:
    files = MemoryFiles()
    files.add("/sparse", content=bytes(20))
    files.holes["/sparse"] = holes
    assert restore(files, tmp_path / "o").failed == 1
    assert list((tmp_path / "o").iterdir()) == []


def test_streams_stand_beside_their_file(tmp_path: Path) -> None:
    files = MemoryFiles()
    files.add("/doc", content=b"body", mode=None, uid=None, gid=None, streams={"Zone": b"3", "a/b": b"x"})
    done = restore(files, tmp_path / "o")
    assert (tmp_path / "o/doc:Zone").read_bytes() == b"3"
    assert (done.failed, "a/b" in done.problems[0]) == (1, True)
    assert restore(files, tmp_path / "p", streams=False).failed == 0
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["doc"]


def outside(tmp_path: Path) -> tuple[Path, Callable[[], bool]]:
    """Give a folder that must not change, and what tells whether it has."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    before = (folder.stat(), (folder / "precious").stat())

    def unchanged() -> bool:
        now = (folder.stat(), (folder / "precious").stat())
        same = all(
            (old.st_mode, old.st_uid, old.st_mtime_ns) == (new.st_mode, new.st_uid, new.st_mtime_ns)
            for old, new in zip(before, now, strict=True)
        )
        return same and [path.name for path in folder.iterdir()] == ["precious"]

    return folder, unchanged


def test_a_hostile_tree_stays_inside(tmp_path: Path) -> None:
    away, unchanged = outside(tmp_path)
    files = MemoryFiles()
    files.add("/t", "folder")
    files.add("/t/..", "folder")
    files.add("/t/../outside", content=b"1")
    files.add("/t/.", content=b"1")
    files.add("/t/\0", content=b"1")
    files.add("/t/x", "link", target=str(away))
    files.add("/t/x", "folder")
    files.add("/t/x/evil", content=b"2")
    files.add("/t/y", "folder")
    files.add("/t/y", "link", target=str(away))
    files.add("/t/y/evil", content=b"2")
    files.add("/t/z", "link", target="../../outside/precious")
    files.add("/t/z", content=b"3")
    files.add("/t/dup", content=b"4", inode=9, links=2)
    files.add("/t/hard", "link", target=str(away / "precious"), inode=9, links=2)
    done = restore(files, tmp_path / "o", "/t")
    assert unchanged()
    assert done.failed >= 3
    assert {path.name for path in (tmp_path / "o/t").iterdir()} == {"x", "y", "z", "dup", "hard"}
    assert (tmp_path / "o/t/x").is_symlink()


def test_links_that_lie_in_the_target_are_not_followed(tmp_path: Path) -> None:
    away, unchanged = outside(tmp_path)
    files = MemoryFiles()
    files.add("/t", "folder", mode=0o777, uid=3)
    files.add("/t/precious", content=b"evil", mode=0o777, uid=3)
    files.add("/t/sub", "folder", mode=0o777, uid=3)
    files.add("/t/sub/precious", content=b"evil", uid=3)
    out = tmp_path / "o"
    (out / "t").mkdir(parents=True)
    (out / "t/sub").symlink_to(away)
    (out / "t/precious").symlink_to(away / "precious")
    with pytest.raises(TargetExists):
        restore(files, out, "/t")
    done = restore(files, out, "/t", overwrite=True)
    assert unchanged()
    assert done.failed == 0
    assert (out / "t/sub").is_dir()
    assert not (out / "t/sub").is_symlink()
    assert (out / "t/sub/precious").read_bytes() == b"evil"
    (out / "v").mkdir()
    (out / "v/t").symlink_to(away)
    for overwrite in (False, True):
        with pytest.raises(TargetExists):
            restore(files, out / "v", "/t/sub/precious", full_paths=True, overwrite=overwrite)
    assert unchanged()


def test_a_link_swapped_in_while_it_runs_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, unchanged = outside(tmp_path)
    files = MemoryFiles()
    files.add("/t", "folder")
    files.add("/t/sub", "folder")
    files.add("/t/sub/evil", content=b"evil")
    files.add("/t/zub", "folder")
    files.add("/t/zub/evil", content=b"evil")
    make_folder = target_folder.TargetFolder.make_folder

    def swapped(self: target_folder.TargetFolder, parts: tuple[str, ...], *, replace: bool = False) -> bool:
        made = make_folder(self, parts, replace=replace)
        if parts[-1] == "zub":
            (tmp_path / "o/t/zub").rmdir()
            (tmp_path / "o/t/zub").symlink_to(away)
        return made

    monkeypatch.setattr(target_folder.TargetFolder, "make_folder", swapped)
    done = restore(files, tmp_path / "o", "/t")
    assert unchanged()
    assert done.failed == 2  # the file in it, and what is noted of the folder
    assert (tmp_path / "o/t/sub/evil").read_bytes() == b"evil"


def test_nothing_is_overwritten_unless_asked_for(tmp_path: Path) -> None:
    files = MemoryFiles()
    files.add("/a", content=b"new")
    files.add("/b", content=b"new")
    out = tmp_path / "o"
    out.mkdir()
    (out / "b").write_text("old")
    for paths in (["/a", "/b"], ["/"]):
        with pytest.raises(TargetExists) as caught:
            restore(files, out, *paths)
        assert "--overwrite" in caught.value.hint
        assert [path.name for path in out.iterdir()] == ["b"]
    assert restore(files, out, "/a", "/b", overwrite=True).failed == 0
    assert (out / "b").read_bytes() == b"new"


def test_a_second_run_writes_only_what_differs(tmp_path: Path) -> None:
    files = MemoryFiles()
    for name in "abc":
        files.add(f"/{name}", content=name.encode() * 10)
    restore(files, tmp_path / "o")
    (tmp_path / "o/a").write_bytes(b"A" * 10)
    (tmp_path / "o/b").chmod(0o777)
    files.opened = 0
    done = restore(files, tmp_path / "o", overwrite=True)
    assert (files.opened, done.skipped, done.entries) == (1, 2, 3)
    assert (tmp_path / "o/a").read_bytes() == b"a" * 10
    assert stat.S_IMODE((tmp_path / "o/b").stat().st_mode) == 0o644


def test_a_folder_never_gives_way_to_a_file(tmp_path: Path) -> None:
    files = MemoryFiles()
    files.add("/a", content=b"new")
    (tmp_path / "o/a/inner").mkdir(parents=True)
    done = restore(files, tmp_path / "o", overwrite=True)
    assert done.failed == 1
    assert (tmp_path / "o/a/inner").is_dir()


def test_names_and_whole_paths(tmp_path: Path) -> None:
    files = MemoryFiles()
    for folder in ("/etc", "/srv", "/srv/etc"):
        files.add(folder, "folder")
    files.add("/etc/a", content=b"1")
    files.add("/srv/etc/b", content=b"2")
    with pytest.raises(UsageError):
        restore(files, tmp_path / "o", "/etc", "/srv/etc")
    assert not (tmp_path / "o").exists()
    restore(files, tmp_path / "whole", "/etc", "/srv/etc", full_paths=True)
    assert (tmp_path / "whole/srv/etc/b").read_bytes() == b"2"
    restore(files, tmp_path / "inside", "/etc/", "/srv/etc/")
    assert {path.name for path in (tmp_path / "inside").iterdir()} == {"a", "b"}
    with pytest.raises(PathNotFound):
        restore(files, tmp_path / "none", "/etc", "/nothing")
    assert not (tmp_path / "none").exists()


def test_what_is_damaged_is_named_and_the_rest_is_restored(tmp_path: Path) -> None:
    files = MemoryFiles()
    files.add("/d", "folder")
    files.add("/d/a", content=b"good")
    files.add("/d/b", content=bytes(100))
    files.fails_at["/d/b"] = 50
    files.broken_folders.add("/d")
    done = restore(files, tmp_path / "o", "/d")
    assert (tmp_path / "o/d/a").read_bytes() == b"good"
    assert [path.name for path in (tmp_path / "o/d").iterdir()] == ["a"]
    assert done.failed == 2
    with pytest.raises(FileSystemUnreadable):
        done.refuse_failures()


def test_odd_names(tmp_path: Path) -> None:
    names = ["-rf", " ", "a\nb", os.fsdecode(b"\xff\xfe"), "ä" * 120, "*", "con", "🦊"]
    files = MemoryFiles()
    for name in names:
        files.add(f"/{name}", content=os.fsencode(name))
    files.add(f"/{'x' * 300}", content=b"")
    done = restore(files, tmp_path / "o")
    assert {path.name for path in (tmp_path / "o").iterdir()} == set(names)
    assert done.failed == 1


def test_deep_folders(tmp_path: Path) -> None:
    files = MemoryFiles()
    path = ""
    for _ in range(60):
        path += "/" + "d" * 200
        files.add(path, "folder")
    files.add(f"{path}/leaf", content=b"leaf")
    done = restore(files, tmp_path / "o")
    assert (done.failed, done.entries) == (0, 61)


def test_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    files = MemoryFiles()
    files.add("/a", content=b"x")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NoSpace):
        restore(files, tmp_path / "o")
    assert list((tmp_path / "o").iterdir()) == []


def test_a_file_system_without_unnamed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_RDWR | os.O_DIRECTORY)
    files = MemoryFiles()
    files.add("/a", content=b"x")
    files.add("/b", content=b"y")
    assert restore(files, tmp_path / "o", "/a").failed == 0
    assert restore(files, tmp_path / "o", overwrite=True).skipped == 1
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"a", "b"}


def test_without_root_owners_and_set_id_bits_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    files = MemoryFiles()
    files.add("/a", content=b"x", mode=0o6755, uid=1234)
    done = restore(files, tmp_path / "o")
    made = (tmp_path / "o/a").stat()
    assert (made.st_uid, stat.S_IMODE(made.st_mode)) == (os.getuid(), 0o755)
    assert len(done.warnings) == 1
