"""Raw files and block devices against the contract, and what only they can do."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.block import file as file_module
from hotspare.block.extent import Extent, ExtentKind
from hotspare.block.file import RawFile
from hotspare.errors import NoSpace, PermissionRefused, SourceLost, TargetExists, UsageError
from hotspare.units import KIB, MIB
from tests.contracts.block_suite import CONTENT, SIZE, ReadBack, ReaderSuite, WriterSuite, read


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def loop_device(image: Path) -> Iterator[Path]:
    command = ["losetup", "--find", "--show", str(image)]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    yield Path(device)
    subprocess.run(["losetup", "--detach", device], check=True)


class TestReadingAFile(ReaderSuite):
    @pytest.fixture
    def reader(self, image: Path) -> Iterator[RawFile]:
        with RawFile.open(image) as reader:
            yield reader


class TestWritingAFile(WriterSuite):
    @pytest.fixture
    def writer(self, image: Path) -> Iterator[RawFile]:
        with RawFile.open(image, read_only=False) as writer:
            yield writer

    @pytest.fixture
    def read_back(self, image: Path) -> ReadBack:
        return image.read_bytes


class TestReadingADevice(ReaderSuite):
    @pytest.fixture
    def reader(self, loop_device: Path) -> Iterator[RawFile]:
        with RawFile.open(loop_device) as reader:
            yield reader


class TestWritingADevice(WriterSuite):
    @pytest.fixture
    def writer(self, loop_device: Path) -> Iterator[RawFile]:
        with RawFile.open(loop_device, read_only=False) as writer:
            yield writer

    @pytest.fixture
    def read_back(self, loop_device: Path) -> ReadBack:
        return loop_device.read_bytes


class TestWritingWithoutHoles(WriterSuite):
    @pytest.fixture
    def writer(self, image: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawFile]:
        # Every file system here can punch holes; the error of one that cannot stands in for it.
        monkeypatch.setattr(file_module, "_fallocate", lambda *_arguments: 95)
        with RawFile.open(image, read_only=False) as writer:
            yield writer

    @pytest.fixture
    def read_back(self, image: Path) -> ReadBack:
        return image.read_bytes


def test_creates_a_sparse_file_with_holes_as_zero_extents(tmp_path: Path) -> None:
    with RawFile.create(tmp_path / "new", 64 * MIB) as disk:
        assert list(disk.extents(0, disk.size)) == [Extent(0, 64 * MIB, ExtentKind.ZERO)]
        disk.write(8 * MIB, b"x" * 64 * KIB)
        disk.flush()

        assert list(disk.extents(0, disk.size)) == [
            Extent(0, 8 * MIB, ExtentKind.ZERO),
            Extent(8 * MIB, 64 * KIB, ExtentKind.DATA),
            Extent(8 * MIB + 64 * KIB, 56 * MIB - 64 * KIB, ExtentKind.ZERO),
        ]
    status = (tmp_path / "new").stat()
    assert status.st_blocks * 512 < MIB
    assert status.st_mode & 0o777 == 0o600


def test_writing_zeroes_gives_space_back(image: Path) -> None:
    with RawFile.open(image, read_only=False) as disk:
        disk.write_zeroes(0, SIZE)
        disk.flush()
    assert image.stat().st_blocks <= 8  # the last block of the file system is not a whole one


def test_never_overwrites_on_create(image: Path) -> None:
    with pytest.raises(TargetExists):
        RawFile.create(image, 4096)
    assert image.read_bytes() == CONTENT


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceLost, match="nowhere"):
        RawFile.open(tmp_path / "nowhere")
    with pytest.raises(SourceLost, match="Cannot create"):
        RawFile.create(tmp_path / "nowhere" / "disk", 4096)


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_opens_only_disks(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(UsageError):
        RawFile.open(path)


def test_a_file_that_shrinks_is_lost(image: Path) -> None:
    with RawFile.open(image) as disk:
        os.truncate(image, 1000)
        with pytest.raises(SourceLost, match="ends at 1000"):
            read(disk, 900, 200)


def test_refuses_to_write_what_was_opened_for_reading(image: Path) -> None:
    with RawFile.open(image) as disk:
        with pytest.raises(PermissionRefused):
            disk.write(0, b"x")
        with pytest.raises(PermissionRefused):
            disk.write_zeroes(0, 512)
    assert image.read_bytes() == CONTENT


def test_ranges_beyond_the_disk_are_a_mistake_of_the_caller(image: Path) -> None:
    with RawFile.open(image, read_only=False) as disk:
        with pytest.raises(ValueError, match="not all in"):
            read(disk, SIZE - 1, 2)
        with pytest.raises(ValueError, match="not all in"):
            disk.write(SIZE, b"x")
        with pytest.raises(ValueError, match="not all in"):
            disk.write_zeroes(-1, 1)
    assert image.stat().st_size == SIZE


def test_a_full_file_system_is_no_space(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], check=True)
    try:
        with RawFile.create(mount / "disk", 4 * MIB) as disk, pytest.raises(NoSpace):
            disk.write(0, b"x" * 4 * MIB)
    finally:
        subprocess.run(["umount", str(mount)], check=True)
