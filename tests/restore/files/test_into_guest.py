"""The script that runs in guests, run by the shell of this host in a folder of its own."""

import os
import stat
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from hotspare.cancellation import Cancellation
from hotspare.errors import TargetExists, UsageError
from hotspare.platforms.guest_files import ShellEnded
from hotspare.restore.files.into_guest import GuestOptions, restore_into_guest
from hotspare.restore.files.outcome import Restored
from hotspare.restore.files.selection import Selection
from tests.restore.files.memory_files import MODIFIED, MemoryFiles


class HostAsGuest:
    """This host in place of a guest."""

    def __init__(self, *, has_shell: bool = True) -> None:
        self.has_shell = has_shell
        self.scripts = 0

    def exists(self, path: str) -> bool:
        return os.path.exists(path)  # noqa: PTH110

    def write(self, path: str, pieces: Iterable[tuple[int, bytes]], size: int) -> None:
        with Path(path).open("wb") as file:
            for offset, data in pieces:
                file.seek(offset)
                file.write(data)
            file.truncate(size)

    def shell(self, script: str, arguments: Sequence[str]) -> ShellEnded:
        self.scripts += 1
        done = subprocess.run(["sh", "-c", script, "hotspare", *arguments], capture_output=True, check=False)
        return ShellEnded(done.returncode, (done.stdout + done.stderr).decode())


def restore(
    files: MemoryFiles, guest: HostAsGuest, to: Path | None, *paths: str, overwrite: bool = False
) -> Restored:
    options = GuestOptions(str(to) if to else None, overwrite)
    return restore_into_guest(Selection(files, paths), guest, options, lambda _: None, Cancellation())


def some_files() -> MemoryFiles:
    files = MemoryFiles()
    files.add("/d", "folder", mode=0o711, uid=5, gid=6, modified=MODIFIED - 10**9)
    for name in ["a", "b c", "-rf", "$(touch x)", "'", "new\nline", "ä"]:
        files.add(f"/d/{name}", content=name.encode(), mode=0o640, uid=7, gid=8)
    files.add("/d/two", content=b"x", inode=77, links=2)
    files.add("/d/names", content=b"x", inode=77, links=2)
    files.add("/d/link", "link", target="/etc/passwd", uid=9, gid=9)
    files.add("/d/pipe", "fifo", mode=0o600, size=0)
    files.add("/d/null", "character-device", device=(1, 3), mode=0o666, size=0)
    return files


def test_all_kinds_with_what_is_noted_of_them(tmp_path: Path) -> None:
    guest = HostAsGuest()
    done = restore(some_files(), guest, tmp_path / "new" / "folder", "/d")
    folder = tmp_path / "new/folder/d"
    assert (done.entries, done.failed, done.problems) == (13, 0, [])
    for name in ["a", "b c", "-rf", "$(touch x)", "'", "new\nline", "ä"]:
        made = (folder / name).stat()
        assert (folder / name).read_bytes() == name.encode()
        assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (7, 8, 0o640)
        assert made.st_mtime_ns == MODIFIED
    assert (folder / "two").stat().st_ino == (folder / "names").stat().st_ino
    assert (str((folder / "link").readlink()), (folder / "link").lstat().st_uid) == ("/etc/passwd", 9)
    assert stat.S_ISFIFO((folder / "pipe").stat().st_mode)
    assert (folder / "null").stat().st_rdev == os.makedev(1, 3)
    made = folder.stat()
    assert (made.st_uid, stat.S_IMODE(made.st_mode), made.st_mtime_ns) == (5, 0o711, MODIFIED - 10**9)
    assert len(list(folder.iterdir())) == 12
    assert guest.scripts < 8


def test_nothing_is_overwritten_unless_asked_for(tmp_path: Path) -> None:
    files, guest = some_files(), HostAsGuest()
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_text("old")
    with pytest.raises(TargetExists):
        restore(files, guest, tmp_path, "/d")
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["a"]
    (tmp_path / "away").mkdir()
    (tmp_path / "d/b c").symlink_to(tmp_path / "away")
    (tmp_path / "d/link").mkdir()
    done = restore(files, guest, tmp_path, "/d", overwrite=True)
    assert (tmp_path / "d/a").read_text() == "a"
    assert (tmp_path / "d/b c").read_text() == "b c"
    assert list((tmp_path / "away").iterdir()) == []
    assert (done.failed, "folder" in done.problems[0]) == (1, True)


def test_without_a_shell_files_are_written_and_no_more(tmp_path: Path) -> None:
    done = restore(some_files(), HostAsGuest(has_shell=False), tmp_path, "/d/a")
    assert (tmp_path / "a").read_bytes() == b"a"
    assert done.warnings
    with pytest.raises(TargetExists):
        restore(some_files(), HostAsGuest(has_shell=False), tmp_path, "/d/a")


def test_where_files_were_has_to_be_known() -> None:
    with pytest.raises(UsageError):
        restore(some_files(), HostAsGuest(), None, "/d")


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    files = MemoryFiles()
    files.add("/d", "folder")
    files.add(f"/d/{os.fsdecode(bytes([255]))}", content=b"x")
    files.add("/d/good", content=b"y")
    done = restore(files, HostAsGuest(), tmp_path, "/d")
    assert (done.failed, done.entries) == (1, 2)
