"""All volumes of a machine together: what one calls free may be another's."""

import os
import struct
from pathlib import Path

import pytest

from hotspare.block.file import RawFile
from hotspare.block.ranges import Ranges
from hotspare.errors import SourceLost
from hotspare.guest.unused import machine
from hotspare.guest.unused.machine import MachineUnused, find_unused
from hotspare.guest.unused.unused import Quiet
from hotspare.units import KIB, MIB
from tests.guest.unused.garbage import run
from tests.memory_disk import MemoryDisk

SIZE = 64 * MIB
SECTOR = 512


def with_table(path: Path, *partitions: tuple[int, int]) -> Path:
    """Write an MBR whose partitions, given as (start, end) in bytes, may be any nonsense."""
    entries = b"".join(
        struct.pack("<B3sB3sII", 0, b"", 0x83, b"", start // SECTOR, (end - start) // SECTOR)
        for start, end in partitions
    )
    with path.open("r+b") as file:
        file.seek(440)
        file.write(b"mark\0\0" + entries.ljust(64, b"\0") + b"\x55\xaa")
    return path


def ext_at(path: Path, start: int, end: int) -> None:
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-E", f"offset={start}", str(path), f"{(end - start) // KIB}k"])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


def look(quiet: Quiet | None = Quiet.OFFLINE, **disks: Path) -> MachineUnused:
    opened = {name: RawFile.open(path, read_only=True) for name, path in disks.items()}
    try:
        return find_unused(opened, quiet)
    finally:
        for disk in opened.values():
            disk.close()


def test_partitions_side_by_side(image: Path) -> None:
    places = [(MIB, 32 * MIB), (32 * MIB, SIZE)]
    for start, end in places:
        ext_at(image, start, end)
    with_table(image, *places)

    found = look(vda=image)

    assert [(one.name, one.kept_because) for one in found.volumes] == [("vda1", None), ("vda2", None)]
    assert found.of("vda").total == sum(
        one.unused.free.total for one in found.volumes if one.unused is not None
    )
    assert (found.of("vda") & Ranges.of([(0, MIB)])).total == 0
    assert found.of("vdb").total == 0


def test_partitions_that_overlap_are_kept(image: Path) -> None:
    """A stale table: the first file system's free blocks are the second one's files."""
    ext_at(image, MIB, SIZE)
    ext_at(image, 32 * MIB, SIZE)
    with_table(image, (MIB, SIZE), (32 * MIB, SIZE))

    found = look(vda=image)

    assert [one.kept_because for one in found.volumes] == [
        "it shares bytes with another partition",
        "it shares bytes with another partition",
    ]
    assert not found.by_disk


def test_a_partition_that_reaches_beyond_the_disk(image: Path) -> None:
    ext_at(image, MIB, SIZE)
    with_table(image, (MIB, 2 * SIZE))

    found = look(vda=image)

    assert found.of("vda").total == 0 or not len(found.of("vda") - Ranges.whole(SIZE))


def test_a_guest_that_runs_unfrozen(image: Path) -> None:
    ext_at(image, MIB, SIZE)
    with_table(image, (MIB, SIZE))

    found = look(None, vda=image)

    assert [one.kept_because for one in found.volumes] == [machine.NOT_FROZEN]
    assert not found.by_disk


@pytest.mark.parametrize("beside", ["mke2fs", None])
def test_ntfs_in_a_frozen_guest_of_linux_is_kept(image: Path, tmp_path: Path, beside: str | None) -> None:
    """Only Windows freezes it: the marks of a volume that crashed earlier are those of a mounted one."""
    run(["mkfs.ntfs", "-Q", "-F", "-q", "-L", "windows", str(image)])
    other = tmp_path / "other.raw"
    other.write_bytes(bytes(16 * MIB))
    if beside:
        run([beside, "-q", "-F", str(other)])

    ntfs, *_ = look(Quiet.FROZEN, vda=image, vdb=other).volumes

    assert ntfs.content == "ntfs"
    expected = "Linux does not freeze it" if beside else "a Linux program may have it mounted"
    assert ntfs.kept_because is not None
    assert expected in ntfs.kept_because


def test_what_nobody_knows_is_kept() -> None:
    found = find_unused({"vda": MemoryDisk(os.urandom(MIB)), "vdb": MemoryDisk(b"")}, Quiet.OFFLINE)

    assert not found.by_disk
    assert all(one.kept_because for one in found.volumes)


def test_a_map_with_a_mistake_costs_space_only(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a mistake in a parser that nobody has found yet."""

    def fails(*_: object) -> object:
        raise IndexError("beyond the end")

    ext_at(image, MIB, SIZE)
    with_table(image, (MIB, SIZE))
    monkeypatch.setitem(machine.MAPS, "ext", fails)

    (report,) = look(vda=image).volumes

    assert report.kept_because == "it makes no sense (IndexError: beyond the end)"


def test_a_disk_that_goes_away_is_no_doubt_about_its_content(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> object:
        raise SourceLost("gone")

    ext_at(image, MIB, SIZE)
    with_table(image, (MIB, SIZE))
    monkeypatch.setitem(machine.MAPS, "ext", lost)

    with pytest.raises(SourceLost):
        look(vda=image)
