"""Files as a tar stream, read again by the tar programs that people use."""

import io
import os
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from hotspare.cancellation import Cancellation
from hotspare.errors import StorageError
from hotspare.restore.files.acl import acl_text
from hotspare.restore.files.outcome import Restored
from hotspare.restore.files.selection import Selection
from hotspare.restore.files.to_tar import restore_to_tar
from hotspare.units import MIB
from tests.restore.files.memory_files import MODIFIED, MemoryFiles

NOBODY = 0xFFFFFFFF
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in [
        (1, 6, NOBODY),
        (2, 4, 1000),
        (4, 4, NOBODY),
        (8, 5, 50),
        (0x10, 6, NOBODY),
        (0x20, 0, NOBODY),
    ]
)


def tar_of(files: MemoryFiles, *paths: str) -> tuple[bytes, Restored]:
    stream = io.BytesIO()
    done = restore_to_tar(Selection(files, paths or ("/",)), stream, lambda _: None, Cancellation())
    return stream.getvalue(), done


def everything() -> MemoryFiles:
    files = MemoryFiles()
    files.add("/d", "folder", mode=0o1751, uid=2_000_000_000, gid=12, modified=-1_500_000_000)
    files.add("/d/a", content=b"x" * 1000, inode=77, links=2, mode=0o4660, uid=1234, gid=4321)
    files.add("/d/b", content=b"x" * 1000, inode=77, links=2, mode=0o4660, uid=1234, gid=4321)
    files.add(f"/d/{'ä' * 100}", content=b"long")
    files.add(f"/d/{os.fsdecode(bytes([0xFF, 0xFE]))}", content=b"odd")
    files.add("/d/link", "link", target="/etc/" + "t" * 150, size=155)
    files.add("/d/null", "character-device", device=(1, 3), mode=0o666, size=0)
    files.add("/d/pipe", "fifo", mode=0o620, size=0)
    files.add("/d/socket", "socket", mode=0o777, size=0)
    files.extended["/d/a"] = {
        "user.note": b"\x00\xff=\n",
        "user.plain": b"plain",
        "system.posix_acl_access": ACL,
    }
    files.extended["/d"] = {"system.posix_acl_default": ACL}
    return files


def test_gnu_tar_gets_everything_back(tmp_path: Path) -> None:
    archive, done = tar_of(everything(), "/d")
    assert (done.entries, done.failed, len(done.warnings)) == (8, 0, 1)
    subprocess.run(
        ["tar", "-x", "--xattrs", "--xattrs-include=*", "--acls", "--same-owner", "-p", "-C", tmp_path],
        input=archive,
        check=True,
    )
    folder = tmp_path / "d"
    first = (folder / "a").stat()
    assert (first.st_uid, first.st_gid, stat.S_IMODE(first.st_mode)) == (1234, 4321, 0o4660)
    assert first.st_mtime_ns == MODIFIED
    assert (folder / "b").stat().st_ino == first.st_ino
    assert folder.stat().st_mtime_ns == -1_500_000_000
    assert folder.stat().st_uid == 2_000_000_000
    assert os.getxattr(folder / "a", "user.note") == b"\x00\xff=\n"
    assert os.getxattr(folder / "a", "system.posix_acl_access") == ACL
    assert os.getxattr(folder, "system.posix_acl_default") == ACL
    assert str((folder / "link").readlink()) == "/etc/" + "t" * 150
    assert (folder / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO((folder / "pipe").stat().st_mode)
    assert (folder / os.fsdecode(b"\xff\xfe")).read_bytes() == b"odd"
    assert (folder / ("ä" * 100)).read_bytes() == b"long"


def test_a_sparse_file_is_whole() -> None:
    files = MemoryFiles()
    files.add("/s", content=bytes(5 * MIB) + b"end")
    files.holes["/s"] = [(0, 5 * MIB)]
    archive, _ = tar_of(files)
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        member = read.extractfile("s")
        assert member is not None
        assert member.read() == bytes(5 * MIB) + b"end"


def test_a_file_that_breaks_off_leaves_the_archive_whole() -> None:
    files = MemoryFiles()
    files.add("/a", content=b"a" * 5 * MIB)
    files.fails_at["/a"] = 4 * MIB + 1
    files.add("/b", content=b"good")
    archive, done = tar_of(files)
    assert (done.failed, done.entries) == (1, 1)
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        assert {member.name: member.size for member in read} == {"a": 5 * MIB, "b": 4}
        member = read.extractfile("b")
        assert member is not None
        assert member.read() == b"good"


def test_streams() -> None:
    files = MemoryFiles()
    files.add("/doc", content=b"body", mode=None, uid=None, gid=None, streams={"Zone": b"3"})
    archive, _ = tar_of(files)
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        assert read.getnames() == ["doc", "doc:Zone"]


def test_nobody_reads_any_more() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    files = MemoryFiles()
    files.add("/a", content=b"a" * MIB)
    with os.fdopen(writer, "wb", buffering=0) as stream, pytest.raises(StorageError):
        restore_to_tar(Selection(files, ["/"]), stream, lambda _: None, Cancellation())


@pytest.mark.parametrize("value", [b"", b"\2\0\0\0\1", b"\1\0\0\0", b"\2\0\0\0" + bytes(8)])
def test_what_is_no_acl(value: bytes) -> None:
    assert acl_text("system.posix_acl_access", value) is None


def test_an_acl_as_text() -> None:
    text = "user::rw-,user:1000:r--,group::r--,group:50:r-x,mask::rw-,other::---"
    assert acl_text("system.posix_acl_access", ACL) == ("access", text)
