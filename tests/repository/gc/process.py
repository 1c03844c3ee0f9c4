"""A writer, collector or copier in a process of its own, to be killed.

``python -m ... URL write SEED``, ``URL prune`` or ``URL copy TARGET_URL``
"""

import random
import sys
from contextlib import suppress

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError
from hotspare.repository.copy import copy_points
from hotspare.repository.gc.collect import prune
from hotspare.repository.repository import Repository
from hotspare.storage.registry import open_backend
from tests.repository.conftest import CHUNK, PASSPHRASE, store

EXPEL_AFTER = 1.0
"""Seconds. So short that live runs are given up as well: then they fail, and try again."""
POINTS_KEPT = 4


def content(seed: int) -> bytes:
    """Give a disk whose chunks other seeds share in part."""
    source = random.Random(seed)
    pool = [random.Random(number).randbytes(CHUNK) for number in range(12)]
    return b"".join(source.choice(pool) for _ in range(8)) + source.randbytes(CHUNK)


def main(url: str, work: str, argument: str = "") -> None:
    """Work until killed; say what is done."""
    repository = Repository.open(open_backend(url), PASSPHRASE)
    if work == "write":
        _write(repository, int(argument))
    elif work == "prune":
        _prune(repository)
    else:
        _copy(repository, Repository.open(open_backend(argument), PASSPHRASE))


def _write(repository: Repository, seed: int) -> None:
    while True:
        with suppress(HotspareError):
            point = store(repository, f"machine{seed}", content(seed))
            print("stored", point.id, seed, flush=True)
            seed += 1000


def _prune(repository: Repository) -> None:
    while True:
        with suppress(HotspareError):
            for point in repository.points()[:-POINTS_KEPT]:
                print("forget", point.id, flush=True)
                repository.forget(point)
            prune(repository, events.ignore, Cancellation(), keep_waste=0, expel_after=EXPEL_AFTER)


def _copy(source: Repository, target: Repository) -> None:
    while True:
        with suppress(HotspareError):
            for point in source.points():
                report = copy_points(source, target, [point], events.ignore, Cancellation())
                for copied in report.copied:
                    print("stored", copied.id, copied.machine_name.removeprefix("machine"), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
