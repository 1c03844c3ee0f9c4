"""What volumes hold, beside what blkid says of the same images."""

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest

from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.volumes.signatures import Identity, identify
from hotspare.units import GIB, KIB, MIB
from tests.guest.volumes.images import blkid, image, put, read, run, volume_of, write
from tests.memory_disk import MemoryDisk

NAMES = {"ext": {"ext2", "ext3", "ext4"}, "fat": {"vfat"}, "luks": {"crypto_LUKS"}, "lvm": {"LVM2_member"}}
NAMES |= {
    "mdraid": {"linux_raid_member"},
    "bitlocker": {"BitLocker"},
    "refs": {"ReFS"},
    "zfs": {"zfs_member"},
}


def mkfs(*command: str, size: int = 64 * MIB) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        program, *options = command
        run(program, *options, image(path, size))

    return make


def luks(*options: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        key = path.with_suffix(".key")
        key.write_bytes(b"secret")
        image(path)
        cheap = ["--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
        run("cryptsetup", "luksFormat", *cheap, *options, path, key)

    return make


def squashfs(path: Path) -> None:
    folder = path.with_suffix(".folder")
    folder.mkdir()
    (folder / "file").write_bytes(b"content" * 1000)
    run("mksquashfs", folder, path, "-quiet", "-no-progress")


MAKERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "ext2": ("ext", mkfs("mkfs.ext2", "-q", "-L", "old one")),
    "ext3": ("ext", mkfs("mkfs.ext3", "-q", "-b", "1024")),
    "ext4": ("ext", mkfs("mkfs.ext4", "-q", "-L", "sixteen-letters-")),
    "ext4-64bit": ("ext", mkfs("mkfs.ext4", "-q", "-O", "64bit,inline_data,metadata_csum")),
    "xfs": ("xfs", mkfs("mkfs.xfs", "-q", "-L", "twelve-chars", size=320 * MIB)),
    "xfs-4096": ("xfs", mkfs("mkfs.xfs", "-q", "-s", "size=4096", "-m", "crc=0", size=320 * MIB)),
    "btrfs": ("btrfs", mkfs("mkfs.btrfs", "-q", "-L", "Bütter", size=128 * MIB)),
    "fat12": ("fat", mkfs("mkfs.vfat", "-F", "12", "-n", "FLOPPY", size=4 * MIB)),
    "fat16": ("fat", mkfs("mkfs.vfat", "-F", "16", "-n", "BOOT FILES", size=32 * MIB)),
    "fat32": ("fat", mkfs("mkfs.vfat", "-F", "32", "-n", "EFI", "-i", "12AB34CD")),
    "fat32-unnamed": ("fat", mkfs("mkfs.vfat", "-F", "32", "-S", "4096", size=400 * MIB)),
    "exfat": ("exfat", mkfs("mkfs.exfat", "-L", "Käse")),
    "exfat-unnamed": ("exfat", mkfs("mkfs.exfat")),
    "ntfs": ("ntfs", mkfs("mkntfs", "-qFf", "-L", "Größe ∞")),
    "ntfs-64k": ("ntfs", mkfs("mkntfs", "-qFf", "-c", "65536", "-L", "x")),
    "ntfs-4096": ("ntfs", mkfs("mkntfs", "-qFf", "-s", "4096", "-L", "4Kn")),
    "f2fs": ("f2fs", mkfs("mkfs.f2fs", "-q", "-l", "flash")),
    "swap": ("swap", mkfs("mkswap", "-L", "paged out")),
    "swap-64k": ("swap", mkfs("mkswap", "-p", "65536")),
    "luks1": ("luks", luks("--type", "luks1")),
    "luks2": ("luks", luks("--type", "luks2", "--label", "vault")),
    "squashfs": ("squashfs", squashfs),
}


@pytest.mark.parametrize("name", MAKERS)
def test_content_label_and_uuid_are_those_of_blkid(tmp_path: Path, name: str) -> None:
    content, make = MAKERS[name]
    path = tmp_path / "image"
    make(path)
    told = blkid(path)

    found = volume_of(path)

    assert found.content == content
    assert told["TYPE"] in NAMES.get(content, {content})
    assert found.uuid == told.get("UUID", "")
    printable = found.label.isascii()
    assert found.label == told.get("LABEL", "") if printable else told["LABEL"].startswith(found.label[0])
    assert found.also == ()
    assert (found.keep_because is None) == (content != "luks")


def test_labels_that_are_not_ascii(tmp_path: Path) -> None:
    labels = {}
    for name in ("btrfs", "exfat", "ntfs"):
        MAKERS[name][1](tmp_path / name)
        labels[name] = volume_of(tmp_path / name).label
    assert labels == {"btrfs": "Bütter", "exfat": "Käse", "ntfs": "Größe ∞"}


def test_an_external_journal_is_no_file_system(tmp_path: Path) -> None:
    mkfs("mkfs.ext4", "-q", "-O", "journal_dev")(tmp_path / "image")

    found = volume_of(tmp_path / "image")

    assert blkid(tmp_path / "image")["TYPE"] == "jbd"
    assert found.content == "ext-journal"
    assert found.keep_because == "it is the journal of a file system elsewhere"


def md_superblock(version: str, path: Path) -> None:
    """Write the superblock of a mirror by hand: mdadm makes one only where the kernel has md."""
    size = path.stat().st_size
    uuid = bytes(range(1, 17))
    block = bytearray(4096)
    block[:4] = (0xA92B4EFC).to_bytes(4, "little")
    if version == "0.90":
        block[8:12] = (90).to_bytes(4, "little")
        block[20:24], block[52:64] = uuid[:4], uuid[4:]
        write(path, size // 65536 * 65536 - 65536, bytes(block))
        return
    at = {"1.0": (size // 512 - 16) // 8 * 8 * 512, "1.1": 0, "1.2": 4096}[version]
    block[4:8] = (1).to_bytes(4, "little")
    block[16:32], block[32:39] = uuid, b"host:10"
    block[144:152] = (at // 512).to_bytes(8, "little")
    # The sum is over 256 bytes with itself as zero, folded to 32 bits.
    total = sum(int.from_bytes(block[n : n + 4], "little") for n in range(0, 256, 4))
    block[216:220] = ((total & 0xFFFFFFFF) + (total >> 32)).to_bytes(4, "little")
    write(path, at, bytes(block))


@pytest.mark.parametrize("version", ["0.90", "1.0", "1.1", "1.2"])
@pytest.mark.parametrize("size", [64 * MIB, 64 * MIB + 5 * 512])
def test_members_of_a_software_raid(tmp_path: Path, version: str, size: int) -> None:
    path = image(tmp_path / "image", size)
    md_superblock(version, path)
    told = blkid(path)

    found = volume_of(path)

    assert told["TYPE"] == "linux_raid_member"
    assert (found.content, found.uuid, found.label) == ("mdraid", told["UUID"], told.get("LABEL", ""))
    assert found.keep_because == "it is part of a RAID"


def test_a_superblock_in_the_wrong_place_is_that_of_something_else(tmp_path: Path) -> None:
    """Of a partition that was moved, say: each knows where it has to be."""
    path = image(tmp_path / "image")
    md_superblock("1.0", path)
    at = (path.stat().st_size // 512 - 16) // 8 * 8 * 512
    write(path, 4096, read(path, at, 4096))
    write(path, at, bytes(4096))
    blkid(path, status=2)  # it finds nothing either

    assert volume_of(path).content == ""


def test_a_raid_decides_over_the_file_system_that_shows_through(tmp_path: Path) -> None:
    """A mirror with its superblock at the end looks like the file system on it."""
    path = tmp_path / "image"
    MAKERS["ext4"][1](path)
    md_superblock("1.0", path)

    found = volume_of(path)

    assert blkid(path)["TYPE"] == "linux_raid_member"
    assert (found.content, found.also) == ("mdraid", ("ext",))
    assert found.keep_because == "it has signatures of mdraid and of ext: blkid takes it for mdraid"


def magics(path: Path, *places: tuple[int, bytes]) -> None:
    image(path)
    for at, content in places:
        write(path, at, content)


UBERBLOCK = (0x00BAB10C).to_bytes(8, "little")
RECOGNISED = {
    "bitlocker": [(0, b"\xeb\x58\x90-FVE-FS-"), (160, bytes.fromhex("3bd66749292ed84a8399f6a339e3d001"))],
    "refs": [(0, b"\0\0\0ReFS\0\0\0\0")],
    "zfs": [((128 + 4 * n) * KIB, UBERBLOCK) for n in range(5)],
    "vmfs": [(1 * MIB, b"\x0d\xd0\x01\xc0")],
    "jfs": [(32768, b"JFS1")],
    "bcache": [(4096 + 24, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"))],
    "vdo": [(0, b"dmvdo001")],
    "firmware-raid": [(-1024, b"Intel Raid ISM Cfg Sig. 1.0.00")],
    "apfs": [(32, b"NXSB")],
    "storage-spaces": [(4096, b"SPACEDB ")],
    "oracle-asm": [(32, b"ORCLDISK")],
}


@pytest.mark.parametrize("content", RECOGNISED)
def test_what_can_only_be_recognised(tmp_path: Path, content: str) -> None:
    magics(tmp_path / "image", *RECOGNISED[content])

    assert volume_of(tmp_path / "image").content == content


def test_bitlocker_to_go_looks_like_fat(tmp_path: Path) -> None:
    path = tmp_path / "image"
    MAKERS["fat32"][1](path)
    write(path, 3, b"MSWIN4.1")
    write(path, 424, bytes.fromhex("3bd66749292ed84a8399f6a339e3d001"))

    assert volume_of(path).content == "bitlocker"


def test_nothing_known_is_kept(tmp_path: Path) -> None:
    found = volume_of(image(tmp_path / "image"))

    assert (found.content, found.keep_because) == ("", "nothing known is in it")


STALE = {
    "ext": [(1024, 1024)],
    "xfs": [(0, 512)],
    "btrfs": [(65536, 4096)],
    "swap": [(1024, 48), (4086, 10)],
    "fat": [(0, 512)],
}
"""Where the parts of a file system lie that make others take the volume for it: (offset, length)."""
SOURCES = {"ext": "ext4", "xfs": "xfs", "btrfs": "btrfs", "swap": "swap", "fat": "fat32"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    for content, source in SOURCES.items():
        MAKERS[source][1](folder / content)
    return {content: folder / content for content in SOURCES}


PAIRS = [pair for pair in permutations(SOURCES, 2) if set(pair) not in ({"xfs", "fat"}, {"ext", "swap"})]
"""All but those that overwrite each other."""


@pytest.mark.parametrize(("content", "stale"), PAIRS)
def test_a_second_signature_is_never_overlooked(
    tmp_path: Path, made: dict[str, Path], content: str, stale: str
) -> None:
    path = image(tmp_path / "image", made[content].stat().st_size)
    put(made[content], path, 0)
    for at, length in STALE[stale]:
        write(path, at, read(made[stale], at, length))
    blkid(path, status=8)  # it calls the image ambiguous

    found = volume_of(path)

    assert {found.content, *found.also} == {content, stale}
    assert "it has signatures of" in (found.keep_because or "")


def identified(content: bytes | bytearray) -> Identity:
    return identify(CachedReader(MemoryDisk(content)))


@pytest.mark.parametrize("size", [0, 1, 11, 511, 512, 513, 1023, 4095, 65535, 65537, 262144])
def test_volumes_too_small_for_anything(size: int) -> None:
    assert identified(bytes(size)).content == ""
    identified(b"\xff" * size)


def test_what_a_terminal_would_obey_is_taken_out_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "image"
    mkfs("mkfs.ext4", "-q", "-L", "a\x1b[2Jb")(path)

    assert volume_of(path).label == "a\ufffd[2Jb"


@pytest.mark.parametrize("changed", [b"2026112612461000", b"0000000000000000"])
def test_iso9660(tmp_path: Path, changed: bytes) -> None:
    path = image(tmp_path / "image", 1 * MIB)
    write(path, 32768, b"\1CD001\1")
    write(path, 32768 + 40, b"INSTALLER".ljust(32))
    write(path, 32768 + 813, b"2025010203040506\0" + changed + b"\0")
    told = blkid(path)

    found = volume_of(path)

    assert told["TYPE"] == found.content == "iso9660"
    assert (found.label, found.uuid) == (told["LABEL"], told["UUID"])


def test_a_loop_in_a_directory_ends(tmp_path: Path) -> None:
    """The root directory of a FAT32 that leads back to itself, without a label in it."""
    path = tmp_path / "image"
    MAKERS["fat32-unnamed"][1](path)
    boot = read(path, 0, 512)
    sector, reserved = int.from_bytes(boot[11:13], "little"), int.from_bytes(boot[14:16], "little")
    write(path, reserved * sector + 4 * 2, (2).to_bytes(4, "little"))
    data = (reserved + boot[16] * int.from_bytes(boot[36:40], "little")) * sector
    write(path, data, b"FILE       \x20".ljust(32, b"\0") * (boot[13] * sector // 32))

    assert volume_of(path).label == ""


def test_a_second_copy_of_luks_counts(tmp_path: Path) -> None:
    path = tmp_path / "image"
    MAKERS["luks2"][1](path)
    write(path, 0, bytes(4096))

    assert volume_of(path).content == "luks"


def test_the_largest_volume_is_no_slower(tmp_path: Path) -> None:
    assert volume_of(image(tmp_path / "image", 8000 * GIB)).content == ""
