"""Whether an increment takes as long as what changed, whatever the disk's size.

The places that changed are known here because the benchmark itself changed them: they are handed over as a
platform's dirty bitmap would name them, but no hypervisor is asked, and what that takes is not in the times.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.disks import change_disk, make_long_disk, scattered_changes, warm
from benchmarks.measure import settle
from hotspare.backup.plan import plan_transfer
from hotspare.backup.transfer import TransferCounts, transfer_disk
from hotspare.block.extent import Extent
from hotspare.block.file import RawFile
from hotspare.repository.disk_map import DiskMap, chunk_count
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend

_PASSPHRASE = "correct horse battery staple"


@dataclass(slots=True)
class Increments:
    """Increments of two disks in which the same bytes changed.

    Attributes:
        sizes: bytes of the smaller and of the larger disk.
        changed: bytes that changed before each increment.
        full_seconds: how long the full backup of each disk took.
        seconds: how long each increment took, by disk.
        read: bytes that the last increment read, by disk: whole chunks.
    """

    sizes: tuple[int, int]
    changed: int
    full_seconds: list[float]
    seconds: tuple[list[float], list[float]]
    read: list[int]

    def ratio(self) -> float:
        """Give how many times longer the larger disk's increment took."""
        return statistics.median(self.seconds[1]) / statistics.median(self.seconds[0])


@dataclass(slots=True)
class _Protected:
    """A disk with a repository of its own, and the root of the map of its newest backup."""

    disk: Path
    repository: LocalBackend
    root: bytes | None = None

    def back_up(self, changes: list[Extent] | None) -> tuple[float, TransferCounts]:
        """Back up what changed, or everything: from opening the repository to all being durable."""
        started = time.monotonic()
        repository = Repository.open(self.repository, _PASSPHRASE)
        chunk_size = repository.config.chunk_size
        with RawFile.open(self.disk) as reader, repository.writer() as writer:
            parent = None
            if self.root is not None:
                parent = DiskMap(repository.reader().read, self.root, chunk_count(reader.size, chunk_size))
            extents = reader.extents(0, reader.size) if changes is None else iter(changes)
            plan = plan_transfer(extents, reader.size, chunk_size)
            self.root, counts = transfer_disk(
                reader, writer, plan, parent, chunk_size, lambda: None, lambda _: None
            )
            writer.flush()
        return time.monotonic() - started, counts


def measure_increments(
    donor: Path, folder: Path, sizes: tuple[int, int], changed: int, rounds: int, tell: Callable[[str], None]
) -> Increments:
    """Back two disks up in full, then change the same bytes of both and back these up, ``rounds`` times."""
    results = Increments(sizes, changed, [], ([], []), [0, 0])
    protected = []
    for size in sizes:
        tell(f"increments: a disk of {size >> 30} GiB, in full")
        one = _Protected(folder / f"{size >> 30}.raw", LocalBackend(folder / f"{size >> 30}.repository"))
        make_long_disk(one.disk, size, donor)
        Repository.create(one.repository, _PASSPHRASE)
        settle()
        results.full_seconds.append(one.back_up(None)[0])
        protected.append(one)
    for number in range(rounds):
        tell(f"increments: round {number + 1} of {rounds}")
        changes = scattered_changes(min(sizes), changed, seed=number)
        for which in (0, 1) if number % 2 else (1, 0):
            one = protected[which]
            change_disk(one.disk, changes, donor, seed=number)
            warm(one.disk)
            settle()
            seconds, counts = one.back_up(changes)
            results.seconds[which].append(seconds)
            results.read[which] = counts.read
    return results
