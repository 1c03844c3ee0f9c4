"""How much faster a differential restore is than a full one: ``python -m benchmarks.differential``."""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from hotspare import events
from hotspare.backup.machine import backup_machine
from hotspare.backup.options import BackupOptions
from hotspare.cancellation import Cancellation
from hotspare.platforms.images.platform import ImagesPlatform
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.restore.disk import DiskOptions, restore_disks
from hotspare.storage.backend import Backend
from hotspare.storage.local import LocalBackend
from hotspare.storage.wrappers.throttle import ThrottledBackend, TokenBucket
from hotspare.units import MIB, format_bytes

_SIZE = 512
"""MiB, none of which compresses."""
_CHANGED = 8
"""MiB that differ, each in one piece, spread over the disk."""
_ROUNDS = 5
_GIGABIT = 110 * MIB
"""Bytes a second that 1 Gbit/s brings at best."""


def main() -> None:
    """Print the ratio for a repository on this host, and for one behind 1 Gbit/s."""
    with tempfile.TemporaryDirectory(prefix="hotspare-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        with (folder / "web.raw").open("wb") as image:
            for _ in range(_SIZE):
                image.write(os.urandom(MIB))
        local = LocalBackend(folder / "repository")
        repository = Repository.create(local, "benchmark")
        platform = ImagesPlatform.for_image(folder / "web.raw", "web")
        point = backup_machine(repository, platform, "web", BackupOptions(), events.ignore, Cancellation())
        throttled = ThrottledBackend(local, up=None, down=TokenBucket(_GIGABIT))
        backends: dict[str, Backend] = {"on this host": local, "behind 1 Gbit/s": throttled}
        for where, backend in backends.items():
            _compare(where, Repository.open(backend, "benchmark"), point, folder)


def _compare(where: str, repository: Repository, point: RestorePoint, folder: Path) -> None:
    ratios = []
    written = 0
    for _ in range(_ROUNDS):
        full, _all = _restore(repository, point, folder, DiskOptions(force=True))
        with (folder / "restored.raw").open("r+b") as disk:
            for number in range(_CHANGED):
                disk.seek(number * _SIZE // _CHANGED * MIB + MIB // 3)
                disk.write(os.urandom(MIB))
        seconds, written = _restore(repository, point, folder, DiskOptions(differential=True))
        ratios.append(full / seconds)
    sys.stdout.write(
        f"Repository {where}: {format_bytes(_SIZE * MIB)}, {format_bytes(written)} written as"
        f" {_CHANGED} MiB differ;"
        f" full / differential: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})\n"
    )


def _restore(
    repository: Repository, point: RestorePoint, folder: Path, options: DiskOptions
) -> tuple[float, int]:
    """Restore the disk with nothing in the page cache; give the seconds and the bytes written."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
    (disk,) = point.disks
    began = time.monotonic()
    done = restore_disks(
        repository, point, {disk.name: folder / "restored.raw"}, options, events.ignore, Cancellation()
    )
    return time.monotonic() - began, done[disk.name].written


if __name__ == "__main__":
    main()
