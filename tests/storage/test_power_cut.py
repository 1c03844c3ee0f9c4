"""The power goes at any moment: every restore point that was reported before is whole afterwards."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from hotspare.errors import HotspareError
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from tests.repository.conftest import CHUNK, PASSPHRASE
from tests.repository.gc.workers import Worker, lost_of
from tests.storage.power_cut import FILE_SYSTEMS, PowerCutDisk, power_cut_disk

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]  # to mount takes root

CUTS = int(os.environ.get("POWER_CUTS", "3"))
_WITHOUT_SYNC = "import os; os.fsync = os.fdatasync = lambda file: None; "


class Work:
    """Writers and a collector at one repository."""

    def __init__(self, writers: list[Worker], collector: Worker) -> None:
        self._writers = writers
        self._collector = collector

    def stored(self) -> dict[str, int]:
        return {point: seed for writer in self._writers for point, seed in writer.stored().items()}

    def forgotten(self) -> set[str]:
        return self._collector.forgotten()

    def go_on(self) -> None:
        """Return when more points are reported by each."""
        for writer in self._writers:
            writer.waits_for(len(writer.stored()) + 1)


@contextmanager
def work_at(folder: Path, before: str = "") -> Iterator[Work]:
    with ExitStack() as stack:

        def start(*words: str) -> Worker:
            worker = Worker(str(folder), *words, before=before)
            stack.callback(worker.kill)
            return worker

        yield Work([start("write", "1"), start("write", "2")], start("prune"))


def lost_in_a_cut(disk: PowerCutDisk, work: Work) -> list[str]:
    """Cut the power once; gives what is lost of the points that had been reported."""
    work.go_on()
    reported = work.stored()
    image = disk.cut()
    expected = {point: seed for point, seed in reported.items() if point not in work.forgotten()}
    with disk.restarted(image) as folder:
        return lost_in(folder / "repository", expected)


def lost_in(folder: Path, expected: dict[str, int]) -> list[str]:
    try:
        repository = Repository.open(LocalBackend(folder), PASSPHRASE)
    except HotspareError as error:
        return [error.what]
    return lost_of(repository, expected)


@contextmanager
def repository_on(tmp_path: Path, file_system: str) -> Iterator[tuple[PowerCutDisk, Path]]:
    with power_cut_disk(tmp_path, file_system) as disk:
        folder = disk.folder / "repository"
        Repository.create(LocalBackend(folder), PASSPHRASE, chunk_size=CHUNK).close()
        yield disk, folder


@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
def test_a_power_cut_loses_no_point_that_was_reported(tmp_path: Path, file_system: str) -> None:
    with repository_on(tmp_path, file_system) as (disk, folder), work_at(folder) as work:
        for _ in range(CUTS):
            assert lost_in_a_cut(disk, work) == []


def test_this_test_notices_what_is_not_synced(tmp_path: Path) -> None:
    with repository_on(tmp_path, "ext4") as (disk, folder):
        disk.settle()
        with work_at(folder, _WITHOUT_SYNC) as work:
            assert lost_in_a_cut(disk, work) != []
