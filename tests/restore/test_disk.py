"""Disks restored to files and devices: whole, or what was there before is still there."""

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import Interrupted, NoSpace, RepositoryDamaged, TargetExists, UsageError
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.restore.disk import DiskOptions, restore_disks
from hotspare.storage.local import LocalBackend
from tests.repository.conftest import CHUNK, PASSPHRASE, store

SIZE = 70 * CHUNK + 512 * 3


@pytest.fixture(scope="module")
def content() -> bytes:
    data = bytearray(SIZE)
    data[3 * CHUNK : 30 * CHUNK] = random.Random(1).randbytes(27 * CHUNK)
    data[-600:] = b"end" * 200
    return bytes(data)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(LocalBackend(tmp_path / "repository"), PASSPHRASE, chunk_size=CHUNK)


@pytest.fixture
def point(repository: Repository, content: bytes) -> RestorePoint:
    return store(repository, "web01", content)


def restore(repository: Repository, point: RestorePoint, path: Path, *, force: bool = False) -> None:
    options = DiskOptions(force=force)
    restore_disks(repository, point, {"vda": path}, options, events.ignore, Cancellation())


def compare_images(expected: bytes, expected_path: Path, path: Path, form: str) -> None:
    expected_path.write_bytes(expected)
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", form, expected_path, path], check=True)


def test_a_raw_file_is_the_disk_and_is_sparse(
    repository: Repository, point: RestorePoint, content: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.raw"
    restore(repository, point, out)

    assert out.read_bytes() == content
    assert out.stat().st_blocks * 512 < 32 * CHUNK


def test_a_qcow2_image_is_the_disk(
    repository: Repository, point: RestorePoint, content: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.qcow2"
    restore(repository, point, out)

    compare_images(content, tmp_path / "expected.raw", out, "qcow2")
    subprocess.run(["qemu-img", "check", "-q", out], check=True)


def test_what_exists_is_left_alone(repository: Repository, point: RestorePoint, tmp_path: Path) -> None:
    out = tmp_path / "out.raw"
    out.write_bytes(b"precious")
    with pytest.raises(TargetExists, match="--force"):
        restore(repository, point, out)

    assert out.read_bytes() == b"precious"


def test_force_replaces_what_exists(
    repository: Repository, point: RestorePoint, content: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.raw"
    out.write_bytes(b"x" * (SIZE + 100))
    restore(repository, point, out, force=True)

    assert out.read_bytes() == content


def test_a_failed_restore_keeps_what_was_there(
    repository: Repository, point: RestorePoint, tmp_path: Path
) -> None:
    out = tmp_path / "out.raw"
    out.write_bytes(b"precious")
    (pack,) = (tmp_path / "repository/data").glob("*/*")
    damaged = bytearray(pack.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    pack.write_bytes(damaged)
    with pytest.raises(RepositoryDamaged):
        restore(repository, point, out, force=True)

    assert out.read_bytes() == b"precious"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_an_interrupted_restore_leaves_nothing(
    repository: Repository, point: RestorePoint, tmp_path: Path
) -> None:
    cancellation = Cancellation()

    def cancel_early(event: events.Event) -> None:
        if isinstance(event, events.DiskStarted):
            cancellation.cancel()

    out = tmp_path / "out.qcow2"
    with pytest.raises(Interrupted):
        restore_disks(repository, point, {"vda": out}, DiskOptions(), cancel_early, cancellation)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["repository"]


def test_a_full_file_system_is_said_and_nothing_is_left(
    repository: Repository, point: RestorePoint, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        with pytest.raises(NoSpace):
            restore(repository, point, small / "out.raw")
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_unknown_disk_is_a_usage_error(
    repository: Repository, point: RestorePoint, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="Its disks: vda"):
        restore_disks(
            repository,
            point,
            {"vda": tmp_path / "x", "sdq": tmp_path / "y"},
            DiskOptions(),
            events.ignore,
            Cancellation(),
        )
    assert not (tmp_path / "x").exists()


def test_all_targets_are_looked_at_before_the_first_is_written(
    repository: Repository, content: bytes, tmp_path: Path
) -> None:
    point = store(repository, "two", content, content)
    (tmp_path / "b").write_bytes(b"precious")
    with pytest.raises(TargetExists):
        restore_disks(
            repository,
            point,
            {"vda": tmp_path / "a", "vdb": tmp_path / "b"},
            DiskOptions(),
            events.ignore,
            Cancellation(),
        )
    assert not (tmp_path / "a").exists()


def first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[Path]:
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xaa" * (SIZE + CHUNK))
    made = subprocess.run(
        ["losetup", "--find", "--show", backing], check=True, capture_output=True, text=True
    )
    device = Path(made.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_device_is_only_written_when_forced(
    repository: Repository, point: RestorePoint, content: bytes, loop_device: Path
) -> None:
    with pytest.raises(TargetExists, match="block device"):
        restore(repository, point, loop_device)
    assert first_bytes(loop_device) == b"\xaa" * 4

    restore(repository, point, loop_device, force=True)
    with loop_device.open("rb") as device:
        assert device.read(SIZE) == content
        assert device.read(4) == b"\xaa" * 4, "what lies behind the disk is not touched"


def test_a_device_that_is_too_small_is_not_touched(repository: Repository, loop_device: Path) -> None:
    large = store(repository, "large", bytes(SIZE + 2 * CHUNK))
    with pytest.raises(NoSpace, match="larger device"):
        restore(repository, large, loop_device, force=True)
    assert first_bytes(loop_device) == b"\xaa" * 4
