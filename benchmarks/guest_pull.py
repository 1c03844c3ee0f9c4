"""How fast a machine's disk is pulled, beside nbdcopy from the same export into nothing."""

import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import settle
from hotspare.backup.paced_reading import ReadInto, paced_reading
from hotspare.backup.plan import TransferPlan, plan_transfer
from hotspare.backup.transfer import transfer_disk
from hotspare.block.device import BlockReader
from hotspare.block.pipeline import WORKERS, ordered_map
from hotspare.cancellation import Cancellation
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.libvirt.snapshot import job_socket
from hotspare.platforms.platform import Snapshot, SnapshotRequest
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from hotspare.units import MIB
from lab import DiskSpec, LabGuest

NBDCOPY, NBDCOPY_ONE = "nbdcopy", "nbdcopy, one connection"
READ, BACKUP = "hotspare, reading alone", "hotspare, everything known"
_DISK = "vdb"
_STRIPE = 4 * MIB


@dataclass(slots=True)
class Pull:
    """One way to read the disk; an entry of MiB/s for each round."""

    speeds: list[float] = field(default_factory=list)


def measure_pull(
    disk: Path, size: int, folder: Path, rounds: int, tell: Callable[[str], None]
) -> dict[str, Pull]:
    """Read the second disk of a running, idle machine in each way, in turn, all in one backup job."""
    results = {name: Pull() for name in (NBDCOPY, NBDCOPY_ONE, READ, BACKUP)}
    repository = Repository.create(LocalBackend(folder / "pull"), "correct horse battery staple")
    specs = [DiskSpec(size=64 * MIB), DiskSpec(size=size, content=disk)]
    with (
        LabGuest.create("bench-pull", disks=specs) as guest,
        closing(LibvirtPlatform("qemu:///system", scratch_folder=folder / "scratch")) as platform,
    ):
        guest.start().wait_ready()
        request = SnapshotRequest(point_id="bench", repository_id=repository.id, since={})
        machine = platform.inspect(guest.name)
        with (
            platform.open_snapshot(machine, request, Cancellation()) as snapshot,
            closing(snapshot.reader(_DISK)) as reader,
        ):
            plan = plan_transfer(reader.extents(0, reader.size), reader.size, repository.config.chunk_size)
            uri = f"nbd+unix:///{_DISK}?socket={job_socket(guest.domain)}"
            _back_up(repository, snapshot, reader, plan)  # from now on everything is known
            ways: dict[str, Callable[[], int]] = {
                NBDCOPY: lambda: _nbdcopy(uri, size),
                NBDCOPY_ONE: lambda: _nbdcopy(uri, size, "--connections=1"),
                READ: lambda: _read(snapshot, reader, plan, repository.config.chunk_size),
                BACKUP: lambda: _back_up(repository, snapshot, reader, plan),
            }
            for number in range(rounds):
                order = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]
                for name in order:
                    tell(f"pull: round {number + 1} of {rounds}, {name}")
                    settle()
                    began = time.monotonic()
                    count = ways[name]()
                    results[name].speeds.append(count / MIB / (time.monotonic() - began))
    return results


def _nbdcopy(uri: str, size: int, *options: str) -> int:
    subprocess.run(["nbdcopy", "--no-extents", *options, uri, "null:"], check=True)
    return size


def _read(snapshot: Snapshot, reader: BlockReader, plan: TransferPlan, chunk_size: int) -> int:
    """Read as a backup does, and do nothing with it."""
    stripes = (
        (first * chunk_size, min(_STRIPE, reader.size - first * chunk_size))
        for run in plan
        if not run.zero
        for first in range(run.first, run.first + run.chunks, _STRIPE // chunk_size)
    )
    with paced_reading(snapshot.guest_io, 2.0, None, Cancellation()) as (read_into, _held_back):
        workers = [_Reader(reader.clone(), read_into) for _ in range(WORKERS)]
        with closing(ordered_map(_Reader.read, stripes, workers)) as pieces:
            count = sum(pieces)
        for worker in workers:
            worker.reader.close()
    return count


@dataclass(slots=True)
class _Reader:
    reader: BlockReader
    read_into: ReadInto
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(_STRIPE)))

    def read(self, stripe: tuple[int, int]) -> int:
        offset, length = stripe
        self.read_into(self.reader, offset, self.buffer[:length])
        return length


def _back_up(repository: Repository, snapshot: Snapshot, reader: BlockReader, plan: TransferPlan) -> int:
    """Read, hash and look up everything; what is new is stored."""
    with (
        repository.writer() as writer,
        paced_reading(snapshot.guest_io, 2.0, None, Cancellation()) as (read_into, _held_back),
    ):
        _root, counts = transfer_disk(
            reader,
            writer,
            plan,
            None,
            repository.config.chunk_size,
            snapshot.check,
            lambda _counts: None,
            read_into=read_into,
        )
        writer.flush()
    return counts.read
