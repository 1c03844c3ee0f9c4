"""Volume groups that are not whole, not clear, or damaged: files may be read, and nothing is unused."""

from pathlib import Path

import pytest

from hotspare.units import MIB
from tests.guest.volumes.images import by_name, found_on, image, read, run, sfdisk, write
from tests.guest.volumes.volume_groups import Group, Lvm, attached, free, reasons, text_of, with_checksum


@pytest.mark.parametrize("damage", ["header", "text"])
def test_one_of_several_metadata_areas_is_damaged(group: Group, damage: str) -> None:
    """The others tell where everything lies; but what is unused nobody knows for certain any more."""
    lvm, paths = group
    lvm.create("root", "--extents=12", "--stripes=2")
    expected = repr(by_name(found_on(**paths))["hs/root"].layout)
    write(paths["vda"], 4096 + 100 if damage == "header" else text_of(paths["vda"])[0] + 50, b"?")

    found = found_on(**paths)

    root = by_name(found)["hs/root"]
    assert repr(root.layout) == expected
    assert (root.keep_because or "").startswith("its volume group is in doubt: vda: the ")
    assert found.unused == {}
    assert found.remarks[0].startswith("hs: no extents of this volume group count as unused: vda: the ")


def test_a_copy_that_is_older_than_the_others(group: Group) -> None:
    lvm, paths = group
    lvm.create("old", "--extents=1")
    area = read(paths["vdb"], 4096, 1 * MIB - 4096)
    lvm.create("new", "--extents=2")
    write(paths["vdb"], 4096, area)

    found = found_on(**paths)

    assert [name for name in by_name(found) if "/" in name] == ["hs/old", "hs/new"]
    assert found.unused == {}
    assert "older than others" in found.remarks[0]


def test_a_missing_disk(group: Group) -> None:
    lvm, paths = group
    lvm.create("here", "--extents=4", on="vda")
    lvm.create("there", "--extents=4", on="vdb")

    found = found_on(vda=paths["vda"], vdc=paths["vdc"])

    here = by_name(found)["hs/here"]
    assert here.layout.disks == {"vda"}
    assert here.keep_because == "its volume group is in doubt: a physical volume is missing"
    assert reasons(found) == {"hs/there": "a physical volume that it lies on is missing"}
    assert found.unused == {}


def test_the_same_disk_twice(group: Group) -> None:
    lvm, paths = group
    lvm.create("root", "--extents=4")

    found = found_on(**paths, vdd=paths["vda"])

    assert [name for name in by_name(found) if "/" in name] == []
    assert found.unused == {}
    assert "vda and vdd are the same physical volume" in found.remarks[0]


def test_a_damaged_label(group: Group) -> None:
    _, paths = group
    write(paths["vda"], 512 + 40, b"?")

    found = found_on(**paths)

    assert found.remarks[0] == "vda: the label of this physical volume is damaged"
    assert found.unused == {}


def test_a_stale_file_system_under_a_physical_volume(group: Group, tmp_path: Path) -> None:
    lvm, paths = group
    lvm.create("root", "--extents=1")
    source = image(tmp_path / "btrfs", 128 * MIB)
    run("mkfs.btrfs", "-q", source)
    write(paths["vda"], 65536, read(source, 65536, 4096))

    found = found_on(**paths)

    assert (by_name(found)["vda"].content, by_name(found)["vda"].also) == ("lvm", ("btrfs",))
    assert found.unused == {}
    assert "signatures" in (by_name(found)["hs/root"].keep_because or "")


def test_a_physical_volume_that_its_partition_has_cut(group: Group) -> None:
    lvm, paths = group
    lvm.create("root", "--extents=1")
    with paths["vdb"].open("r+b") as file:
        file.truncate(60 * MIB)

    found = found_on(**paths)

    assert found.unused == {}
    assert found.remarks == [
        "hs: no extents of this volume group count as unused: "
        "its metadata contradicts the disks: vdb is smaller than it says"
    ]


def test_a_change_that_was_interrupted(group: Group) -> None:
    """LVM2 writes the place of the new text as a second one, and then makes it the first."""
    lvm, paths = group
    lvm.create("root", "--extents=1")
    area = bytearray(read(paths["vda"], 4096, 512))
    area[64:88] = area[40:64]
    write(paths["vda"], 4096, with_checksum(area))

    found = found_on(**paths)

    assert found.unused == {}
    assert found.remarks[0].endswith("vda: its metadata was just being changed")


def test_a_volume_group_on_a_doubtful_partition(tmp_path: Path) -> None:
    path = image(tmp_path / "vda")
    sfdisk(path, "label: dos\nstart=2048, size=65536\nstart=80000, size=2048\n")
    with attached({"vda": (path, 1 * MIB, 32 * MIB)}) as devices:
        lvm = Lvm(devices)
        lvm("pvcreate", *devices.values())
        lvm("vgcreate", "--physicalextentsize=1m", "hs", *devices.values())
        lvm.create("root", "--extents=4")
        assert free(found_on(vda=path)) == {"vda": [(6 * MIB, 33 * MIB)]}
        write(path, 446 + 16 + 8, (67583).to_bytes(4, "little"))

        found = found_on(vda=path)

    assert found.unused == {}
    assert by_name(found)["hs/root"].keep_because == (
        "its volume group is in doubt: vda1: it shares bytes with another partition"
    )
