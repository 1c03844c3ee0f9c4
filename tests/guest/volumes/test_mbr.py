"""Master boot records with logical partitions, made by sfdisk, and broken on purpose."""

from pathlib import Path

import pytest

from hotspare.units import GIB, MIB
from tests.guest.volumes.images import (
    bounds,
    by_name,
    found_on,
    image,
    put,
    read,
    reasons,
    run,
    same_as_sfdisk,
    sfdisk,
    write,
)

LOGICAL = """
label: dos
label-id: 0x1badcafe
start=2048, size=8192, type=83
start=10240, size=100352, type=5
start=112640, size=8192, type=82
start=12288, size=8192, type=83
start=22528, size=8192, type=83
start=32768, size=61440, type=7
"""


@pytest.fixture
def dos(tmp_path: Path, ext4: Path) -> Path:
    path = image(tmp_path / "vda")
    sfdisk(path, LOGICAL)
    put(ext4, path, 22528 * 512)
    return path


def test_mbr_with_logical_partitions(dos: Path) -> None:
    found = found_on(vda=dos)

    same_as_sfdisk(found, dos)
    volumes = by_name(found)
    assert list(volumes) == ["vda1", "vda3", "vda5", "vda6", "vda7"]
    assert (volumes["vda6"].content, volumes["vda6"].keep_because) == ("ext", None)
    assert volumes["vda6"].partition_uuid == "1badcafe-06"
    assert found.remarks == []


def link_sectors(path: Path) -> list[int]:
    """Follow the chain of logical partitions by hand."""
    first = here = int.from_bytes(read(path, 446 + 16 + 8, 4), "little")
    found = [here]
    while read(path, here * 512 + 446 + 16 + 4, 1) != b"\0":
        here = first + int.from_bytes(read(path, here * 512 + 446 + 16 + 8, 4), "little")
        found.append(here)
    return found


def test_a_chain_that_leads_back_to_its_start_ends(dos: Path) -> None:
    last = link_sectors(dos)[-1]
    write(dos, last * 512 + 446 + 16, read(dos, 446 + 16, 8) + (0).to_bytes(4, "little") + b"\1\0\0\0")

    found = found_on(vda=dos)

    assert list(by_name(found)) == ["vda1", "vda3", "vda5", "vda6", "vda7"]
    assert set(reasons(found).values()) == {
        "the partition table is damaged: the chain of its logical partitions does not end"
    }


def test_a_chain_that_breaks_off_is_doubted(dos: Path) -> None:
    write(dos, link_sectors(dos)[1] * 512 + 510, b"??")

    found = found_on(vda=dos)

    assert list(by_name(found)) == ["vda1", "vda3", "vda5"]
    assert "breaks off" in (reasons(found)["vda1"] or "")


MISPLACED = "it lies where the table of logical partitions lies, or outside of their extended partition"


def test_a_logical_partition_that_reaches_into_the_next_link_is_doubted(dos: Path) -> None:
    """What it called unused would take the next link with it, and every partition behind that."""
    first, second = link_sectors(dos)[:2]
    start = first + int.from_bytes(read(dos, first * 512 + 446 + 8, 4), "little")
    write(dos, first * 512 + 446 + 12, (second + 1 - start).to_bytes(4, "little"))

    assert reasons(found_on(vda=dos))["vda5"] == MISPLACED


def test_a_logical_partition_outside_of_the_extended_one_is_doubted(dos: Path) -> None:
    write(dos, 446 + 16 + 12, (30_000).to_bytes(4, "little"))

    found = reasons(found_on(vda=dos))

    assert found["vda7"] == MISPLACED
    assert found["vda6"] is None


def test_a_primary_partition_inside_of_the_extended_one_is_doubted(dos: Path) -> None:
    write(dos, 446 + 12, (8192 + 512).to_bytes(4, "little"))

    assert reasons(found_on(vda=dos))["vda1"] == MISPLACED


def test_logical_partitions_on_a_disk_with_sectors_of_4096_bytes(tmp_path: Path, ext4: Path) -> None:
    path = image(tmp_path / "vda")
    device = run("losetup", "--find", "--show", "--sector-size", "4096", path).strip()
    try:
        script = "label: dos\nstart=256, size=1024\nstart=2048, size=8192, type=5\nstart=2304, size=1024\n"
        run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", device, given=script)
    finally:
        run("losetup", "--detach", device)
    put(ext4, path, 2304 * 4096)

    found = found_on(vda=path)

    assert {name: bounds(volume) for name, volume in by_name(found).items()} == {
        "vda1": (1 * MIB, 5 * MIB),
        "vda5": (9 * MIB, 13 * MIB),
    }
    assert by_name(found)["vda5"].content == "ext"
    assert found.remarks == ["vda: the partition table was read for sectors of 4096 bytes"]


def test_an_mbr_that_makes_sense_either_way_is_doubted(tmp_path: Path, ext4: Path) -> None:
    path = image(tmp_path / "vda")
    sfdisk(path, "label: dos\nstart=1024, size=8192\n")
    put(ext4, path, 1024 * 512)
    # The second lies behind the first for sectors of 4096 bytes, and is a disk image in a file, say.
    sfdisk(path, "label: dos\nstart=1152, size=8192\n")
    put(ext4, path, 1152 * 512)
    write(path, 1152 * 4096 + 1024, read(ext4, 1024, 1024))

    assert set(reasons(found_on(vda=path)).values()) == {
        "the partition table makes sense for sectors of 512 and of 4096 bytes"
    }


def test_partitions_that_share_bytes_are_doubted(tmp_path: Path, ext4: Path) -> None:
    path = image(tmp_path / "vda")
    sfdisk(path, "label: dos\nstart=2048, size=8192\nstart=20480, size=8192\nstart=40960, size=8192\n")
    write(path, 446 + 16 + 8, (10239).to_bytes(4, "little"))
    put(ext4, path, 1 * MIB)

    found = found_on(vda=path)

    shared = "it shares bytes with another partition"
    assert reasons(found) == {"vda1": shared, "vda2": shared, "vda3": "nothing known is in it"}
    assert by_name(found)["vda1"].content == "ext"


def test_a_partition_that_reaches_beyond_the_disk_is_cut_and_doubted(tmp_path: Path, ext4: Path) -> None:
    path = image(tmp_path / "vda", 1 * GIB)
    sfdisk(path, "label: dos\nstart=2048\n")
    with path.open("r+b") as file:
        file.truncate(64 * MIB)
    put(ext4, path, 1 * MIB)

    volume = by_name(found_on(vda=path))["vda1"]

    assert bounds(volume) == (1 * MIB, 64 * MIB)
    assert (volume.content, volume.keep_because) == ("ext", "it reaches beyond the end of the disk")


def test_a_partition_that_begins_beyond_the_disk_is_only_told(tmp_path: Path) -> None:
    path = image(tmp_path / "vda", 64 * MIB)
    sfdisk(path, "label: dos\nstart=2048, size=8192\nstart=100000, size=8192\n")
    with path.open("r+b") as file:
        file.truncate(16 * MIB)

    found = found_on(vda=path)

    assert list(by_name(found)) == ["vda1"]
    assert found.remarks == ["vda: partition 2 does not lie on the disk"]
