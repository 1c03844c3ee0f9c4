"""A volume read through its layout is a disk like any other."""

from itertools import pairwise
from pathlib import Path

import pytest

from hotspare.block.device import BlockReader
from hotspare.block.extent import Extent, ExtentKind
from hotspare.block.file import RawFile
from hotspare.guest.volumes.layouts import Concatenated, Linear, Striped
from hotspare.guest.volumes.reader import VolumeReader
from hotspare.guest.volumes.volume import Layout
from hotspare.units import GIB, KIB, MIB, TIB
from tests.contracts.block_suite import CONTENT, SIZE, ReaderSuite
from tests.memory_disk import MemoryDisk


class Owned(MemoryDisk):
    """Knows how many of it are open."""

    opened = 0

    def clone(self) -> "Owned":
        Owned.opened += 1
        return Owned(self.data)

    def close(self) -> None:
        Owned.opened -= 1


def spread(layout: Layout, content: bytes, disks: dict[str, int]) -> dict[str, BlockReader]:
    """Write content through the places of a layout to disks of these sizes, with garbage elsewhere."""
    made = {disk: bytearray(b"\xee" * size) for disk, size in disks.items()}
    written = 0
    for disk, offset, length in layout.places(0, layout.size):
        made[disk][offset : offset + length] = content[written : written + length]
        written += length
    return {disk: MemoryDisk(data) for disk, data in made.items()}


class TestLinear(ReaderSuite):
    @pytest.fixture
    def reader(self) -> BlockReader:
        layout = Linear("a", 1 * MIB, SIZE)
        return VolumeReader(layout, spread(layout, CONTENT, {"a": SIZE + 2 * MIB, "unused": 5}))


class TestSegments(ReaderSuite):
    @pytest.fixture
    def reader(self) -> BlockReader:
        """Stripes of 64 KiB, then a part in one piece, then stripes of 4 KiB, last an odd piece."""
        tail = SIZE - 6 * MIB
        layout = Concatenated(
            [
                Striped(
                    [Linear("a", 4 * MIB, 1 * MIB), Linear("b", 0, 1 * MIB), Linear("c", 0, 1 * MIB)],
                    64 * KIB,
                ),
                Linear("b", 2 * MIB, 1 * MIB),
                Striped([Linear("c", 1 * MIB, 1 * MIB), Linear("a", 1 * MIB, 1 * MIB)], 4 * KIB),
                Linear("a", 2 * MIB, tail),
            ]
        )
        assert layout.size == SIZE
        return VolumeReader(layout, spread(layout, CONTENT, {"a": 6 * MIB, "b": 3 * MIB, "c": 2 * MIB}))


def test_only_clones_own_their_disks() -> None:
    Owned.opened = 1
    disks = {"a": Owned(bytes(8192)), "b": Owned(bytes(8192))}
    volume = VolumeReader(Linear("a", 4096, 4096), disks)

    clone = volume.clone()
    assert Owned.opened == 2, "only the disk that is needed is opened again"
    volume.close()
    assert Owned.opened == 2
    clone.close()
    assert Owned.opened == 1


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (4095, 2), (4097, 0), (0, 4097)])
def test_nothing_outside_is_read(offset: int, length: int) -> None:
    volume = VolumeReader(Linear("a", 0, 4096), {"a": MemoryDisk(bytes(8192))})

    with pytest.raises(ValueError, match="not all in a volume"):
        volume.read_into(offset, memoryview(bytearray(length)))
    with pytest.raises(ValueError, match="not all in a volume"):
        volume.extents(offset, length)


def test_extents_of_a_sparse_terabyte_come_one_by_one(tmp_path: Path) -> None:
    disks: dict[str, BlockReader] = {}
    for name in "ab":
        path = tmp_path / name
        RawFile.create(path, 512 * GIB).close()
        disks[name] = RawFile.open(path)
    layout = Striped([Linear("a", 0, 512 * GIB), Linear("b", 0, 512 * GIB)], 64 * KIB)
    volume = VolumeReader(layout, disks)

    assert list(volume.extents(900 * GIB, 1 * GIB)) == [Extent(900 * GIB, 1 * GIB, ExtentKind.ZERO)]
    assert volume.size == 1 * TIB
    for disk in disks.values():
        disk.close()


def test_extents_of_segments_that_go_backwards_on_their_disk() -> None:
    layout = Concatenated(
        [Linear("a", 8 * KIB, 4 * KIB), Linear("a", 0, 8 * KIB), Linear("a", 12 * KIB, 4 * KIB)]
    )
    disk = MemoryDisk((b"\1" * 4 * KIB + bytes(4 * KIB)) * 2)

    assert list(VolumeReader(layout, {"a": disk}).extents(0, 16 * KIB)) == [
        Extent(0, 8 * KIB, ExtentKind.DATA),
        Extent(8 * KIB, 8 * KIB, ExtentKind.ZERO),
    ]


def test_extents_neither_overlap_nor_leave_gaps() -> None:
    zeroes, data = bytes(8 * KIB), b"\1" * 8 * KIB
    layout = Striped([Linear("a", 0, 64 * KIB), Linear("b", 0, 64 * KIB)], 4 * KIB)
    disks = {"a": MemoryDisk((zeroes + data) * 4), "b": MemoryDisk(zeroes * 4 + data * 4)}

    found = list(VolumeReader(layout, disks).extents(0, 128 * KIB))

    assert [extent.offset for extent in found] == [0, *(extent.end for extent in found[:-1])]
    assert found[-1].end == 128 * KIB
    assert all(one.kind is not other.kind for one, other in pairwise(found))
    assert sum(extent.length for extent in found if extent.kind is ExtentKind.DATA) == 64 * KIB
