"""Files with everything that a file system of Unix can have, and names that it can just bear."""

import os
import socket
import stat
import subprocess
from pathlib import Path

from tests.guest.files.mounts import run

ODD_NAMES = [
    b"\xff\xfe no utf-8",
    b"\xed\xa0\x80 lone surrogate",
    b"\xc0\x80 overlong",
    b"new\nline",
    b" space before",
    b"space behind  ",
    b"a" * 255,
    "ü".encode() * 127,
    "😀".encode(),
    "e\u0301 combined".encode(),
    b"back\\slash",
    b"\x01control",
    b"colon:and*star?",
    b'"quoted"',
    b"-rf",
]
TIMES = [
    -1,
    -(2**31) * 10**9,
    -123_456_789_012_345_678,
    2**31 * 10**9 + 5,
    4_102_444_800_123_456_789,
    2**32 * 10**9 + 7,
    15_032_385_535_999_999_999,
    999_999_999,
]
TIMES_OF_32_BITS = [-1 * 10**9, -(2**31) * 10**9, (2**31 - 1) * 10**9]


def fill(point: Path, *, large: bool = True, names: int = 400) -> None:
    """Write it all below a folder. Some is left out where a file system cannot have it."""
    root = os.fsencode(point)
    _names(root)
    _stored_oddly(point)
    _fragmented(point)
    _kinds(point)
    _owners_and_times(point)
    _attributes(point)
    _folders(point, names)
    if large:
        (point / "large").write_bytes(os.urandom(1 << 20) * 5)


def _names(root: bytes) -> None:
    for name in ODD_NAMES:
        Path(os.fsdecode(root + b"/" + name)).write_bytes(name)


def _stored_oddly(point: Path) -> None:
    for size in (0, 1, 59, 60, 61, 100, 150, 160, 4095, 4096, 4097):
        (point / f"size-{size}").write_bytes(os.urandom(size))
    with (point / "sparse").open("wb") as file:
        file.seek(10 << 20)
        file.write(b"end")
        file.truncate(20 << 20)
    with (point / "preallocated").open("wb") as file:
        if not _allocated(point / "preallocated", "-l", "5M"):
            return  # by pointers, without extents
        file.seek(3 << 20)
        file.write(b"in the middle")
    (point / "allocated-beyond").write_bytes(b"abc")
    assert _allocated(point / "allocated-beyond", "-n", "-l", "1M")


def _allocated(file: Path, *options: str) -> bool:
    return subprocess.run(["fallocate", *options, file], check=False, capture_output=True).returncode == 0


def _fragmented(point: Path) -> None:
    files = [(point / f"fragmented-{number}").open("wb", buffering=0) for number in range(3)]
    for step in range(120):
        for number, file in enumerate(files):
            file.seek(step * 8192 * (2 if number else 1))
            file.write(bytes([step % 255 + 1]) * 4096)
        if step % 60 == 0:
            run("sync", "-f", point)
    for file in files:
        file.close()


def _kinds(point: Path) -> None:
    for length in (1, 58, 59, 60, 61, 200, 4000 if _takes_long_links(point) else 900):
        (point / f"link-{length}").symlink_to("x" * length)
    (point / "link-odd").symlink_to(os.fsdecode(b"\xff\xfe/odd"))
    for number, device in enumerate([(5, 1), (259, 70000), (1, 255), (4095, 1 << 19)]):
        os.mknod(point / f"character-{number}", stat.S_IFCHR | 0o644, os.makedev(*device))
        os.mknod(point / f"block-{number}", stat.S_IFBLK | 0o600, os.makedev(*device))
    os.mkfifo(point / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(point)
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
    (point / "one").write_bytes(b"one")
    for number in range(3):
        os.link(point / "one", point / f"one-more-{number}")


def _takes_long_links(point: Path) -> bool:
    return os.statvfs(point).f_bsize >= 4096


def _owners_and_times(point: Path) -> None:
    (point / "owned").write_bytes(b"")
    os.chown(point / "owned", 70000, 4_000_000_000)
    (point / "set-id").write_bytes(b"")
    (point / "set-id").chmod(0o6755)
    (point / "sticky").mkdir()
    (point / "sticky").chmod(0o1777)
    for number, time in enumerate([*TIMES, *TIMES_OF_32_BITS]):
        (point / f"time-{number}").write_bytes(b"")
        os.utime(point / f"time-{number}", ns=(time, time))


def _attributes(point: Path) -> None:
    for name in ("few", "many"):
        (point / name).write_bytes(b"content")
        os.setxattr(point / name, "user.small", b"value")
        os.setxattr(point / name, "user.empty", b"")
        os.setxattr(point / name, "security.selinux", b"system_u:object_r:etc_t:s0\0")
    os.setxattr(point / "many", "user.big", os.urandom(500))
    os.setxattr(point / "many", "trusted.overlay.opaque", b"y")
    os.setxattr(point / "many", os.fsencode("user.naïve"), b"1")
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    (point / "capable").write_bytes(b"")
    os.setxattr(point / "capable", "security.capability", capability)
    (point / "listed").write_bytes(b"")
    (point / "listed-folder").mkdir()
    run("setfacl", "-m", "u:70000:rwx,u:0:r,g:5:r--", point / "listed")
    run("setfacl", "-m", "d:u:70000:rwx,d:g:5:r--", point / "listed-folder")
    (point / "listed-link").symlink_to("few")
    os.setxattr(point / "listed-link", "trusted.of-link", b"1", follow_symlinks=False)


def _folders(point: Path, names: int) -> None:
    deep = point.joinpath(*(f"deep-{number}" for number in range(50)))
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"at the bottom")
    (point / "empty").mkdir()
    for few in (1, 3, 12):
        (point / f"few-{few}").mkdir()
        for number in range(few):
            (point / f"few-{few}" / f"n{number}").write_bytes(b"")
    full = point / "full"
    full.mkdir()
    for number in range(names):
        (full / f"{number:05d}{'n' * (number % 90)}").write_bytes(b"%d" % number)
    for number in range(0, names, 3):
        (full / f"{number:05d}{'n' * (number % 90)}").unlink()
