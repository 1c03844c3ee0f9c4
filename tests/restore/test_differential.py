"""Writing a disk over what is there: only what differs, and then it is the disk, whatever was there."""

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotspare import events
from hotspare.block.file import RawFile
from hotspare.block.qemu import QemuNbd
from hotspare.block.ranges import Ranges
from hotspare.cancellation import Cancellation
from hotspare.errors import NoSpace, PermissionRefused, SourceLost, StorageError, UsageError
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.restore.differential import Written, write_differences
from hotspare.restore.disk import DiskOptions, restore_disks
from hotspare.storage.local import LocalBackend
from hotspare.units import KIB
from tests.repository.conftest import CHUNK, PASSPHRASE, store
from tests.restore.test_disk import SIZE, compare_images

BLOCK = 64 * KIB
OVER = DiskOptions(differential=True)


def disk_content() -> bytes:
    data = bytearray(SIZE)
    data[3 * CHUNK : 30 * CHUNK] = random.Random(1).randbytes(27 * CHUNK)
    data[-600:] = b"end" * 200
    return bytes(data)


CONTENT = disk_content()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    backend = LocalBackend(tmp_path_factory.mktemp("differential") / "repository")
    return Repository.create(backend, PASSPHRASE, chunk_size=CHUNK)


@pytest.fixture(scope="module")
def point(repository: Repository) -> RestorePoint:
    return store(repository, "web01", CONTENT)


def restore(repository: Repository, point: RestorePoint, path: Path, options: DiskOptions = OVER) -> Written:
    return restore_disks(repository, point, {"vda": path}, options, events.ignore, Cancellation())["vda"]


def test_nothing_is_written_where_nothing_differs(
    repository: Repository, point: RestorePoint, tmp_path: Path
) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    assert restore(repository, point, path).written == 0
    assert path.read_bytes() == CONTENT


def test_only_blocks_that_differ_are_written(
    repository: Repository, point: RestorePoint, tmp_path: Path
) -> None:
    path = tmp_path / "disk.raw"
    changed = bytearray(CONTENT)
    changed[5 * CHUNK + 7] ^= 1  # a byte of data
    changed[20 * CHUNK : 21 * CHUNK] = bytes(CHUNK)  # data that has become zeroes
    changed[50 * CHUNK + 100] = 9  # zeroes that have become data
    changed[-1] ^= 1  # the last, short block
    path.write_bytes(changed)

    written = restore(repository, point, path)

    assert path.read_bytes() == CONTENT
    assert written.written == 3 * BLOCK + SIZE % BLOCK


def test_what_nobody_needed_stays_as_it_is(
    repository: Repository, point: RestorePoint, tmp_path: Path
) -> None:
    """The point has zeroes there, since a file system called it unused."""
    path = tmp_path / "disk.raw"
    changed = bytearray(CONTENT)
    changed[2 * CHUNK : 3 * CHUNK] = b"d" * CHUNK  # deleted data
    changed[40 * CHUNK : 40 * CHUNK + 8] = b"deleted!"
    changed[50 * CHUNK : 50 * CHUNK + 8] = b"written!"
    path.write_bytes(changed)
    left_out = Ranges.of([(2 * CHUNK, 3 * CHUNK), (40 * CHUNK, 40 * CHUNK + 4096)])
    (stored,) = point.disks
    with RawFile.open(path, read_only=False) as disk:
        written = write_differences(
            repository,
            repository.disk(stored),
            disk,
            left_out=left_out,
            on_progress=lambda handled, done: None,
            cancellation=Cancellation(),
        )

    changed[50 * CHUNK : 50 * CHUNK + 8] = bytes(8)
    assert path.read_bytes() == changed
    assert written.written == BLOCK


def test_a_qcow2_image_is_written_over(repository: Repository, point: RestorePoint, tmp_path: Path) -> None:
    raw, path = tmp_path / "old.raw", tmp_path / "disk.qcow2"
    changed = bytearray(CONTENT)
    changed[10 * CHUNK] ^= 1
    changed[60 * CHUNK : 61 * CHUNK] = b"x" * CHUNK
    raw.write_bytes(changed)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, path], check=True)

    written = restore(repository, point, path)

    assert written.written == 2 * BLOCK
    assert written.compared < SIZE, "what neither side has is not read"
    compare_images(CONTENT, tmp_path / "expected.raw", path, "qcow2")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(st.integers(0, SIZE - 1), st.integers(1, 3 * CHUNK), st.integers(0, 255), st.booleans()),
        max_size=6,
    )
)
def test_whatever_was_there_it_is_the_disk_then(
    repository: Repository, point: RestorePoint, tmp_path: Path, edits: list[tuple[int, int, int, bool]]
) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    with RawFile.open(path, read_only=False) as disk:
        for offset, length, value, hole in edits:
            inside = min(length, SIZE - offset)
            if hole:
                disk.write_zeroes(offset, inside)
            else:
                disk.write(offset, bytes([value]) * inside)
        (stored,) = point.disks
        write_differences(
            repository,
            repository.disk(stored),
            disk,
            on_progress=lambda handled, done: None,
            cancellation=Cancellation(),
        )
    assert path.read_bytes() == CONTENT


def test_only_chunks_that_differ_are_fetched(
    point: RestorePoint, repository: Repository, tmp_path: Path
) -> None:
    """With packs that are gone, what is there already can still be confirmed."""
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    folder = tmp_path / "copy"
    shutil.copytree(repository.backend.url.removeprefix("file://"), folder)
    copy = Repository.open(LocalBackend(folder), PASSPHRASE)
    for pack in (folder / "data").glob("*/*"):
        pack.unlink()
    assert restore(copy, point, path).written == 0


@pytest.mark.parametrize(
    ("there", "error", "says"),
    [
        (None, SourceLost, "nothing at"),
        (SIZE - 512, NoSpace, "but the disk has"),
        (SIZE + 512, NoSpace, "but the disk has"),
    ],
)
def test_what_cannot_be_written_over_is_left_alone(
    repository: Repository,
    point: RestorePoint,
    tmp_path: Path,
    there: int | None,
    error: type[Exception],
    says: str,
) -> None:
    path = tmp_path / "disk.raw"
    if there is not None:
        path.write_bytes(b"p" * there)
    with pytest.raises(error, match=says):
        restore(repository, point, path)
    if there is not None:
        assert path.read_bytes() == b"p" * there


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    backing = tmp_path / "backing"
    changed = bytearray(CONTENT + b"\xaa" * CHUNK)
    changed[4 * CHUNK] ^= 1
    backing.write_bytes(changed)
    made = subprocess.run(
        ["losetup", "--find", "--show", backing], check=True, capture_output=True, text=True
    )
    path = Path(made.stdout.strip())
    try:
        yield path
    finally:
        subprocess.run(["losetup", "--detach", path], check=True)


def test_a_device_is_written_over(repository: Repository, point: RestorePoint, device: Path) -> None:
    written = restore(repository, point, device)

    assert written.written == BLOCK
    with device.open("rb") as opened:
        assert opened.read(SIZE) == CONTENT
        assert opened.read(4) == b"\xaa" * 4, "what lies behind the disk is not touched"


def test_a_mounted_device_is_refused(
    repository: Repository, point: RestorePoint, device: Path, tmp_path: Path
) -> None:
    subprocess.run(["mke2fs", "-q", "-F", device], check=True)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", device, mounted], check=True)
    try:
        for options in (OVER, DiskOptions(force=True)):
            with pytest.raises(PermissionRefused, match="in use"):
                restore(repository, point, device, options)
        (mounted / "alive").write_text("yes")
    finally:
        subprocess.run(["umount", mounted], check=True)


@pytest.mark.parametrize("name", ["disk.raw", "disk.qcow2"])
def test_what_qemu_has_open_is_refused(
    repository: Repository, point: RestorePoint, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    form = "raw" if name.endswith("raw") else "qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", form, path, str(SIZE)], check=True)
    with QemuNbd(path, form, read_only=False), pytest.raises(PermissionRefused, match="in use"):
        restore(repository, point, path)
    restore(repository, point, path)
    compare_images(CONTENT, tmp_path / "expected.raw", path, form)


def test_a_device_takes_plain_bytes_only(repository: Repository, point: RestorePoint, device: Path) -> None:
    with pytest.raises(UsageError, match="plain bytes"):
        restore(repository, point, device, DiskOptions(force=True, format="qcow2"))


@pytest.mark.parametrize(
    ("name", "chosen", "expected"),
    [
        ("disk.vmdk", None, "vmdk"),
        ("disk.VHDX", None, "vhdx"),
        ("disk.vdi", None, "vdi"),
        ("disk.img", "qcow2", "qcow2"),
        ("disk.qcow2", "raw", "raw"),
    ],
)
def test_images_of_every_format(
    repository: Repository, point: RestorePoint, tmp_path: Path, name: str, chosen: str | None, expected: str
) -> None:
    path = tmp_path / name
    restore(repository, point, path, DiskOptions(format=chosen))

    compare_images(CONTENT, tmp_path / "expected.raw", path, expected)
    assert path.stat().st_blocks * 512 < SIZE * 3 / 4, "it is sparse"
    if expected != "raw":
        subprocess.run(["qemu-img", "check", "-q", "-f", expected, path], check=True)
    if expected == "vmdk":
        assert name.encode() in path.read_bytes()[: 64 * KIB], "its descriptor names it, not a temporary name"
        assert b"hotspare-partial" not in path.read_bytes()[: 64 * KIB]


@pytest.mark.parametrize("name", ["disk.raw", "disk.qcow2"])
def test_a_lost_connection_keeps_what_was_written(
    repository: Repository, point: RestorePoint, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name

    def lose_it(event: events.Event) -> None:
        if isinstance(event, events.Progress) and event.bytes_processed > 20 * CHUNK:
            raise StorageError("the store does not answer")

    with pytest.raises(StorageError, match="goes on from there"):
        restore_disks(repository, point, {"vda": path}, DiskOptions(), lose_it, Cancellation())
    assert not path.exists()

    written = restore(repository, point, path, DiskOptions())

    assert written.compared > 0
    assert written.written < 28 * CHUNK
    form = "raw" if name.endswith("raw") else "qcow2"
    compare_images(CONTENT, tmp_path / "expected.raw", path, form)
    assert list(tmp_path.glob(".*")) == []


def test_what_was_left_is_compared_not_trusted(
    repository: Repository, point: RestorePoint, tmp_path: Path
) -> None:
    folder = tmp_path / ".disk.raw.hotspare-partial"
    folder.mkdir()
    (folder / "disk.raw").write_bytes(random.Random(2).randbytes(SIZE))
    restore(repository, point, tmp_path / "disk.raw", DiskOptions())
    assert (tmp_path / "disk.raw").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["disk.raw", "disk.qcow2"])
def test_what_was_left_of_another_size_is_made_anew(
    repository: Repository, point: RestorePoint, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / f".{name}.hotspare-partial"
    folder.mkdir()
    (folder / name).write_bytes(b"rubbish")
    assert restore(repository, point, tmp_path / name, DiskOptions()).compared == 0
    form = "raw" if name.endswith("raw") else "qcow2"
    compare_images(CONTENT, tmp_path / "expected.raw", tmp_path / name, form)
