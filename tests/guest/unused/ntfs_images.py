"""NTFS images for tests: made and filled by ntfs-3g, and then given what only Windows writes."""

import os
import random
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hotspare.guest.unused.ntfs.boot import NtfsLayout, read_layout
from hotspare.guest.unused.ntfs.table import MasterFileTable
from hotspare.guest.unused.volume_bytes import VolumeBytes
from hotspare.units import KIB
from tests.guest.unused.garbage import by_program, run
from tests.guest.unused.patched import Patched, served

LISTING = by_program("ntfs-3g", "-o", "ro,compression", "{image}", "{folder}")
FSCK = ["ntfsfix", "-n"]
LOG_FILE, VOLUME = 2, 3
HIDDEN_SYSTEM = 0x26
COMPRESSED = 0x800


def make_ntfs(image: Path, size: int, *options: str) -> None:
    """Make an empty NTFS."""
    with image.open("wb") as file:
        file.truncate(size)
    run(["mkfs.ntfs", "-F", "-Q", "-q", *options, str(image)])


@contextmanager
def ntfs_mounted(image: Path) -> Iterator[Path]:
    """Mount an image for writing; at the end all is written."""
    with served(["ntfs-3g", "-o", "compression,no_detach", str(image)]) as root:
        yield root


def set_attributes(path: Path, attributes: int) -> None:
    """Set the attributes that Windows shows: hidden, system, compressed…"""
    os.setxattr(path, "system.ntfs_attrib", attributes.to_bytes(4, "little"))


def populate(root: Path, *, small: int = 250, seed: int = 1) -> None:
    """Write what makes an NTFS interesting, and delete some of it."""
    chance = random.Random(seed)
    for number in range(small):
        folder = root / f"folder {number % 7}" / "innen öäü"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file {number}.bin").write_bytes(chance.randbytes(chance.randrange(30 * KIB)))
    packed = root / "packed"
    packed.mkdir()
    set_attributes(packed, COMPRESSED)
    (packed / "text").write_bytes(b"the same again and again\n" * 20000)
    (packed / "half").write_bytes(b"x" * 100_000 + chance.randbytes(100_000))
    (root / "streams").write_bytes(b"main")
    os.setxattr(root / "streams", "user.small", b"one")
    os.setxattr(root / "streams", "user.large", chance.randbytes(60 * KIB))
    with (root / "sparse").open("wb") as file:
        for at in (KIB * 64, 5000 * KIB, 9000 * KIB):
            file.seek(at)
            file.write(chance.randbytes(10 * KIB))
        file.truncate(20_000 * KIB)
    os.link(root / "streams", root / "same streams")
    (root / "link").symlink_to("streams")
    _fragment(root, chance)
    shutil.rmtree(root / "folder 3")
    (root / "folder 5" / "innen öäü" / "file 5.bin").unlink()


def _fragment(root: Path, chance: random.Random) -> None:
    """Write two files turn by turn, so that the run list of the one left needs several records."""
    with (root / "pieces").open("wb", buffering=0) as kept, (root / "gone").open("wb", buffering=0) as gone:
        for _ in range(400):
            kept.write(chance.randbytes(4 * KIB))
            gone.write(chance.randbytes(4 * KIB))
            os.fsync(kept.fileno())
    (root / "gone").unlink()


def fill_up(root: Path, name: str, size: int) -> int:
    """Write files until there is no room, and say how many."""
    for number in range(100_000):
        try:
            (root / f"{name}{number}").write_bytes(b"x" * size)
        except OSError:
            (root / f"{name}{number}").unlink(missing_ok=True)
            return number
    raise AssertionError


class Disk(Patched):
    """An image in memory whose records can be found and changed."""

    @classmethod
    def of(cls, image: Path) -> "Disk":
        return cls(image.read_bytes())

    @property
    def layout(self) -> NtfsLayout:
        return read_layout(VolumeBytes(Patched(self.base)))

    @property
    def table(self) -> MasterFileTable:
        return MasterFileTable(VolumeBytes(Patched(self.base)), self.layout)

    def record_at(self, number: int) -> list[int]:
        """Say where a record lies, and its copy if it has one."""
        layout = self.layout
        places = [self.table.data._place(number * layout.record)[0]]
        if number < 4:
            places.append(layout.mirror * layout.cluster + number * layout.record)
        return places

    def stream_at(self, number: int, kind: int = 0x80, name: str = "") -> int:
        """Say where the content of a file begins."""
        table = self.table
        stream = table.stream(table.record(number), kind, name)
        assert stream is not None
        return stream.runs[0][0] * self.layout.cluster

    def attribute_at(self, number: int, kind: int, name: str = "") -> list[int]:
        """Say where in its record, and in the copy of that, an attribute of a file begins."""
        places = self.record_at(number)
        record = self.read(places[0], self.layout.record)
        at = struct.unpack_from("<H", record, 0x14)[0]
        while True:
            found, length = struct.unpack_from("<II", record, at)
            assert found != 0xFFFFFFFF, f"record {number} has no attribute {kind:#x}"
            begins, chars = at + struct.unpack_from("<H", record, at + 10)[0], record[at + 9]
            if found == kind and record[begins : begins + 2 * chars].decode("utf-16-le") == name:
                return [place + at for place in places]
            at += length


def restart_page(
    number: int, *, clean: bool, version: tuple[int, int] = (1, 1), magic: bytes = b"RSTR"
) -> bytes:
    """Make a restart page of $LogFile, as Windows writes two of them."""
    size, area, usa = 4096, 0x48, 0x1E
    page = bytearray(size)
    struct.pack_into("<4sHHQIIHHH", page, 0, magic, usa, size // 512 + 1, 0, size, size, area, *version[::-1])
    struct.pack_into("<QHHHH", page, area, number, 1, 0xFFFF, 0xFFFF if clean else 0, 2 if clean else 0)
    struct.pack_into("<H", page, usa, 7)
    for stride in range(size // 512):
        end = (stride + 1) * 512 - 2
        page[usa + 2 + 2 * stride : usa + 4 + 2 * stride] = page[end : end + 2]
        page[end : end + 2] = page[usa : usa + 2]
    return bytes(page)


def with_log(disk: Disk, first: bytes, second: bytes | None = None) -> dict[int, bytes]:
    """Give the patch that puts restart pages into the log."""
    return {disk.stream_at(LOG_FILE): first + (first if second is None else second)}
