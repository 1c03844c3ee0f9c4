"""FAT and exFAT, read in process, against mtools and exfat-fuse."""

import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hotspare.block.file import RawFile
from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.files.fat.entries import join_units, parse_entries, short_checksum, short_name
from hotspare.guest.files.fat.exfat import ExfatFileSystem
from hotspare.guest.files.fat.reader import FatFileSystem
from hotspare.guest.files.fat.times import nanoseconds
from hotspare.guest.files.file_system import NeedsAppliance
from tests.guest.files.mounts import mounted_exfat, new_image, run, walked
from tests.memory_disk import MemoryDisk

NAMES = [
    "PLAIN.TXT", "lower.txt", "Mixed.Txt", "UPPER.low", "lower.UP", "a long name with spaces.text",
    "ünä.text", "ÜÄÖ", "x" * 255, "noext", ".dotfile", "a.b.c", "trail.x.y", "ça", "日本語ファイル.txt",
    "a+b=c;[1].txt",
]  # fmt: skip
SIZES = {"fat12": "4M", "fat16": "32M", "fat32": "64M"}


@contextmanager
def opened(image: Path) -> Iterator[FatFileSystem | ExfatFileSystem]:
    disk = RawFile.open(image)
    try:
        reader = CachedReader(disk)
        yield ExfatFileSystem(reader) if reader.read(3, 5) == b"EXFAT" else FatFileSystem(reader)
    finally:
        disk.close()


def make_source(folder: Path, extra: list[str], *, many: int, big: int) -> None:
    chance = random.Random(1)
    (folder / "sub/deep/deeper").mkdir(parents=True)
    (folder / "sub/empty").mkdir()
    for number, name in enumerate([*NAMES, *extra]):
        (folder / name).write_bytes(chance.randbytes(number * 3001))
        os.utime(folder / name, (10**9 + number * 17_280_000, 10**9 + number * 17_280_000))
    for number in range(many):
        (folder / f"sub/f{number:04d}{'n' * (number % 40)}").write_bytes(b"%d" % number * (number % 500))
    (folder / "sub/deep/deeper/file").write_bytes(b"deep" * 1000)
    (folder / "empty").write_bytes(b"")
    (folder / "big").write_bytes(chance.randbytes(big))


def compare(file_system: FatFileSystem | ExfatFileSystem, source: Path, exactness: float) -> list[str]:
    wrong = []
    found, failure = walked(file_system)
    assert failure is None
    paths = [entry.path for entry in found]
    assert sorted(paths) == sorted("/" + str(path.relative_to(source)) for path in source.rglob("*"))
    assert len({entry.inode for entry in found}) == len(found)
    for entry in found:
        theirs = source / entry.path[1:]
        assert file_system.entry(entry.path) == entry
        assert (entry.kind == "folder") == theirs.is_dir()
        if entry.kind == "file":
            if file_system.open(entry.path).read(0, 1 << 30) != theirs.read_bytes():
                wrong.append(f"{entry.path}: content")
            if not 0 <= theirs.stat().st_mtime - entry.modified / 1e9 < exactness:
                wrong.append(f"{entry.path}: {entry.modified} for {theirs.stat().st_mtime}")
    return wrong


def mtools(program: str, image: Path, *arguments: str | Path) -> None:
    settings = image.with_suffix(".mtoolsrc")
    settings.write_text("mtools_skip_check=1\ndefault_codepage=437\n")
    environment = {**os.environ, "MTOOLSRC": str(settings), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    command = [program, *(["-o"] if program == "mcopy" else []), "-i", image, *arguments]
    subprocess.run(command, env=environment, check=True, timeout=60)


@pytest.mark.parametrize("kind", SIZES)
def test_fat_is_as_mtools_wrote_it(kind: str, tmp_path: Path) -> None:
    image = new_image(tmp_path / "fat.img", SIZES[kind])
    sectors = ["-s", "1"] if kind == "fat32" else []
    run("mkfs.vfat", "-F", kind[3:], "-n", "A LABEL", *sectors, image)
    source = tmp_path / "source"
    make_source(source, [], many=60 if kind == "fat12" else 400, big=900_000)
    mtools("mcopy", image, "-s", "-m", *sorted(source.iterdir()), "::/")
    for number in range(0, 60, 2):  # what comes now goes into the gaps
        name = f"sub/f{number:04d}{'n' * (number % 40)}"
        (source / name).unlink()
        mtools("mdel", image, f"::/{name}")
    shutil.copy2(source / "big", source / "big2")
    mtools("mcopy", image, "-m", source / "big2", "::/")
    with opened(image) as file_system:
        assert file_system.kind == kind
        assert compare(file_system, source, 2.0) == []
        assert file_system.entry("/SUB/DEEP").path == "/sub/deep"
        assert "local times" in file_system.remarks[0]
        with pytest.raises(PathNotFound):
            file_system.entry("/A LABEL")


def test_exfat_is_as_exfat_fuse_wrote_it(tmp_path: Path) -> None:
    image = new_image(tmp_path / "exfat.img", "64M")
    run("mkfs.exfat", "-c", "4096", image)
    source = tmp_path / "source"
    make_source(source, ["😀 beyond.txt", "y" * 255, "e\u0301"], many=400, big=3_000_000)
    with mounted_exfat(image) as point:
        run("cp", "-r", "--preserve=timestamps", f"{source}/.", point)
        files = [(point / name).open("wb", buffering=0) for name in ("part1", "part2")]
        for step in range(100):
            for file in files:
                file.write(bytes([step]) * 5000)
        for file in files:
            file.close()
        for name in ("part1", "part2"):
            shutil.copy2(point / name, source / name)
        for number in range(0, 400, 3):
            name = f"sub/f{number:04d}{'n' * (number % 40)}"
            (point / name).unlink()
            (source / name).unlink()
    with opened(image) as file_system:
        assert compare(file_system, source, 2.0) == []
        assert file_system.entry("/PLAIN.txt").path == "/PLAIN.TXT"


def exfat_with_one_file(folder: Path) -> tuple[Path, int]:
    """Give an image with the file /file of 9,000 times X, and where its entries are."""
    image = new_image(folder / "exfat.img", "8M")
    run("mkfs.exfat", "-c", "4096", image)
    with mounted_exfat(image) as point:
        (point / "file").write_bytes(b"X" * 9000)
    at = image.read_bytes().index("file".encode("utf-16-le")) - 2 - 64
    return image, at


def rewrite_entries(image: Path, at: int, change: dict[int, bytes]) -> None:
    """Change bytes of a file's three entries, and their checksum."""
    raw = bytearray(image.read_bytes())
    for offset, new in change.items():
        raw[at + offset : at + offset + len(new)] = new
    total = 0
    for index in range(96):
        if index not in {2, 3}:
            total = ((total >> 1 | total << 15) + raw[at + index]) & 0xFFFF
    struct.pack_into("<H", raw, at + 2, total)
    image.write_bytes(raw)


def test_what_was_never_written_of_an_exfat_file_is_zeroes(tmp_path: Path) -> None:
    image, at = exfat_with_one_file(tmp_path)
    rewrite_entries(image, at, {32 + 8: struct.pack("<Q", 5000)})
    with opened(image) as file_system:
        content = file_system.open("/file")
        assert content.read(0, 10_000) == b"X" * 5000 + bytes(4000)
        assert list(content.holes()) == [(5000, 9000)]


@pytest.mark.parametrize(("zone", "hours"), [(0x80, 0), (0x84, 1), (0xFC, -1), (0xB8, 14), (0x04, 0)])
def test_zones_of_exfat(zone: int, hours: int, tmp_path: Path) -> None:
    image, at = exfat_with_one_file(tmp_path)
    day = (2001 - 1980) << 9 | 9 << 5 | 9
    time = 1 << 11 | 46 << 5 | 20
    changed = {12: struct.pack("<HH", time, day), 21: bytes([155]), 23: bytes([zone])}
    rewrite_entries(image, at, changed)
    with opened(image) as file_system:
        assert file_system.entry("/file").modified == (10**9 + 1 - hours * 3600) * 10**9 + 55 * 10**7


def test_damage_of_exfat_is_noticed(tmp_path: Path) -> None:
    image, at = exfat_with_one_file(tmp_path)
    sound = image.read_bytes()
    wrong = bytearray(sound)
    wrong[at + 40] ^= 1
    image.write_bytes(wrong)
    with opened(image) as file_system, pytest.raises(FileSystemUnreadable, match="checksum"):
        list(file_system.entries("/"))
    image.write_bytes(sound[:64] + b"\x01" + sound[65:])
    with pytest.raises(FileSystemUnreadable, match="checksum of its boot"), opened(image):
        pass
    image.write_bytes(sound[:110] + b"\x02" + sound[111:])
    with pytest.raises(NeedsAppliance, match="TexFAT"), opened(image):
        pass
    image.write_bytes(sound)
    rewrite_entries(
        image, at, {33: b"\x01", 52: struct.pack("<I", 2)}
    )  # the chain of the bitmap: one cluster
    with opened(image) as file_system, pytest.raises(FileSystemUnreadable, match="ends early"):
        file_system.open("/file")


def fat16_with_chain(tmp_path: Path, chain: dict[int, int]) -> Path:
    """Give an image with /FILE of four clusters, and entries of its table changed."""
    image = new_image(tmp_path / "fat.img", "32M")
    run("mkfs.vfat", "-F", "16", "-s", "1", image)
    content = tmp_path / "FILE"
    content.write_bytes(b"1" * 512 + b"2" * 512 + b"3" * 512 + b"4" * 100)
    mtools("mcopy", image, content, "::/")
    raw = bytearray(image.read_bytes())
    (reserved,) = struct.unpack_from("<H", raw, 14)
    for cluster, following in chain.items():
        struct.pack_into("<H", raw, reserved * 512 + cluster * 2, following)
    image.write_bytes(raw)
    return image


@pytest.mark.parametrize(
    ("chain", "what"),
    [
        ({4: 3}, "loop"),
        ({3: 0}, "ends early"),
        ({3: 0xFFFF}, "ends early"),
        ({3: 1}, "ends early"),
        ({3: 0xFFF7}, "ends early"),
        ({3: 0xFF00}, "ends early"),
    ],
)
def test_chains_that_make_no_sense(chain: dict[int, int], what: str, tmp_path: Path) -> None:
    with opened(fat16_with_chain(tmp_path, {})) as file_system:
        assert file_system.open("/FILE").read(500, 1100) == b"1" * 12 + b"2" * 512 + b"3" * 512 + b"4" * 64
    damaged = fat16_with_chain(tmp_path, chain)
    with opened(damaged) as file_system, pytest.raises(FileSystemUnreadable, match=what):
        file_system.open("/FILE")


@pytest.mark.parametrize("kind", ["fat12", "fat16", "fat32"])
def test_a_folder_within_itself_ends(kind: str, tmp_path: Path) -> None:
    image = new_image(tmp_path / "fat.img", SIZES[kind])
    run("mkfs.vfat", "-F", kind[3:], image)
    mtools("mmd", image, "::/OUTER", "::/OUTER/INNER")
    raw = bytearray(image.read_bytes())
    outer, inner = raw.index(b"OUTER      \x10"), raw.index(b"INNER      \x10")
    raw[inner + 26 : inner + 28] = raw[outer + 26 : outer + 28]
    image.write_bytes(raw)
    with opened(image) as file_system:
        found, failure = walked(file_system)
        assert [entry.path for entry in found] == ["/OUTER", "/OUTER/INNER"]
        assert "in two places" in str(failure)


def long_entries(name: bytes, short: bytes = b"SHORT   TXT", *, checksum: int | None = None) -> bytes:
    """Make the entries of a file with a long name, given as UTF-16."""
    checksum = short_checksum(short) if checksum is None else checksum
    padded = name + (b"\0\0" if len(name) % 26 else b"")
    padded += b"\xff" * (-len(padded) % 26)
    parts = [padded[at : at + 26] for at in range(0, len(padded), 26)]
    result = b""
    for number in range(len(parts), 0, -1):
        part = parts[number - 1]
        mark = number | (0x40 if number == len(parts) else 0)
        head = bytes([mark]) + part[:10] + bytes([0x0F, 0, checksum])
        result += head + part[10:22] + b"\0\0" + part[22:]
    return result + short + bytes([0x20]) + bytes(20)


@given(st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=125))
def test_any_long_name_comes_back(name: str) -> None:
    assume(name not in {".", ".."})  # these are the folder itself and the one above it
    raw = name.encode("utf-16-le", errors="surrogatepass")
    (found,) = parse_entries(long_entries(raw), wide=False)
    assert os.fsencode(found.name) == raw.decode("utf-16-le", "surrogatepass").encode(errors="surrogatepass")


def test_long_names_that_belong_to_no_entry_are_left_out() -> None:
    raw = "long name.txt".encode("utf-16-le")
    for entries in (long_entries(raw, checksum=0), long_entries(raw * 3)[32:]):
        (found,) = parse_entries(entries, wide=False)
        assert found.name == "SHORT.TXT"


@given(st.binary(max_size=800), st.booleans())
def test_any_folder_of_fat_ends_in_entries(raw: bytes, wide: bool) -> None:
    list(parse_entries(raw, wide=wide))
    join_units(raw[: len(raw) // 2 * 2])


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 255))
def test_any_time_is_one(day: int, time: int, hundredths: int) -> None:
    assert nanoseconds(0x21, 0) <= nanoseconds(day, time, hundredths) < 2**63


def test_short_names() -> None:
    assert short_name(b"README  TXT", 0) == "README.TXT"
    assert short_name(b"README  TXT", 0x18) == "readme.txt"
    assert short_name(b"README  TXT", 0x08) == "readme.TXT"
    assert short_name(b"\x05A      X  ", 0) == "\N{GREEK SMALL LETTER SIGMA}A.X"
    assert short_name(b"A B        ", 0) == "A B"


@given(st.binary(min_size=512, max_size=512))
def test_any_boot_sector_ends_in_the_typed_error(boot: bytes) -> None:
    for make in (FatFileSystem, ExfatFileSystem):
        with suppress(FileSystemUnreadable):
            walked(make(CachedReader(MemoryDisk(boot + bytes(8192)))))
