"""A disk whose power can be cut: a file system in a file, of which a copy shows what was written by then.

The file lies on an xfs file system, where a reflink copies it in one step between two writes of the loop
device. What the inner file system still has in memory is not in the copy, as after a power cut; what the copy
holds more than a disk would is what a disk keeps in its own cache until it is told to flush.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_OUTER_SIZE = "4G"
_SIZE = "512M"
_MOUNT_OPTIONS = {"ext4": "loop", "xfs": "loop,nouuid"}
FILE_SYSTEMS = tuple(_MOUNT_OPTIONS)


class PowerCutDisk:
    """A mounted file system, at ``folder``."""

    def __init__(self, base: Path, file_system: str) -> None:
        self.folder = base / "mounted"
        self._image = base / "outer" / "disk"
        self._options = _MOUNT_OPTIONS[file_system]
        self._base = base
        _run("truncate", f"--size={_SIZE}", self._image)
        _run(f"mkfs.{file_system}", "-q", self._image)

    @contextmanager
    def mounted(self) -> Iterator[None]:
        with _mounted(self._image, self.folder, self._options):
            yield

    def settle(self) -> None:
        """Write out all there is."""
        _run("sync", "--file-system", self.folder)

    def cut(self) -> Path:
        """Give an image of what would be there if the power had gone now."""
        copy = self._image.with_name("copy")
        copy.unlink(missing_ok=True)
        _run("cp", "--reflink=always", self._image, copy)
        return copy

    @contextmanager
    def restarted(self, copy: Path) -> Iterator[Path]:
        """Mount such an image, which makes the file system recover, and give the folder."""
        folder = self._base / "restarted"
        with _mounted(copy, folder, self._options):
            yield folder


@contextmanager
def power_cut_disk(base: Path, file_system: str) -> Iterator[PowerCutDisk]:
    """Make a disk with a file system, and mount it."""
    with ExitStack() as stack:
        outer = base / "outer.xfs"
        _run("truncate", f"--size={_OUTER_SIZE}", outer)
        _run("mkfs.xfs", "-q", "-m", "reflink=1", outer)
        stack.enter_context(_mounted(outer, base / "outer", "loop"))
        disk = PowerCutDisk(base, file_system)
        stack.enter_context(disk.mounted())
        yield disk


@contextmanager
def _mounted(image: Path, folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    _run("mount", "-o", options, image, folder)
    try:
        yield
    finally:
        _unmount(folder)


def _unmount(folder: Path) -> None:
    """Unmount; a loop device below may still be looked at by who watches for new devices."""
    deadline = time.monotonic() + 60
    while subprocess.run(["umount", folder], check=False, capture_output=True).returncode:
        assert time.monotonic() < deadline, f"{folder} stays busy"
        time.sleep(0.05)


def _run(*words: str | Path) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)
