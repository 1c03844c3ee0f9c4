"""Serves the only point of a repository as instant recoveries do: ``python -m benchmarks.instant_server``."""

import signal
import sys
from pathlib import Path

from benchmarks.programs.program import PASSPHRASE
from hotspare.repository.repository import Repository
from hotspare.restore.instant.served_disks import ServedDisks
from hotspare.storage.registry import open_backend


def _serve(repository: str, socket: str) -> None:
    opened = Repository.open(open_backend(repository), PASSPHRASE)
    (point,) = opened.points()
    with ServedDisks(opened, point, Path(socket)):
        signal.pause()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
