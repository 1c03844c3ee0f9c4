"""Restore points mounted by FUSE, looked at by the programs of this host."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from dataclasses import replace
from pathlib import Path

import pytest

from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, RepositoryDamaged, TargetExists, UsageError
from hotspare.restore.mount import mount_files
from hotspare.restore.mount_tree import Points
from hotspare.units import MIB
from tests.guest.files.appliance_images import populate
from tests.guest.unused.garbage import FileFacts, facts_below, run
from tests.restore.folder_files import FolderFiles

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes devices and other people's files")

ALONE = """
import os, sys
from pathlib import Path
from hotspare.cancellation import cancelled_by_signals
from hotspare.restore.mount import mount_files
from tests.restore.folder_files import FolderFiles
before = os.getcwd()
with cancelled_by_signals() as cancellation:
    mount_files({"p": {"vda": lambda: FolderFiles(Path(sys.argv[1]))}}, Path(sys.argv[2]),
        cancellation=cancellation, warn=print, ready=lambda: print("ready", flush=True))
print("done", os.getcwd() == before, flush=True)
"""


class Mount:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        self.cancellation = Cancellation()
        self.failure: HotspareError | None = None


@contextmanager
def mounted(points: Points, folder: Path) -> Iterator[Mount]:
    folder.mkdir(exist_ok=True)
    mount = Mount(folder)
    ready = threading.Event()

    def serve() -> None:
        try:
            mount_files(
                points,
                folder,
                cancellation=mount.cancellation,
                warn=mount.warnings.append,
                ready=ready.set,
            )
        except HotspareError as error:
            mount.failure = error
            ready.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ready.wait(60)
        assert mount.failure is None, mount.failure
        yield mount
    finally:
        mount.cancellation.cancel()
        thread.join(60)
        alive = thread.is_alive()
        if folder.is_mount():
            subprocess.run(["umount", "-l", str(folder)], check=True)
        assert not alive


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "in").mkdir()
    (source / "file").write_bytes(b"content")
    (source / "secret").write_bytes(b"not for all")
    (source / "secret").chmod(0)
    return source


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def without_context(facts: dict[str, FileFacts]) -> dict[str, FileFacts]:
    """Leave out what a mount cannot have: allocation, times of change, and sizes of folders."""
    return {
        path: replace(each, blocks=0, changed=0, size=each.size if each.content else 0)
        for path, each in facts.items()
    }


@needs_root
def test_everything_is_as_it_is(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    populate(source)
    files = FolderFiles(source)
    with mounted({"p": {"vda1": lambda: files}}, tmp_path / "mount") as mount:
        assert names(mount.folder) == ["vda1"]
        shown = facts_below(mount.folder / "vda1")
        assert without_context(shown) == without_context(facts_below(source))
        same = [(mount.folder / "vda1" / name).stat().st_ino for name in ("big", "in/big-again")]
        assert same[0] == same[1]
        assert mount.warnings == []
    assert files.closed
    assert not files.met_another_thread
    assert names(tmp_path / "mount") == []


def test_points_and_volumes_are_folders(tmp_path: Path, source: Path) -> None:
    def broken() -> FolderFiles:
        raise AssertionError("nobody looked inside")

    points = {"monday": {"vda1": lambda: FolderFiles(source), "vg0/root": broken}, "today": {"vda1": broken}}
    with mounted(points, tmp_path / "mount") as mount:
        assert names(mount.folder) == ["monday", "today"]
        assert names(mount.folder / "monday") == ["vda1", "vg0"]
        assert (mount.folder / "monday" / "vda1" / "file").read_bytes() == b"content"
        with pytest.raises(FileNotFoundError):
            (mount.folder / "monday" / "none").stat()


def test_nothing_can_be_changed(tmp_path: Path, source: Path) -> None:
    with mounted({"p": {"vda": lambda: FolderFiles(source)}}, tmp_path / "mount") as mount:
        file = mount.folder / "vda" / "file"
        for change in (
            file.unlink,
            lambda: file.write_bytes(b""),
            lambda: file.chmod(0),
            (file.parent / "x").mkdir,
        ):
            with pytest.raises(OSError, match="Read-only file system"):
                change()
        options = run(["findmnt", "-no", "OPTIONS", str(mount.folder)])
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(options.strip().split(","))
        assert "allow_other" not in options
        assert "default_permissions" not in options
        # Whoever mounts may read, whatever the guest's permissions say.
        assert (mount.folder / "vda" / "secret").read_bytes() == b"not for all"


def test_a_damaged_repository_is_an_error_for_readers_and_a_warning_for_us(
    tmp_path: Path, source: Path
) -> None:
    files = FolderFiles(source)
    files.broken["/file"] = RepositoryDamaged("pack 7 is damaged")

    def unreadable() -> FolderFiles:
        raise RepositoryDamaged("the map of the disk is damaged")

    points = {"p": {"vda": lambda: files, "vdb": unreadable}}
    with mounted(points, tmp_path / "mount") as mount:
        for path in ("vda/file", "vdb/x"):
            with pytest.raises(OSError, match="Input/output error") as caught:
                (mount.folder / path).read_bytes()
            assert caught.value.errno == errno.EIO
        assert (mount.folder / "vda" / "secret").read_bytes() == b"not for all"
        assert mount.warnings == ["pack 7 is damaged.", "the map of the disk is damaged."]


def test_a_defect_of_ours_does_not_end_the_mount(tmp_path: Path, source: Path) -> None:
    files = FolderFiles(source)
    files.broken["/file"] = ZeroDivisionError("ours")
    with mounted({"p": {"vda": lambda: files}}, tmp_path / "mount") as mount:
        with pytest.raises(OSError, match="Input/output error"):
            (mount.folder / "vda" / "file").read_bytes()
        assert names(mount.folder / "vda")
        assert "defect of Hotspare" in mount.warnings[0]


def test_large_files_are_read_in_parallel_and_in_pieces(tmp_path: Path, source: Path) -> None:
    content = os.urandom(16 * MIB + 77)
    (source / "large").write_bytes(content)
    files = FolderFiles(source)
    with mounted({"p": {"vda": lambda: files}}, tmp_path / "mount") as mount:
        programs = [
            subprocess.Popen(["cmp", str(source / "large"), str(mount.folder / "vda" / "large")])
            for _ in range(3)
        ]
        assert [program.wait() for program in programs] == [0, 0, 0]
    assert sum(length for path, _, length in files.reads if path == "/large") < 2 * len(content)


def test_unmounting_from_outside_ends_it(tmp_path: Path, source: Path) -> None:
    with mounted({"p": {"vda": lambda: FolderFiles(source)}}, tmp_path / "mount") as mount:
        run(["umount", str(mount.folder)])
        assert eventually(lambda: "mount" not in {thread.name for thread in threading.enumerate()})


def test_somebody_who_still_uses_it_does_not_keep_it(tmp_path: Path, source: Path) -> None:
    (source / "large").write_bytes(bytes(100))
    with (
        mounted({"p": {"vda": lambda: FolderFiles(source)}}, tmp_path / "mount") as mount,
        (mount.folder / "vda" / "file").open("rb"),
    ):
        mount.cancellation.cancel()
        assert eventually(lambda: not mount.folder.is_mount())
    assert "still uses" in mount.warnings[0]


@pytest.mark.parametrize(("number", "library"), [(signal.SIGINT, "fuse"), (signal.SIGTERM, "fuse3")])
def test_signals_unmount(tmp_path: Path, source: Path, number: signal.Signals, library: str) -> None:
    if find_library(library) is None:
        pytest.skip(f"lib{library} is not installed")
    with alone(source, tmp_path / "mount", {"FUSE_LIBRARY_NAME": library}) as program:
        assert (tmp_path / "mount" / "vda" / "file").read_bytes() == b"content"
        program.send_signal(number)
        assert program.wait(60) == 0
        assert program.stdout is not None
        assert program.stdout.read() == b"done True\n"
        assert not (tmp_path / "mount").is_mount()


def test_what_a_kill_leaves_is_told(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "mount"
    with alone(source, folder) as program:
        program.kill()
        program.wait(60)
        try:
            with pytest.raises(TargetExists, match=r"whose program was killed.*umount -l"):
                mount_files({"p": {}}, folder, cancellation=Cancellation(), warn=print)
        finally:
            run(["umount", "-l", str(folder)])


def test_folders_that_cannot_be_mounted_at(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, error in (
        (tmp_path, TargetExists),
        (tmp_path / "file", UsageError),
        (tmp_path / "x", UsageError),
    ):
        with pytest.raises(error):
            mount_files({"p": {}}, path, cancellation=Cancellation(), warn=print)


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def alone(
    source: Path, folder: Path, variables: dict[str, str] | None = None
) -> "Iterator[subprocess.Popen[bytes]]":
    """Mount in a process of its own."""
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", ALONE, str(source), str(folder)],
        stdout=subprocess.PIPE,
        env=os.environ | (variables or {}),
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == b"ready\n"
            yield program
        finally:
            program.kill()
            program.wait()
            subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)
