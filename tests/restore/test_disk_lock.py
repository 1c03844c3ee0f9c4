"""While a disk is written where it is, no QEMU can open it; and none is written that QEMU has open."""

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hotspare import events
from hotspare.block.qemu import QemuNbd
from hotspare.block.qemu_lock import UsedByQemuError, WriterLock, _any_locked, is_used_by_qemu
from hotspare.cancellation import Cancellation
from hotspare.errors import PermissionRefused
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.restore.disk import DiskOptions, restore_disks
from hotspare.storage.local import LocalBackend
from tests.repository.conftest import CHUNK, PASSPHRASE, store

SIZE = 200 * CHUNK
OVER = DiskOptions(differential=True)
OPENINGS: dict[str, list[str]] = {
    "writing": ["qemu-io", "-f", "raw", "-c", "write 0 512"],
    "reading": ["qemu-io", "-f", "raw", "-r", "-c", "read 0 512"],
    "reading what may change": ["qemu-io", "-f", "raw", "-r", "-U", "-c", "read 0 512"],
    "resizing": ["qemu-img", "resize", "-q", "-f", "raw"],
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    backend = LocalBackend(tmp_path_factory.mktemp("lock") / "repository")
    return Repository.create(backend, PASSPHRASE, chunk_size=CHUNK)


@pytest.fixture(scope="module")
def point(repository: Repository) -> RestorePoint:
    return store(repository, "web01", os.urandom(SIZE))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"\xaa" * SIZE)
    return path


@pytest.fixture
def device(file: Path) -> Iterator[Path]:
    command = ["losetup", "--find", "--show", str(file)]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield Path(made)
    finally:
        subprocess.run(["losetup", "--detach", made], check=True)


@pytest.fixture
def own_node(device: Path, tmp_path: Path) -> Path:
    """The same device by a node of one's own, as libvirt gives one to each machine."""
    path = tmp_path / "node"
    os.mknod(path, stat.S_IFBLK | 0o600, device.stat().st_rdev)
    return path


def restore(
    repository: Repository,
    point: RestorePoint,
    path: Path,
    *,
    options: DiskOptions = OVER,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Restore; ``meanwhile`` is called once, in the midst of it."""
    called = False

    def listen(event: events.Event) -> None:
        nonlocal called
        if isinstance(event, events.Progress) and event.bytes_processed < SIZE and not called:
            called = True
            meanwhile()

    restore_disks(repository, point, {"vda": path}, options, listen, Cancellation())
    assert called


def refusal(opening: str, path: Path) -> str:
    """Give what QEMU's program says against it; empty when it does it."""
    command = [*OPENINGS[opening], str(path)]
    if opening == "resizing":
        command.append(str(SIZE))
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    said = done.stdout + done.stderr
    return said if done.returncode or "lock" in said else ""


@pytest.mark.parametrize("opening", OPENINGS)
def test_qemu_cannot_open_what_is_being_written(
    repository: Repository, point: RestorePoint, file: Path, opening: str
) -> None:
    def open_it() -> None:
        assert "lock" in refusal(opening, file)

    restore(repository, point, file, meanwhile=open_it)
    assert refusal(opening, file) == ""


def test_the_locks_are_those_of_a_writer_that_lets_nobody_else(file: Path) -> None:
    """Of QEMU's permissions: consistent read, write, write unchanged, resize."""

    def locked() -> list[int]:
        with file.open("rb") as other:
            return [byte for byte in range(300) if _any_locked(other.fileno(), [byte])]

    lock = WriterLock(file)
    assert locked() == [100, 101, 200, 201, 202, 203]
    lock.close()
    lock.close()
    assert locked() == []


def test_neither_can_qemu_nor_the_kernel_a_device(
    repository: Repository, point: RestorePoint, device: Path
) -> None:
    def open_it() -> None:
        assert "lock" in refusal("writing", device)
        with pytest.raises(OSError, match="busy") as busy:
            os.open(device, os.O_RDONLY | os.O_EXCL)  # as mounting it does
        assert busy.value.errno == errno.EBUSY

    restore(repository, point, device, options=DiskOptions(force=True), meanwhile=open_it)
    os.close(os.open(device, os.O_RDONLY | os.O_EXCL))


@pytest.mark.parametrize("read_only", [True, False])
def test_what_qemu_has_open_is_not_written(
    repository: Repository, point: RestorePoint, file: Path, read_only: bool
) -> None:
    """Not even what it only reads, and lets others write to, as a backup of a machine that is off does."""
    with (
        QemuNbd(file, "raw", read_only=read_only, force_share=read_only),
        pytest.raises(PermissionRefused, match="in use by QEMU"),
    ):
        restore(repository, point, file)
    assert file.read_bytes() == b"\xaa" * SIZE


@pytest.mark.parametrize("options", [OVER, DiskOptions(force=True)], ids=["differential", "force"])
def test_a_device_that_a_machine_has_open_by_a_node_of_its_own(
    repository: Repository,
    point: RestorePoint,
    file: Path,
    device: Path,
    own_node: Path,
    options: DiskOptions,
) -> None:
    with QemuNbd(own_node, "raw", read_only=False):
        assert is_used_by_qemu(device)
        with pytest.raises(UsedByQemuError):
            WriterLock(device)
        with pytest.raises(PermissionRefused, match="in use by QEMU"):
            restore(repository, point, device, options=options)
    assert not is_used_by_qemu(device)
    assert file.read_bytes() == b"\xaa" * SIZE


def test_a_machine_started_upon_a_device_meanwhile_ends_the_restore(
    repository: Repository,
    point: RestorePoint,
    device: Path,
    own_node: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hotspare.restore.disk._WATCH_SECONDS", 0.0)
    told = []
    with ExitStack() as machine:

        def start_it(event: events.Event) -> None:
            if isinstance(event, events.Progress):
                told.append(event)
                machine.enter_context(QemuNbd(own_node, "raw", read_only=False))

        with pytest.raises(PermissionRefused, match="while it was restored"):
            restore_disks(repository, point, {"vda": device}, OVER, start_it, Cancellation())
    assert len(told) == 1
