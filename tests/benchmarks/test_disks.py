from itertools import pairwise
from pathlib import Path

from benchmarks.disks import change_disk, make_long_disk, make_sparse_disk, scattered_changes
from hotspare.units import KIB, MIB


def test_changes_are_ordered_apart_and_of_the_size_asked_for() -> None:
    changes = scattered_changes(256 * MIB, 2 * MIB)
    assert changes == scattered_changes(256 * MIB, 2 * MIB)
    assert changes != scattered_changes(256 * MIB, 2 * MIB, seed=1)
    assert sum(extent.length for extent in changes) == 2 * MIB
    assert all(first.end < second.offset for first, second in pairwise(changes))
    assert changes[-1].end <= 256 * MIB


def test_only_the_changes_are_changed(tmp_path: Path) -> None:
    donor, disk = tmp_path / "donor", tmp_path / "disk"
    donor.write_bytes(b"x" * (4 * MIB))
    disk.write_bytes(bytes(4 * MIB))
    changes = scattered_changes(4 * MIB, 128 * KIB)
    change_disk(disk, changes, donor)
    data = bytearray(disk.read_bytes())
    for extent in changes:
        assert data[extent.offset : extent.end] == b"x" * extent.length
        data[extent.offset : extent.end] = bytes(extent.length)
    assert not any(data)
    assert len(data) == 4 * MIB


def test_sparse_disk_takes_only_its_content(tmp_path: Path) -> None:
    donor, disk = tmp_path / "donor", tmp_path / "disk"
    donor.write_bytes(b"x" * (2 * MIB))
    make_sparse_disk(disk, 1 << 34, donor, 1 * MIB)
    assert disk.stat().st_size == 1 << 34
    assert MIB <= disk.stat().st_blocks * 512 < 2 * MIB


def test_long_disk_goes_on_with_noise_that_does_not_repeat(tmp_path: Path) -> None:
    donor, disk = tmp_path / "donor", tmp_path / "disk"
    donor.write_bytes(b"x" * MIB)
    make_long_disk(disk, 33 * MIB, donor)
    data = disk.read_bytes()
    assert len(data) == 33 * MIB
    assert data[:MIB] == b"x" * MIB
    pieces = {data[at : at + 256 * KIB] for at in range(MIB, len(data), 256 * KIB)}
    assert len(pieces) == 32 * 4
