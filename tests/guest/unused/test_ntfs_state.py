"""An NTFS is kept whole unless its marks prove its bitmap; page and hibernation files of Windows."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hotspare.block.file import RawFile
from hotspare.block.ranges import Ranges
from hotspare.guest.unused.ntfs.files import HEAD_KEPT
from hotspare.guest.unused.ntfs.index import names_in
from hotspare.guest.unused.ntfs.map import ntfs_unused
from hotspare.guest.unused.ntfs.record import DATA
from hotspare.guest.unused.unused import KeepAll, Quiet
from hotspare.units import KIB, MIB
from tests.guest.unused.asking import why_kept
from tests.guest.unused.garbage import prove_unused
from tests.guest.unused.ntfs_images import (
    COMPRESSED,
    FSCK,
    HIDDEN_SYSTEM,
    LISTING,
    VOLUME,
    Disk,
    fill_up,
    make_ntfs,
    ntfs_mounted,
    restart_page,
    set_attributes,
    with_log,
)

SHADOW = "{3808876b-c176-4e48-b7ae-04046e6cc752}"
VOLUME_INFORMATION = 0x70


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    """A small NTFS with a file."""
    image = tmp_path_factory.mktemp("plain") / "image"
    make_ntfs(image, 8 * MIB)
    with ntfs_mounted(image) as root:
        (root / "file").write_bytes(b"x" * 300 * KIB)
    return Disk.of(image)


def reason(disk: Disk, patches: dict[int, bytes], quiet: Quiet = Quiet.OFFLINE) -> str:
    """Say why a volume is kept, or nothing if it is not."""
    return why_kept(ntfs_unused, disk.with_patches(patches), quiet)


@pytest.mark.parametrize("flags", [1 << bit for bit in range(16)])
def test_every_mark_means_keep_all(plain: Disk, flags: int) -> None:
    places = plain.attribute_at(VOLUME, VOLUME_INFORMATION)
    assert reason(plain, {}) == ""
    assert reason(plain, {at + 0x18 + 10: flags.to_bytes(2, "little") for at in places})


@pytest.mark.parametrize(
    ("major", "minor", "known"), [(1, 2, False), (3, 0, True), (3, 1, True), (3, 2, False)]
)
def test_versions(plain: Disk, major: int, minor: int, known: bool) -> None:
    places = plain.attribute_at(VOLUME, VOLUME_INFORMATION)
    why = reason(plain, {at + 0x18 + 8: bytes([major, minor]) for at in places})
    assert bool(why) is not known


CLEAN_OLD, CLEAN = restart_page(10, clean=True), restart_page(20, clean=True)
USED_OLD, USED = restart_page(10, clean=False), restart_page(20, clean=False)
NEW_USED = restart_page(20, clean=False, version=(2, 0))
NEW_CLEAN = restart_page(20, clean=True, version=(2, 0))
TORN = CLEAN[:1000] + bytes(24) + CLEAN[1024:]


@pytest.mark.parametrize(
    ("first", "second", "offline", "frozen"),
    [
        (CLEAN, CLEAN, True, True),
        (USED, USED, False, True),
        (USED_OLD, CLEAN, True, True),
        (CLEAN, USED_OLD, True, True),
        (CLEAN_OLD, USED, False, True),
        (USED, CLEAN_OLD, False, True),
        (NEW_USED, NEW_USED, False, True),
        (NEW_CLEAN, NEW_CLEAN, False, True),
        (TORN, CLEAN, False, False),
        (CLEAN, TORN, False, False),
        (CLEAN, b"\xff" * 4096, False, False),
        (b"\xff" * 4096, CLEAN, False, False),
        (restart_page(1, clean=True, version=(9, 0)), CLEAN, False, False),
        (restart_page(1, clean=True, magic=b"CHKD"), CLEAN, False, False),
        (bytes(4096), bytes(4096), False, False),
        (b"\xff" * 4096, b"\xff" * 4096, True, False),
    ],
)
def test_logs(plain: Disk, first: bytes, second: bytes, offline: bool, frozen: bool) -> None:
    patches = with_log(plain, first, second)
    assert (reason(plain, patches) == "") is offline
    assert (reason(plain, patches, Quiet.FROZEN) == "") is frozen


def test_a_dismounted_volume_needs_no_look_at_every_file(plain: Disk) -> None:
    clean, used = plain.with_patches(with_log(plain, CLEAN)), plain.with_patches(with_log(plain, USED))
    assert ntfs_unused(clean, Quiet.FROZEN) == ntfs_unused(used, Quiet.FROZEN)
    assert clean.bytes_read < used.bytes_read


def test_a_file_that_owns_free_clusters(plain: Disk) -> None:
    """The bitmap was written and the file was not, or the other way round: nothing tells which."""
    number = next(
        number for number in range(24, 80) if plain.read(plain.record_at(number)[0] + 0x16, 1) == b"\1"
    )
    cluster = plain.stream_at(number) // plain.layout.cluster
    at = plain.stream_at(6) + cluster // 8
    freed = {at: bytes([plain.read(at, 1)[0] & ~(1 << cluster % 8)])}
    assert "files own" in reason(plain, freed)
    assert "files own" in reason(plain, freed | with_log(plain, USED), Quiet.FROZEN)


@pytest.mark.parametrize("number", [0, 1, 2, 6, 10])
def test_system_files_that_own_free_clusters(plain: Disk, number: int) -> None:
    cluster = plain.stream_at(number) // plain.layout.cluster
    at = plain.stream_at(6) + cluster // 8
    freed = {at: bytes([plain.read(at, 1)[0] & ~(1 << cluster % 8)])} | with_log(plain, CLEAN)
    assert "in use" in reason(plain, freed)


def test_the_mirror_differs(plain: Disk) -> None:
    mirror = plain.record_at(1)[1]
    assert "differ" in reason(plain, {mirror + 0x10: b"\x99"})


def test_shadow_copies_by_the_header_of_the_volume(plain: Disk) -> None:
    header = bytes.fromhex("6b870838 76c1 484e b7ae 04046e6cc752") + bytes(32)
    assert "shadow" in reason(plain, {0x1E00: header + (0x4000).to_bytes(8, "little")})
    assert reason(plain, {0x1E00: header + bytes(8)}) == ""


Fill = Callable[[Path], None]


def windows_like(folder: Path, fill: Fill, *options: str) -> Path:
    image = folder / "image"
    make_ntfs(image, 20 * MIB, *options)
    with ntfs_mounted(image) as root:
        for number in range(120):  # so that the directory needs blocks of its own
            (root / f"file {number}").write_bytes(b"x" * 5 * KIB)
        fill(root)
    return image


def hidden(path: Path, content: bytes, attributes: int = HIDDEN_SYSTEM) -> None:
    path.write_bytes(content)
    set_attributes(path, attributes)


@pytest.mark.parametrize(
    "name", [f"{{5bf3a2c0-1111-2222-3333-444455556666}}{SHADOW}", SHADOW, SHADOW.upper()]
)
def test_shadow_copies_by_their_files(tmp_path: Path, name: str) -> None:
    def fill(root: Path) -> None:
        (root / "System Volume Information").mkdir()
        (root / "System Volume Information" / name).write_bytes(b"x" * MIB)

    with pytest.raises(KeepAll, match="shadow"):
        ntfs_unused(Disk.of(windows_like(tmp_path, fill)), Quiet.OFFLINE)


def test_page_files_are_scratch_but_for_their_heads(tmp_path: Path) -> None:
    def fill(root: Path) -> None:
        with (
            (root / "PageFile.sys").open("wb", buffering=0) as pages,
            (root / "other").open("wb", buffering=0) as other,
        ):
            for _ in range(20):  # in pieces
                pages.write(b"p" * 200 * KIB)
                other.write(b"o" * 64 * KIB)
        set_attributes(root / "PageFile.sys", HIDDEN_SYSTEM)
        hidden(root / "swapfile.sys", b"s" * MIB)
        hidden(root / "hiberfil.sys", bytes(4096) + b"h" * 2 * MIB)
        (root / "System Volume Information").mkdir()
        (root / "System Volume Information" / "IndexerVolumeGuid").write_bytes(b"x")

    image = windows_like(tmp_path, fill)
    reader = RawFile.open(image)
    unused = ntfs_unused(reader, Quiet.OFFLINE)
    reader.close()
    total = 4000 * KIB + MIB + 2 * MIB + 4 * KIB
    assert unused.scratch.total == total - 3 * HEAD_KEPT
    for start, end in unused.scratch:
        with image.open("rb") as file:
            file.seek(start)
            assert set(file.read(end - start)) <= {0, *b"psh"}
    facts = prove_unused(
        image,
        unused,
        listing=LISTING,
        fsck=FSCK,
        worthless=("PageFile.sys", "swapfile.sys", "hiberfil.sys"),
    )
    assert facts["other"].size == 20 * 64 * KIB


@pytest.mark.parametrize("cluster", [512, 65536])
def test_heads_of_page_files_in_clusters_of_other_sizes(tmp_path: Path, cluster: int) -> None:
    image = windows_like(tmp_path, lambda root: hidden(root / "pagefile.sys", b"p" * MIB), "-c", str(cluster))
    assert ntfs_unused(Disk.of(image), Quiet.OFFLINE).scratch.total == MIB - HEAD_KEPT


def test_a_page_file_in_so_many_pieces_that_it_needs_several_records(tmp_path: Path) -> None:
    image = tmp_path / "image"
    make_ntfs(image, 8 * MIB, "-c", "512")
    with ntfs_mounted(image) as root:
        count = fill_up(root, "old", 900)
        for number in random.Random(1).sample(range(count), count * 2 // 5):
            (root / f"old{number}").unlink()
        hidden(root / "pagefile.sys", b"p" * 550 * KIB)
    disk = Disk.of(image)
    table = disk.table
    page_file = table.record(record_of(disk, "pagefile.sys"))
    assert sum(part.kind == DATA for part in table.attributes(page_file)) == 2
    unused = ntfs_unused(disk, Quiet.OFFLINE)
    assert unused.scratch.total == 550 * KIB - HEAD_KEPT
    assert len(unused.scratch) > 100
    prove_unused(image, unused, listing=LISTING, fsck=FSCK, worthless=("pagefile.sys",))


def sparse(root: Path) -> None:
    with (root / "pagefile.sys").open("wb") as file:
        file.seek(MIB)
        file.write(b"x" * MIB)
    set_attributes(root / "pagefile.sys", HIDDEN_SYSTEM)


def compressed(root: Path, name: str = "pagefile.sys", content: bytes = b"x") -> None:
    """Write a file to a folder whose files are compressed, and move it out."""
    (root / "packed").mkdir()
    set_attributes(root / "packed", COMPRESSED)
    (root / "packed" / name).write_bytes(content * MIB)
    set_attributes(root / "packed" / name, HIDDEN_SYSTEM | COMPRESSED)
    (root / "packed" / name).rename(root / name)


def several(root: Path) -> None:
    """Write what is no page file: in a folder, and a directory."""
    (root / "folder").mkdir()
    hidden(root / "folder" / "pagefile.sys", b"x" * MIB)
    hidden(root / "pagefile.sys.bak", b"x" * MIB)
    (root / "swapfile.sys").mkdir()


@pytest.mark.parametrize("fill", [sparse, compressed, several])
def test_what_is_no_scratch(tmp_path: Path, fill: Fill) -> None:
    assert not len(ntfs_unused(Disk.of(windows_like(tmp_path, fill)), Quiet.OFFLINE).scratch)


def record_of(disk: Disk, name: str) -> int:
    """Find a file of the root directory."""
    table = disk.table
    return (
        next(found.reference for found in names_in(table, table.record(5)) if found.name == name) & 0xFFFFFFFF
    )


def visible(disk: Disk, name: str) -> dict[int, bytes]:
    """Give the patch that makes a file an ordinary one, as somebody's copy of another is."""
    [at] = disk.attribute_at(record_of(disk, name), 0x10)
    return {at + 0x18 + 0x20: b"\x20\0\0\0"}


def test_a_copy_of_a_page_file_and_a_crash_dump_are_no_scratch(sleeper: tuple[Disk, int]) -> None:
    disk, at = sleeper
    assert len(ntfs_unused(disk, Quiet.OFFLINE).scratch)
    assert not len(ntfs_unused(disk.with_patches(visible(disk, "hiberfil.sys")), Quiet.OFFLINE).scratch)
    name = "HiberFil.sys".encode("utf-16-le")
    places = [found.start() for found in re.finditer(re.escape(name), disk.base)]
    page_file = {place: "pagefile.sys".encode("utf-16-le") for place in places}
    assert len(ntfs_unused(disk.with_patches(page_file), Quiet.OFFLINE).scratch)
    for magic in (b"PAGEDUMP", b"PAGEDU64"):
        assert not len(ntfs_unused(disk.with_patches(page_file | {at: magic}), Quiet.OFFLINE).scratch)


@pytest.fixture(scope="module")
def sleeper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Disk, int]:
    """A disk with a hibernation file of zeroes, and where that lies."""
    folder = tmp_path_factory.mktemp("sleeper")
    disk = Disk.of(windows_like(folder, lambda root: hidden(root / "HiberFil.sys", bytes(MIB))))
    return disk, disk.stream_at(record_of(disk, "hiberfil.sys"))


@pytest.mark.parametrize("head", [b"wake", b"WAKE", bytes(4), b"wake" + b"h" * 4092])
def test_a_hibernation_file_that_nobody_will_resume(sleeper: tuple[Disk, int], head: bytes) -> None:
    disk, at = sleeper
    assert ntfs_unused(disk.with_patches({at: head}), Quiet.OFFLINE).scratch.total == MIB - HEAD_KEPT


@pytest.mark.parametrize(
    ("head", "known"),
    [
        *((head, "is hibernated") for head in (b"hibr", b"HIBR", b"rstr", b"RSTR", b"link", b"LINK")),
        (b"what", "may be hibernated"),
        (bytes(4095) + b"x", "may be hibernated"),
    ],
)
def test_hibernated(sleeper: tuple[Disk, int], head: bytes, known: str) -> None:
    disk, at = sleeper
    assert known in reason(disk, {at: head} | with_log(disk, CLEAN))
    assert known in reason(disk, {at: head} | with_log(disk, USED), Quiet.FROZEN)
    assert known in reason(disk, {at: head} | visible(disk, "hiberfil.sys"))


@pytest.mark.parametrize(
    "fill",
    [
        pytest.param(lambda root: hidden(root / "hiberfil.sys", bytes(100)), id="tiny"),
        pytest.param(lambda root: compressed(root, "hiberfil.sys", b"wake"), id="compressed"),
        pytest.param(lambda root: (root / "hiberfil.sys").mkdir(), id="directory"),
    ],
)
def test_an_unusual_hibernation_file(tmp_path: Path, fill: Fill) -> None:
    assert "may be hibernated" in reason(Disk.of(windows_like(tmp_path, fill)), {})


def test_bad_clusters_are_kept(plain: Disk) -> None:
    """The run list of $Bad gets a run in the middle of what is free."""
    free = ntfs_unused(plain, Quiet.OFFLINE).free
    clusters = plain.layout.clusters
    unit = plain.layout.cluster
    place = (free.bounds[-1].sum() // 2) // unit
    [at] = plain.attribute_at(8, 0x80, "$Bad")
    pairs = at + int.from_bytes(plain.read(at + 0x20, 2), "little")
    runs = b"\x02" + int(place).to_bytes(2, "little")
    runs += b"\x21\x03" + int(place).to_bytes(2, "little")
    runs += b"\x02" + int(clusters - place - 3).to_bytes(2, "little") + b"\0"
    assert len(runs) <= 16
    found = ntfs_unused(_with_room(plain, at, pairs, runs), Quiet.OFFLINE).free
    assert free - found == Ranges.of([(int(place) * unit, int(place + 3) * unit)])


def _with_room(disk: Disk, at: int, pairs: int, runs: bytes) -> Disk:
    """Make the last attribute of a record longer by 8 bytes, for a longer run list."""
    [record] = disk.record_at(8)
    length = int.from_bytes(disk.read(at + 4, 4), "little")
    used = int.from_bytes(disk.read(record + 0x18, 4), "little")
    patches = {
        pairs: runs,
        at + 4: (length + 8).to_bytes(4, "little"),
        at + length + 8: b"\xff" * 4 + bytes(4),
        record + 0x18: (used + 8).to_bytes(4, "little"),
    }
    patched = disk.with_patches(patches)
    return Disk(patched.base, patched.patches)
