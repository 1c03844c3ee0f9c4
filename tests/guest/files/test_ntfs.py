"""NTFS, read by libfsntfs in its worker, against ntfs-3g."""

import os
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyfsntfs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.block.file import RawFile
from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.files.file_system import FileEntry, NeedsAppliance
from hotspare.guest.files.ntfs.isolated import IsolatedNtfs
from hotspare.guest.files.ntfs.record import Tag, link_target, parse_record
from tests.guest.files.mounts import mounted_ntfs, new_image, run, walked

NAMES = [
    "trail  ", " lead", "a" * 255, "ü" * 255, "😀" * 127, "e\u0301", "CON", "a.b.c", "a long name.txt",
    "new\nline", "colon:x", "q?*", "back\\slash", "trail.", os.fsdecode(b"\xed\xa0\x80 lone surrogate"),
]  # fmt: skip
DOUBLY_NAMED = "/with a long name.text"
COMPRESSED = struct.pack(">I", 0x810)


@contextmanager
def opened(image: Path) -> Iterator[IsolatedNtfs]:
    disk = RawFile.open(image)
    try:
        file_system = IsolatedNtfs(disk)
        try:
            yield file_system
        finally:
            file_system.close()
    finally:
        disk.close()


def made(folder: Path, *options: str, size: str = "48M") -> Path:
    image = new_image(folder / "ntfs.img", size)
    run("mkntfs", "-q", "-F", "-f", *options, image)
    return image


def fill(point: Path) -> None:
    for name in NAMES:
        (point / name).write_bytes(os.fsencode(name))
    for size in (0, 1, 500, 700, 1000, 4095, 4096, 4097):
        (point / f"size-{size}").write_bytes(os.urandom(size))
    _stored_oddly(point)
    (point / "one").write_bytes(b"one")
    for number in range(40):  # more names than one record has place for
        os.link(point / "one", point / f"one-more-{number}-{'x' * 60}")
    os.setxattr(point / "one", "user.stream", b"S" * 50_000)
    os.setxattr(point / "one", "user.tiny ü", b"tiny")
    for number, time in enumerate([-100, 0, 4_102_444_800_123_456_700, 2**33 * 10**9, -(2**32) * 10**9]):
        (point / f"time-{number}").write_bytes(b"")
        os.utime(point / f"time-{number}", ns=(time, time))
    deep = point.joinpath(*(f"deep-{number}" for number in range(40)))
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"at the bottom")
    (point / "full").mkdir()
    for number in range(300):
        (point / "full" / f"{number:05d}{'n' * (number % 90)}").write_bytes(b"%d" % number)
    for number in range(0, 300, 3):
        (point / "full" / f"{number:05d}{'n' * (number % 90)}").unlink()
    (point / "emptied").mkdir()
    for number in range(200):
        (point / "emptied" / f"{number:05d}{'n' * 60}").write_bytes(b"")
    for number in range(195):
        (point / "emptied" / f"{number:05d}{'n' * 60}").unlink()
    (point / DOUBLY_NAMED[1:]).write_bytes(b"both")
    os.setxattr(point / DOUBLY_NAMED[1:], "system.ntfs_dos_name", b"WITHAL~1.TEX")


def _stored_oddly(point: Path) -> None:
    chance = random.Random(1)
    text = b"".join(b"line %d %d\n" % (number, chance.randrange(10)) for number in range(30_000))
    (point / "compressed").mkdir()
    os.setxattr(point / "compressed", "system.ntfs_attrib_be", COMPRESSED)
    contents = {
        "text": text,
        "noise": chance.randbytes(300_000),
        "zeroes": bytes(500_000),
        "small": b"abc" * 100,
    }
    for name, content in contents.items():
        (point / "compressed" / name).write_bytes(content)
    with (point / "compressed/sparse").open("wb") as sparse:
        sparse.seek(1 << 20)
        sparse.write(text[:100_000])
        sparse.seek(5 << 20)
        sparse.write(b"end")
    with (point / "sparse").open("wb") as sparse:
        sparse.seek(10 << 20)
        sparse.write(b"end")
        sparse.truncate(20 << 20)
    files = [(point / f"fragmented-{number}").open("wb", buffering=0) for number in range(3)]
    for step in range(150):
        for file in files:
            file.seek(step * 8192)
            file.write(bytes([step + 1]) * 4096)
    for file in files:
        file.close()


class Comparison:
    def __init__(self, file_system: IsolatedNtfs) -> None:
        self.file_system = file_system
        self.wrong: list[str] = []
        self.compared = 0

    def compare(self, entry: FileEntry, path: bytes) -> None:
        self.compared += 1
        about = os.lstat(path)
        ours = (entry.inode, entry.modified, entry.links if entry.kind == "file" else 1)
        theirs = (about.st_ino, about.st_mtime_ns, about.st_nlink if entry.kind == "file" else 1)
        if entry.path == DOUBLY_NAMED:  # ntfs-3g counts the short name
            theirs = (theirs[0], theirs[1], 1)
        if abs(ours[1] - theirs[1]) <= 100:  # ntfs-3g rounds towards zero
            theirs = (theirs[0], ours[1], theirs[2])
        if ours != theirs:
            self.wrong.append(f"{entry.path[-60:]!r}: {ours} instead of {theirs}")
        self.attributes(entry, path)
        if entry.kind == "file":
            self.content(entry, path)
        else:
            self.folder(entry, path)

    def attributes(self, entry: FileEntry, path: bytes) -> None:
        for name, value in self.file_system.attributes(entry.path).items():
            if entry.path != "/" and os.getxattr(path, name) != value:
                self.wrong.append(f"{entry.path[-60:]!r}: {name} is {value!r}")

    def content(self, entry: FileEntry, path: bytes) -> None:
        theirs = Path(os.fsdecode(path)).read_bytes()
        ours = self.file_system.open(entry.path)
        if (entry.size, ours.size, ours.read(0, 1 << 30)) != (len(theirs), len(theirs), theirs):
            self.wrong.append(f"{entry.path[-60:]!r}: content differs")
        middle = len(theirs) // 2
        if ours.read(middle, 7000) != theirs[middle : middle + 7000]:
            self.wrong.append(f"{entry.path[-60:]!r}: content differs in the middle")
        if any(any(theirs[start:end]) for start, end in ours.holes()):
            self.wrong.append(f"{entry.path[-60:]!r}: a hole is none")
        ours.close()
        streams = {
            name[5:]: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")
        }
        read = {name: self.file_system.open(entry.path, name).read(0, 1 << 20) for name in entry.streams}
        if read != streams:
            self.wrong.append(f"{entry.path[-60:]!r}: streams {list(read)} instead of {list(streams)}")

    def folder(self, entry: FileEntry, path: bytes) -> None:
        names = {os.fsencode(child.name) for child in Path(os.fsdecode(path)).iterdir()}
        for child in self.file_system.entries(entry.path):
            if os.fsencode(child.name) in names:
                names.remove(os.fsencode(child.name))
                self.compare(child, path + b"/" + os.fsencode(child.name))
            else:
                self.wrong.append(f"{child.path[-60:]!r} is not there, or twice")
        if names:
            self.wrong.append(f"{entry.path[-60:]!r}: {sorted(names)[:3]} missing")


@pytest.mark.parametrize("options", [[], ["-c", "512"], ["-s", "4096"]], ids=["4k", "512", "4k-native"])
def test_everything_is_as_ntfs_3g_has_it(options: list[str], tmp_path: Path) -> None:
    image = made(tmp_path, *options)
    with mounted_ntfs(image) as point:
        fill(point)
    with mounted_ntfs(image, "ro") as point, opened(image) as file_system:
        assert file_system.remarks == ()
        comparison = Comparison(file_system)
        comparison.compare(file_system.entry("/"), os.fsencode(point))
        assert comparison.wrong == []
        found, failure = walked(file_system)
        assert failure is None
        assert len(found) + 1 == comparison.compared > 300
        assert file_system.entry("/FULL").path == "/full"
        (first, second) = file_system.open("/sparse").holes()
        assert first == (0, 10 << 20)
        assert second[1] == 20 << 20


def record_of(image: Path, path: str) -> tuple[int, bytearray]:
    """Give where the record of a file is, and its bytes."""
    volume = pyfsntfs.volume()
    with image.open("rb") as file:
        volume.open_file_object(file)
        number = volume.get_file_entry_by_path(path.replace("/", "\\")).file_reference & (1 << 48) - 1
        start = volume.get_file_entry(0).get_extent(0)[0] + number * 1024
        file.seek(start)
        raw = bytearray(file.read(1024))
        volume.close()
    return start, raw


def attribute_of(raw: bytearray, sort: int) -> int:
    at = int(struct.unpack_from("<H", raw, 20)[0])
    while struct.unpack_from("<I", raw, at)[0] != sort:
        at += struct.unpack_from("<I", raw, at + 4)[0]
        assert at < len(raw)
    return at


def patch(image: Path, path: str, sort: int, offset: int, new: bytes) -> None:
    """Change bytes of an attribute; they must not be at the end of a sector."""
    start, raw = record_of(image, path)
    at = attribute_of(raw, sort) + offset
    with image.open("r+b") as file:
        file.seek(start + at)
        file.write(new)


@pytest.mark.parametrize("cluster", [8192, 65536])
def test_larger_clusters_are_refused(cluster: int, tmp_path: Path) -> None:
    image = made(tmp_path, "-c", str(cluster))
    with pytest.raises(NeedsAppliance, match="clusters"), opened(image):
        pass


def test_what_was_never_written_of_a_file_is_zeroes(tmp_path: Path) -> None:
    image = made(tmp_path)
    with mounted_ntfs(image) as point:
        (point / "file").write_bytes(b"X" * 100_000)
    patch(image, "/file", 0x80, 56, struct.pack("<Q", 50_000))
    with mounted_ntfs(image, "ro") as point, opened(image) as file_system:
        content = file_system.open("/file").read(0, 200_000)
        assert content == (point / "file").read_bytes() == b"X" * 50_000 + bytes(50_000)


def test_encrypted_files_are_refused(tmp_path: Path) -> None:
    image = made(tmp_path)
    with mounted_ntfs(image) as point:
        (point / "marked").write_bytes(b"X" * 100_000)
        (point / "flagged").write_bytes(b"X" * 100_000)
        (point / "plain").write_bytes(b"plain")
    patch(image, "/flagged", 0x80, 12, struct.pack("<H", 0x4000))
    patch(image, "/marked", 0x10, 24 + 32, struct.pack("<I", 0x4020))
    with opened(image) as file_system:
        assert {entry.name for entry in file_system.entries("/")} == {"marked", "flagged", "plain"}
        for path in ("/marked", "/flagged"):
            with pytest.raises(FileSystemUnreadable, match="EFS"):
                file_system.open(path)
        assert file_system.open("/plain").read(0, 10) == b"plain"


def reparse(tag: int, data: bytes) -> bytes:
    return struct.pack("<IHH", tag, len(data), 0) + data


def link_data(real: str, shown: str, *, flags: bool) -> bytes:
    first, second = real.encode("utf-16-le"), shown.encode("utf-16-le")
    head = struct.pack("<HHHH", 0, len(first), len(first) + 2, len(second))
    return head + (bytes(4) if flags else b"") + first + b"\0\0" + second + b"\0\0"


def test_reparse_points(tmp_path: Path) -> None:
    image = made(tmp_path)
    points = {
        "link": reparse(Tag.SYMBOLIC_LINK, link_data("dir\\file", "dir\\file", flags=True)),
        "junction": reparse(Tag.MOUNT_POINT, link_data("\\??\\C:\\Users", "C:\\Users", flags=False)),
        "hidden": reparse(Tag.MOUNT_POINT, link_data("\\??\\C:\\Users", "", flags=False)),
        "fifo": reparse(0x9000001A, bytes(8)),
        "linux": reparse(Tag.LINUX_LINK, struct.pack("<I", 2) + "ü/x".encode()),
        "cloud": reparse(0x9000001A, bytes(16)),
        "deduplicated": reparse(0x80000013, bytes(100)),
    }
    with mounted_ntfs(image) as point:
        for name, data in points.items():
            if name in {"junction", "hidden"}:
                (point / name).mkdir()
            else:
                (point / name).write_bytes(b"" if name in {"link", "linux", "fifo"} else b"not this")
            os.setxattr(point / name, "system.ntfs_reparse_data", data, follow_symlinks=False)
    patch(image, "/fifo", 0xC0, 24, struct.pack("<I", Tag.LINUX_FIFO))  # ntfs-3g lets nobody write that
    with opened(image) as file_system:
        found = {entry.name: entry for entry in file_system.entries("/")}
        targets = {name: entry.target for name, entry in found.items() if entry.kind == "link"}
        assert targets == {"link": "dir/file", "junction": "C:/Users", "hidden": "C:/Users", "linux": "ü/x"}
        assert found["fifo"].kind == "fifo"
        for name in ("cloud", "deduplicated"):
            assert found[name].kind == "file"
            with pytest.raises(FileSystemUnreadable, match="elsewhere"):
                file_system.open(f"/{name}")


def test_doubts_are_told(tmp_path: Path) -> None:
    image = made(tmp_path)
    with mounted_ntfs(image) as point:
        (point / "hiberfil.sys").write_bytes(b"hibr" + bytes(8192))
    patch(image, "/$Volume", 0x70, 24 + 10, b"\x01\x00")
    with opened(image) as file_system:
        assert ["in use" in file_system.remarks[0], "hibernated" in file_system.remarks[1]] == [True, True]


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    image = made(tmp_path)
    with mounted_ntfs(image) as point:
        (point / "file").write_bytes(b"x")
    with opened(image) as file_system:
        for path in ("/nothing", "/file/below", "/$MFT"):
            with pytest.raises(PathNotFound):
                file_system.entry(path)
        with pytest.raises(PathNotFound):
            file_system.open("/file", "stream")
        with pytest.raises(FileSystemUnreadable, match="no content"):
            file_system.open("/")
        assert file_system.generation == 1


@given(st.binary(max_size=1024))
def test_any_record_ends_in_one_or_a_value_error(raw: bytes) -> None:
    for record in (raw, (b"FILE\x30\x00\x03\x00" + raw).ljust(1024, b"\0")[:1024]):
        with suppress(ValueError):
            parse_record(record)


@given(st.binary(max_size=100), st.sampled_from([*Tag, 5]))
def test_any_reparse_point_is_a_link_or_none(data: bytes, tag: int) -> None:
    assert link_target(reparse(tag, data)) != ""
