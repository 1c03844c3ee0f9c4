"""A file system that is written to, and copies of it as of one instant."""

import fcntl
import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hotspare.units import KIB, MIB
from tests.guest.unused import garbage
from tests.guest.unused.garbage import run

FICLONE = 0x40049409
"""The ioctl, from linux/fs.h."""


@contextmanager
def mounted(image: Path, kind: str, *options: str) -> Iterator[Path]:
    """Mount an image, and return only when the kernel has let go of it.

    After ``umount`` it may stay mounted in the mount namespace of a program that was started meanwhile.
    """
    with garbage.mounted(image, kind, *options) as root:
        yield root
    deadline = time.monotonic() + 30
    while run(["losetup", "--associated", str(image)]):
        assert time.monotonic() < deadline, f"{image} stays mounted"
        time.sleep(0.05)


class Writer:
    """Writes and deletes files in a thread of its own, flushing most, until it is told to stop."""

    def __init__(self, root: Path) -> None:
        self.flushed: dict[str, str] = {}
        """Name and SHA-256 of files that are on the disk for sure."""
        self.lock = threading.Lock()
        self._root = root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def snapshot(self) -> dict[str, str]:
        with self.lock:
            return dict(self.flushed)

    def _write(self) -> None:
        dice = random.Random(4)
        while not self._over.is_set():
            path = self._root / f"file{dice.randrange(150)}"
            with self.lock:
                self.flushed.pop(path.name, None)
            if dice.random() < 0.35:
                path.unlink(missing_ok=True)
                continue
            content = dice.randbytes(dice.randrange(1, 100 * KIB))
            with path.open("wb") as file:
                file.write(content)
                if dice.random() < 0.7:
                    file.flush()
                    os.fsync(file.fileno())
                    with self.lock:
                        self.flushed[path.name] = hashlib.sha256(content).hexdigest()


@contextmanager
def cloning(folder: Path) -> Iterator[Path]:
    """Give a folder in which files can be cloned at one instant, also those under a loop device."""
    outer = folder / "outer"
    with outer.open("xb") as file:
        file.truncate(2048 * MIB)
    run(["mkfs.xfs", "-q", "-m", "reflink=1", str(outer)])
    with mounted(outer, "xfs") as root:
        yield root


def clone(image: Path, name: str) -> Path:
    target = image.with_name(name)
    with image.open("rb") as source, target.open("wb") as copy:
        fcntl.ioctl(copy, FICLONE, source.fileno())
    return target
