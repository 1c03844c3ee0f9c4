"""Which points of a replica must stay because somebody reads them, or a backup goes on from them.

``holds/POINT.read-…`` is locked by who reads the point, for as long as that lives;
``holds/POINT.for-REPOSITORY`` says that the newest restore point in a repository was made of it. A point that
is removed is merged with the next one, so a reader would see a mixture.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hotspare.block.file import failure_of

_FOLDER = "holds"
_READ = ".read-"
_FOR = ".for-"
_FORGOTTEN_SECONDS = 14 * 86400
"""A repository that got no backup for so long holds nothing any more: the next backup reads in full."""


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let nobody hold points of a replica, or decide which are to be removed, while the block runs.

    Who removes a point takes it off the record in the block; merging its images may follow later.
    """
    try:
        (folder / _FOLDER).mkdir(exist_ok=True)
        lock = (folder / _FOLDER / "lock").open("w")
    except OSError as error:
        raise failure_of(folder / _FOLDER, "open", error) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def held_points(folder: Path) -> set[str]:
    """Give the ids of the points that are held; call it inside of ``only_one``."""
    held = set()
    for path in sorted((folder / _FOLDER).glob("*")):
        point, separator, _ = path.name.partition(_READ)
        if separator:
            if _is_alive(path):
                held.add(point)
            else:
                path.unlink(missing_ok=True)
            continue
        point, separator, _ = path.name.partition(_FOR)
        if separator and time.time() - path.stat().st_mtime < _FORGOTTEN_SECONDS:
            held.add(point)
    return held


def hold_for_reading(folder: Path, point: str) -> int:
    """Hold a point until the descriptor that this gives is closed; call it inside of ``only_one``."""
    try:
        lock, _ = tempfile.mkstemp(prefix=point + _READ, dir=folder / _FOLDER)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise failure_of(folder / _FOLDER, "write", error) from error
    return lock


def hold_for_repository(folder: Path, point: str, repository: str) -> None:
    """Hold the point that the newest restore point in a repository was made of, and no older one for it."""
    with only_one(folder):
        mine = folder / _FOLDER / f"{point}{_FOR}{repository}"
        try:
            mine.touch()
        except OSError as error:
            raise failure_of(mine, "write", error) from error
        for path in (folder / _FOLDER).glob(f"*{_FOR}{repository}"):
            if path != mine:
                path.unlink(missing_ok=True)


def _is_alive(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
