"""Partition tables made by sfdisk, sgdisk and parted, and broken on purpose."""

from pathlib import Path

import pytest

from hotspare.units import MIB
from tests.guest.volumes.images import (
    blkid,
    bounds,
    by_name,
    found_on,
    image,
    partitions_by_sfdisk,
    put,
    read,
    reasons,
    run,
    same_as_sfdisk,
    sfdisk,
    write,
)

LDM_DATA = "AF9B60A0-1431-4F62-BC68-3311714A69AD"


@pytest.fixture(scope="module")
def made_gpt(tmp_path_factory: pytest.TempPathFactory, ext4: Path) -> Path:
    """A table with three partitions, of which the second has a file system."""
    path = image(tmp_path_factory.mktemp("gpt") / "vda")
    options = [
        "--new=1:2048:+8M",
        "--new=2:0:+4M",
        "--change-name=2:root fs",
        "--new=5:0:0",
        "--typecode=5:8200",
    ]
    run("sgdisk", *options, path)
    put(ext4, path, (2048 + 16384) * 512)
    return path


@pytest.fixture
def gpt(tmp_path: Path, made_gpt: Path) -> Path:
    run("cp", "--sparse=always", made_gpt, tmp_path / "vda")
    return tmp_path / "vda"


def test_gpt(gpt: Path) -> None:
    found = found_on(vda=gpt)

    same_as_sfdisk(found, gpt)
    root = by_name(found)["vda2"]
    assert (root.content, root.label, root.partition_label) == ("ext", "inside", "root fs")
    assert root.partition_uuid == partitions_by_sfdisk(gpt)["partitions"][1]["uuid"].lower()
    assert reasons(found) == {
        "vda1": "nothing known is in it",
        "vda2": None,
        "vda5": "nothing known is in it",
    }
    assert (found.remarks, found.unused, found.unreadable) == ([], {}, [])


def test_names_of_disks_that_end_in_a_digit(gpt: Path) -> None:
    assert list(by_name(found_on(nvme0n1=gpt))) == ["nvme0n1p1", "nvme0n1p2", "nvme0n1p5"]


def test_gpt_of_parted_on_a_disk_with_sectors_of_4096_bytes(tmp_path: Path, ext4: Path) -> None:
    path = image(tmp_path / "vda")
    device = run("losetup", "--find", "--show", "--sector-size", "4096", path).strip()
    try:
        run("parted", "--script", device, "mklabel", "gpt", "mkpart", "one", "1MiB", "9MiB")
        run("parted", "--script", device, "mkpart", "two", "ext4", "9MiB", "13MiB")
    finally:
        run("losetup", "--detach", device)
    put(ext4, path, 9 * MIB)

    found = found_on(vda=path)

    volumes = by_name(found)
    assert {name: bounds(volume) for name, volume in volumes.items()} == {
        "vda1": (1 * MIB, 9 * MIB),
        "vda2": (9 * MIB, 13 * MIB),
    }
    assert (volumes["vda2"].content, volumes["vda2"].keep_because) == ("ext", None)
    assert found.remarks == []


@pytest.mark.parametrize("damage", [512 + 16, 512 + 72, 1024 + 40, 512])
def test_a_damaged_gpt_is_read_from_its_copy(gpt: Path, damage: int) -> None:
    expected = {volume.name: bounds(volume) for volume in found_on(vda=gpt).volumes}
    write(gpt, damage, bytes(8) if read(gpt, damage, 8) != bytes(8) else b"\xff" * 8)

    found = found_on(vda=gpt)

    assert {volume.name: bounds(volume) for volume in found.volumes} == expected
    assert set(reasons(found).values()) == {
        "the partition table (GPT) is damaged; its copy at the end of the disk was used"
    }
    assert by_name(found)["vda2"].content == "ext"
    assert len(found.remarks) == 1


def test_a_gpt_that_is_lost_altogether_is_no_table(gpt: Path) -> None:
    write(gpt, 512, bytes(512))
    write(gpt, -512, bytes(512))

    found = found_on(vda=gpt)

    assert reasons(found) == {"vda": "the partition table (GPT) and its copy are damaged"}
    assert bounds(found.volumes[0]) == (0, gpt.stat().st_size)


def test_a_missing_copy_is_only_told(gpt: Path) -> None:
    write(gpt, -512, bytes(512))

    found = found_on(vda=gpt)

    assert reasons(found)["vda2"] is None
    assert len(found.remarks) == 1
    assert "missing or damaged" in found.remarks[0]


def test_a_copy_that_differs_is_told(gpt: Path, tmp_path: Path) -> None:
    header, entries = read(gpt, -512, 512), read(gpt, -33 * 512, 32 * 512)
    run("sgdisk", "--delete=5", gpt)
    write(gpt, -33 * 512, entries + header)

    found = found_on(vda=gpt)

    assert list(by_name(found)) == ["vda1", "vda2"]
    assert found.remarks == [
        "vda: the partition table (GPT) differs from its copy at the end of the disk; the first was used"
    ]


def test_a_disk_that_was_enlarged_has_its_copy_in_the_middle(gpt: Path) -> None:
    with gpt.open("r+b") as file:
        file.truncate(100 * MIB)

    found = found_on(vda=gpt)

    assert reasons(found)["vda2"] is None
    assert found.remarks == []


def test_a_gpt_without_protective_mbr_is_doubted(gpt: Path) -> None:
    write(gpt, 0, bytes(512))

    assert set(reasons(found_on(vda=gpt)).values()) == {"the disk has a GPT that no protective MBR announces"}


def test_a_hybrid_mbr_that_agrees(gpt: Path) -> None:
    run("sgdisk", "--hybrid=2", gpt)

    found = found_on(vda=gpt)

    assert list(by_name(found)) == ["vda1", "vda2", "vda5"]
    assert reasons(found)["vda2"] is None
    assert found.remarks == ["vda: the disk has a hybrid MBR beside its GPT; the GPT was used"]


def test_a_hybrid_mbr_that_disagrees_is_doubted(gpt: Path) -> None:
    run("sgdisk", "--hybrid=2", gpt)
    at = next(at for at in range(446, 510, 16) if read(gpt, at + 4, 1) == b"\x83")
    write(gpt, at + 12, (100).to_bytes(4, "little"))

    assert reasons(found_on(vda=gpt))["vda2"] == "the MBR and the GPT of the disk disagree about it"


def test_dynamic_disks_of_windows_are_kept_whatever_is_at_their_start(gpt: Path) -> None:
    run("sgdisk", f"--typecode=2:{LDM_DATA}", gpt)

    volume = by_name(found_on(vda=gpt))["vda2"]

    assert (volume.content, volume.keep_because) == ("ldm", "it is part of a dynamic disk of Windows (LDM)")


def test_a_whole_disk_without_table(tmp_path: Path, ext4: Path) -> None:
    volume = by_name(found_on(vdb=ext4))["vdb"]

    assert (volume.content, volume.uuid, volume.keep_because) == ("ext", blkid(ext4)["UUID"], None)


def test_fat_with_the_table_that_mkfs_writes_into_its_boot_sector(tmp_path: Path) -> None:
    path = image(tmp_path / "vda")
    run("mkfs.vfat", "--mbr=yes", "-F", "32", path)

    found = found_on(vda=path)

    assert {volume.name: bounds(volume) for volume in found.volumes} == {"vda1": (0, 64 * MIB)}
    assert by_name(found)["vda1"].content == "fat"
    assert reasons(found) == {"vda1": None}


def test_a_boot_sector_that_is_only_text_is_no_table(tmp_path: Path) -> None:
    path = image(tmp_path / "vda")
    write(path, 446, b"Press any key to restart and have a look at what is wrong here!!"[:64] + b"\x55\xaa")

    assert list(by_name(found_on(vda=path))) == ["vda"]


def test_the_signature_of_an_old_file_system_on_the_whole_disk_is_doubted(gpt: Path, tmp_path: Path) -> None:
    """What an mkfs once left at 64 KiB may be what the guest mounts: only its administrator knows."""
    other = image(tmp_path / "btrfs", 128 * MIB)
    run("mkfs.btrfs", "-q", other)
    write(gpt, 65536, read(other, 65536, 4096))

    found = found_on(vda=gpt)

    assert list(by_name(found)) == ["vda", "vda1", "vda2", "vda5"]
    assert set(reasons(found).values()) == {"the disk has partitions, and a signature of btrfs as a whole"}


def test_a_table_inside_of_a_partition_is_doubted(gpt: Path, tmp_path: Path) -> None:
    """A virtual machine inside of the machine, say, on what once was a file system."""
    inner = image(tmp_path / "inner", 4 * MIB)
    sfdisk(inner, "label: dos\nstart=2048, size=2048\n")
    write(gpt, (2048 + 16384) * 512, read(inner, 0, 512))

    volume = by_name(found_on(vda=gpt))["vda2"]

    assert (volume.content, volume.keep_because) == ("ext", "it has a partition table of its own inside")


def test_all_disks_of_a_machine(gpt: Path, ext4: Path) -> None:
    assert list(by_name(found_on(vda=gpt, vdb=ext4))) == ["vda1", "vda2", "vda5", "vdb"]
