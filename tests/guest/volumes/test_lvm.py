"""Logical volumes made by LVM2, and where LVM2 says that they lie."""

import re
from pathlib import Path

import numpy as np
import pytest

from hotspare.block.file import RawFile
from hotspare.block.ranges import Ranges
from hotspare.guest.volumes.find import find_volumes
from hotspare.guest.volumes.reader import VolumeReader
from hotspare.guest.volumes.volume import Volume
from hotspare.units import KIB, MIB
from tests.guest.volumes.images import blkid, by_name, found_on, image, read, run, sfdisk, write
from tests.guest.volumes.volume_groups import (
    EXTENT,
    SIZES,
    Group,
    Lvm,
    Segments,
    attached,
    free,
    free_by_pvs,
    linear,
    logical_volume,
    reasons,
    text_of,
    volume_group,
    with_checksum,
)

GRAIN = 4 * KIB


def mark(path: Path, number: int, start: int) -> None:
    """Write into each block of 4 KiB from ``start`` which disk it is on, and where."""
    blocks = np.zeros(((path.stat().st_size - start) // GRAIN, GRAIN // 8), dtype="<u8")
    blocks[:, 0] = number
    blocks[:, 1] = start + np.arange(len(blocks), dtype=np.uint64) * GRAIN
    write(path, start, blocks.tobytes())


def by_lvs(lvm: Lvm, name: str) -> list[tuple[int, int]]:
    """Tell for each block of a logical volume disk and offset, from what ``lvs`` and ``pvs`` print."""
    starts = {row["pv_name"]: int(row["pe_start"]) for row in lvm.report("pvs", "pv_name,pe_start")}
    numbers = {device: number for number, device in enumerate(lvm.devices.values())}
    columns = "lv_name,seg_start_pe,seg_size_pe,stripes,stripe_size,seg_pe_ranges,vg_extent_size"
    found = []
    rows = [row for row in lvm.report("lvs", columns) if row["lv_name"] == name]
    for row in sorted(rows, key=lambda row: int(row["seg_start_pe"])):
        extent = int(row["vg_extent_size"])
        heads = [re.fullmatch(r"(.*):(\d+)-\d+", one) for one in row["seg_pe_ranges"].split()]
        columns_at = [(numbers[h[1]], starts[h[1]] + int(h[2]) * extent) for h in heads if h]
        stripe = int(row["stripe_size"]) or int(row["seg_size_pe"]) * extent
        filled = [0] * len(columns_at)
        while sum(filled) < int(row["seg_size_pe"]) * extent:
            for column, (number, at) in enumerate(columns_at):
                found += [(number, at + filled[column] + inside) for inside in range(0, stripe, GRAIN)]
                filled[column] += stripe
    return found


def blocks_of(volume: Volume, paths: dict[str, Path]) -> list[tuple[int, int]]:
    """Read what ``mark`` has written, through the layout of a volume."""
    disks = {name: RawFile.open(path) for name, path in paths.items()}
    content = bytearray(volume.size)
    VolumeReader(volume.layout, disks).read_into(0, memoryview(content))
    for disk in disks.values():
        disk.close()
    marks = np.frombuffer(content, dtype="<u8").reshape(-1, GRAIN // 8)[:, :2]
    return [(int(number), int(offset)) for number, offset in marks]


def test_every_block_is_where_lvm_says(group: Group) -> None:
    lvm, paths = group
    lvm.create("linear", "--extents=5")
    lvm.create("two", "--extents=12", "--stripes=2", "--stripesize=64k")
    lvm.create("three", "--extents=9", "--stripes=3", "--stripesize=4k")
    lvm.create("grown", "--extents=3", on="vdc")
    lvm.create("between", "--extents=2", on="vdc")
    lvm("lvextend", "--extents=+4", "hs/grown", lvm.devices["vda"])
    lvm("lvextend", "--extents=+6", "--stripes=2", "--stripesize=16k", "hs/grown")
    for number, path in enumerate(paths.values()):
        mark(path, number, EXTENT)

    found = found_on(**paths)

    volumes = by_name(found)
    names = ["linear", "two", "three", "grown", "between"]
    assert [name for name in volumes if name.startswith("hs/")] == [f"hs/{name}" for name in names]
    for name in names:
        assert blocks_of(volumes[f"hs/{name}"], paths) == by_lvs(lvm, name), name
    assert (found.unreadable, found.remarks) == ([], [])
    assert free(found) == free_by_pvs(lvm)


def test_a_raid_0_is_striped(group: Group) -> None:
    lvm, paths = group
    lvm.create("fast", "--type=raid0", "--extents=8", "--stripes=2", "--stripesize=64k")
    lvm.create("same", "--extents=8", "--stripes=2", "--stripesize=64k")
    for number, path in enumerate(paths.values()):
        mark(path, number, EXTENT)

    volumes = by_name(found_on(**paths))

    fast, same = blocks_of(volumes["hs/fast"], paths), blocks_of(volumes["hs/same"], paths)
    assert [(disk, offset + 4 * EXTENT) for disk, offset in fast] == same
    assert volumes["hs/fast"].keep_because == "nothing known is in it"


def test_what_logical_volumes_hold(group: Group, tmp_path: Path) -> None:
    lvm, paths = group
    lvm.create("root", "--extents=16", "--stripes=2")
    lvm.create("inner", "--extents=2")
    source = image(tmp_path / "ext4", 16 * MIB)
    run("mkfs.ext4", "-q", "-L", "striped", source)
    content = read(source, 0, 16 * MIB)
    at = 0
    for disk, offset, length in by_name(found_on(**paths))["hs/root"].layout.places(0, 16 * MIB):
        write(paths[disk], offset, content[at : at + length])
        at += length

    (inner,) = by_name(found_on(**paths))["hs/inner"].layout.places(0, 2 * MIB)
    write(paths[inner.disk], inner.offset + 512, read(paths["vda"], 512, 512))

    found = found_on(**paths)

    nested = by_name(found)["hs/inner"]
    assert (nested.content, nested.keep_because) == ("lvm", "it is a physical volume of LVM")
    root = by_name(found)["hs/root"]
    assert (root.content, root.label, root.uuid, root.keep_because) == (
        "ext",
        "striped",
        blkid(source)["UUID"],
        None,
    )
    pv = by_name(found)["vda"]
    assert (pv.content, pv.keep_because) == ("lvm", "it is a physical volume of LVM")
    assert pv.uuid == blkid(paths["vda"])["UUID"]


def test_a_physical_volume_in_a_partition(tmp_path: Path) -> None:
    path = image(tmp_path / "vda")
    sfdisk(path, "label: gpt\nstart=2048, size=8192\nstart=20480, size=65536\n")
    with attached({"vda": (path, 20480 * 512, 65536 * 512)}) as devices:
        lvm = Lvm(devices)
        lvm("pvcreate", *devices.values())
        lvm("vgcreate", "--physicalextentsize=1m", "hs", *devices.values())
        lvm.create("root", "--extents=4")
        lvm.create("gone", "--extents=3")
        lvm.create("last", "--extents=2")
        lvm("lvremove", "--yes", "hs/gone")

        found = found_on(vda=path)

    assert list(by_name(found)) == ["vda1", "vda2", "hs/root", "hs/last"]
    first = 20480 * 512 + EXTENT
    assert list(by_name(found)["hs/last"].layout.places(0, 99 * MIB)) == [("vda", first + 7 * MIB, 2 * MIB)]
    assert free(found) == {"vda": [(first + 4 * MIB, first + 7 * MIB), (first + 9 * MIB, first + 31 * MIB)]}


RAID = (
    'device_count = 2\nregion_size = 1024\nraids = [ "m_rmeta_0", "m_rimage_0", "m_rmeta_1", "m_rimage_1" ]'
)
POOL = (
    'metadata = "pool_tmeta"\npool = "pool_tdata"\ntransaction_id = 1\nchunk_size = 128\nzero_new_blocks = 1'
)
POOL += '\ndiscards = "passdown"'
CACHE_POOL = 'data = "c_cdata"\nmetadata = "c_cmeta"\nmetadata_format = 2\nchunk_size = 128\npolicy = "smq"'
CACHE_POOL += '\ncache_mode = "writethrough"'
THIN = 'thin_pool = "pool"\ntransaction_id = 0\ndevice_id = '
WRITECACHE = 'writecache = "f_cvol"\norigin = "r_wcorig"\nwritecache_block_size = 4096'
SNAPSHOT = 'chunk_size = 8\norigin = "root"\n'
Written = list[tuple[str, Segments, bool]]
ODD: dict[str, tuple[Written, dict[str, str | None], dict[str, str]]] = {
    "snapshot": (
        [
            ("root", [linear(5, 0)], True),
            ("snap", [linear(2, 20)], False),
            ("snapshot0", [(5, "snapshot", SNAPSHOT + 'cow_store = "snap"')], False),
        ],
        {"hs/root": "a snapshot is taken of it"},
        {"hs/snap": "it is a snapshot"},
    ),
    "merging": (
        [
            ("root", [linear(5, 0)], True),
            ("snap", [linear(2, 20)], False),
            ("snapshot0", [(5, "snapshot", SNAPSHOT + 'merging_store = "snap"')], False),
        ],
        {},
        {"hs/root": "a snapshot is being merged into it", "hs/snap": "it is a snapshot"},
    ),
    "thin": (
        [
            ("pool", [(5, "thin-pool", POOL)], True),
            ("pool_tmeta", [linear(1, 30)], False),
            ("pool_tdata", [linear(5, 0)], False),
            ("lvol0_pmspare", [linear(1, 31)], False),
            ("thin1", [(100, "thin", THIN + "1")], True),
            ("base", [linear(3, 10)], True),
            ("thin2", [(3, "thin", THIN + '2\nexternal_origin = "base"')], True),
        ],
        {"hs/base": "thin volumes are based on it"},
        {"hs/pool": "it is a pool of thin", "hs/thin1": "it is a thin", "hs/thin2": "it is a thin"},
    ),
    "raid1": (
        [
            ("m", [(4, "raid1", RAID)], True),
            *[(f"m_rmeta_{n}", [linear(1, 12, f"pv{n}")], False) for n in range(2)],
            *[(f"m_rimage_{n}", [linear(4, 5, f"pv{n}")], False) for n in range(2)],
        ],
        {},
        {"hs/m": "it is a RAID"},
    ),
    "mirror": (
        [
            (
                "m",
                [(4, "mirror", 'mirror_count = 2\nregion_size = 1024\nmirrors = [ "m_i0", 0, "m_i1", 0 ]')],
                True,
            ),
            *[(f"m_i{n}", [linear(4, 5, f"pv{n}")], False) for n in range(2)],
        ],
        {},
        {"hs/m": "it is mirrored"},
    ),
    "cache": (
        [
            ("root", [(4, "cache", 'cache_pool = "c"\norigin = "root_corig"')], True),
            ("root_corig", [linear(4, 0)], False),
            ("c", [(2, "cache-pool", CACHE_POOL)], False),
            ("c_cdata", [linear(2, 10)], False),
            ("c_cmeta", [linear(2, 14)], False),
            ("plain", [linear(2, 20)], True),
        ],
        {"hs/plain": "nothing known is in it"},
        {"hs/root": "it is cached"},
    ),
    "writecache": (
        [
            ("root", [(4, "writecache", WRITECACHE)], True),
            ("r_wcorig", [linear(4, 0)], False),
            ("f_cvol", [linear(2, 8)], False),
        ],
        {},
        {"hs/root": "it is cached"},
    ),
    "nothing": (
        [("none", [(3, "error", "")], True), ("zeroes", [linear(1, 4), (3, "zero", "")], True)],
        {},
        {"hs/none": "it has no data at all", "hs/zeroes": "it has no data at all"},
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_volumes_that_are_more_than_their_extents(group: Group, tmp_path: Path, name: str) -> None:
    lvm, paths = group
    written, readable, unreadable = ODD[name]
    lvm.restore(
        tmp_path,
        *(
            logical_volume(n, name, segments, visible=seen)
            for n, (name, segments, seen) in enumerate(written)
        ),
    )

    found = found_on(**paths)

    kept = {one.name: one.keep_because for one in found.volumes if one.name not in SIZES}
    assert kept == readable
    assert set(reasons(found)) == set(unreadable)
    assert all(reasons(found)[one].startswith(start) for one, start in unreadable.items())
    assert free(found) == free_by_pvs(lvm)


def test_volumes_that_are_being_moved(group: Group, tmp_path: Path) -> None:
    lvm, paths = group
    moving = (4, "mirror", 'mirror_count = 2\nregion_size = 1024\nmirrors = [ "pv0", 0, "pv1", 7 ]')
    lvm.restore(
        tmp_path,
        logical_volume(1, "root", [(4, "striped", 'stripe_count = 1\nstripes = [ "pvmove0", 0 ]')]),
        logical_volume(2, "pvmove0", [moving], visible=False).replace(
            '"WRITE"', '"WRITE", "PVMOVE", "LOCKED"'
        ),
    )

    found = found_on(**paths)

    assert reasons(found) == {"hs/root": "it is being moved, or lies on another logical volume"}
    assert free(found) == free_by_pvs(lvm)
    assert found.unused["vdb"].within(8 * MIB, 12 * MIB).total == 0


def test_the_text_wraps_around_in_its_ring(group: Group) -> None:
    """Each change goes behind the last one, and at the end of the area to its start."""
    lvm, paths = group
    lvm.create("root", "--extents=1")
    offset, length = text_of(paths["vda"])
    area = read(paths["vda"], 4096, 1 * MIB - 4096)
    text = read(paths["vda"], offset, length)
    split = length // 3
    ring = bytearray(area)
    ring[len(area) - split :] = text[:split]
    ring[512 : 512 + length - split] = text[split:]
    ring[40:48] = (len(area) - split).to_bytes(8, "little")
    write(paths["vda"], 4096, with_checksum(ring))
    assert lvm.report("pvs", "pv_name"), "LVM2 reads it too"

    found = found_on(**paths)

    assert "hs/root" in by_name(found)
    assert found.remarks == []
    assert free(found) == free_by_pvs(lvm)


def test_two_areas_on_each_and_none_on_some(tmp_path: Path) -> None:
    options = ("--metadatacopies=2",)
    with volume_group(
        tmp_path, SIZES, "--physicalextentsize=1m", "--vgmetadatacopies=3", physical=options
    ) as made:
        lvm, paths = made
        lvm.create("root", "--extents=30", "--stripes=3")
        found = found_on(**paths)
        assert free(found) == free_by_pvs(lvm)
    assert found.remarks == []
    assert "hs/root" in by_name(found)


def test_a_physical_volume_without_metadata(tmp_path: Path) -> None:
    paths = {name: image(tmp_path / name) for name in ("vda", "vdb")}
    with attached({name: (path, 0, 64 * MIB) for name, path in paths.items()}) as devices:
        lvm = Lvm(devices)
        lvm("pvcreate", devices["vda"])
        lvm("pvcreate", "--metadatacopies=0", devices["vdb"])
        lvm("vgcreate", "--physicalextentsize=1m", "hs", *devices.values())
        lvm.create("root", "--extents=80")
        found = found_on(**paths)
        assert free(found) == free_by_pvs(lvm)
    assert by_name(found)["hs/root"].layout.disks == {"vda", "vdb"}
    assert found.remarks == []


def test_a_group_that_clones_have_twice_under_one_name(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    paths = {}
    for number, folder in enumerate(folders):
        folder.mkdir()
        with volume_group(folder, {"vda": 64 * MIB}) as (lvm, made):
            lvm.create("root", "--extents=1")
            paths[f"vd{'ab'[number]}"] = made["vda"]

    found = found_on(**paths)

    first, second = (name for name in by_name(found) if "/" in name)
    assert first == "hs/root"
    assert re.fullmatch(r"hs-\w{6}/root", second)
    assert sorted(found.unused) == ["vda", "vdb"]


def test_garbage_in_all_free_extents_is_noticed_by_nobody(group: Group, tmp_path: Path) -> None:
    lvm, paths = group
    lvm.create("root", "--extents=20", "--stripes=2")
    source = image(tmp_path / "ext4", 20 * MIB)
    run("mkfs.ext4", "-q", source)
    content = read(source, 0, 20 * MIB)
    before = found_on(**paths)
    root = by_name(before)["hs/root"].layout
    at = 0
    for disk, offset, length in root.places(0, 20 * MIB):
        write(paths[disk], offset, content[at : at + length])
        at += length
    state = lvm.report("lvs", "lv_name,seg_pe_ranges"), lvm("vgck", "hs")

    for disk, ranges in before.unused.items():
        assert ranges & root.on_disks(Ranges.whole(root.size)).get(disk, Ranges.whole(0)) == Ranges.whole(0)
        for start, end in ranges:
            write(paths[disk], start, b"garbage!" * ((end - start) // 8))

    assert (lvm.report("lvs", "lv_name,seg_pe_ranges"), lvm("vgck", "hs")) == state
    disks = {name: RawFile.open(path) for name, path in paths.items()}
    again = bytearray(20 * MIB)
    VolumeReader(by_name(find_volumes(disks))["hs/root"].layout, disks).read_into(0, memoryview(again))
    for reader in disks.values():
        reader.close()
    assert again == content
