"""Random reads of a disk through the server of instant recoveries, beside others with the same bytes."""

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.disks import make_disk
from benchmarks.instant_starts import empty_page_cache
from benchmarks.programs.hotspare import Hotspare
from benchmarks.programs.program import PEERS
from benchmarks.programs.restic import Restic
from hotspare.block.nbd.client import NbdClient
from hotspare.errors import HotspareError
from hotspare.units import KIB

OURS, QEMU, RESTIC = "hotspare", "qemu-nbd over a raw file", "restic mount and qemu-nbd"
SIZES = (4 * KIB, 64 * KIB)
READS = 1000
_PATIENCE = 60.0

_Serve = Callable[[Path], AbstractContextManager[str]]
"""Serves the disk at a socket while the block runs, and gives the export's name."""


@dataclass(slots=True)
class Reads:
    """Of one server: seconds of a read (the median), by its size; an entry for each round."""

    cold: dict[int, list[float]] = field(default_factory=lambda: {size: [] for size in SIZES})
    """The server has just been started, and the page cache is empty."""
    warm: dict[int, list[float]] = field(default_factory=lambda: {size: [] for size in SIZES})
    """The same places once more."""


def measure_reads(folder: Path, size: int, rounds: int, tell: Callable[[str], None]) -> dict[str, Reads]:
    """Read at random places of a disk of this host's files, one read after the other, by the same client.

    Args:
        folder: made for the disk and the repositories.
        size: bytes of the disk.
        rounds: how often.
        tell: told what is going on.
    """
    folder.mkdir()
    disk = folder / "disk.raw"
    tell("reads: making the disk of this host's files, and its backups")
    make_disk(disk, size, size * 8 // 10)
    servers: dict[str, _Serve] = {OURS: _ours(folder, disk), QEMU: lambda socket: _qemu_nbd(socket, disk)}
    if (PEERS / "restic").exists():
        servers[RESTIC] = _restic(folder, disk)
    results = {name: Reads() for name in servers}
    names = list(servers)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            tell(f"reads: round {number + 1} of {rounds}, {name}")
            for length in SIZES:
                _measure(servers[name], folder / "socket", results[name], length, number)
    return results


def _measure(serve: _Serve, socket: Path, reads: Reads, length: int, seed: int) -> None:
    empty_page_cache()
    with serve(socket) as export, closing(_connect(socket, export)) as client:
        chance = random.Random(seed)
        places = [chance.randrange(client.size // length) * length for _ in range(READS)]
        reads.cold[length].append(_read(client, places, length))
        reads.warm[length].append(_read(client, places, length))


def _read(client: NbdClient, places: list[int], length: int) -> float:
    buffer = memoryview(bytearray(length))
    took = []
    for place in places:
        began = time.perf_counter()
        client.read_into(place, buffer)
        took.append(time.perf_counter() - began)
    return statistics.mean(took)


def _connect(socket: Path, export: str) -> NbdClient:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return NbdClient.connect(socket, export)
        except HotspareError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _ours(folder: Path, disk: Path) -> _Serve:
    program = Hotspare(folder / "programs")
    program.start_over()
    program.back_up(disk)

    def serve(socket: Path) -> AbstractContextManager[str]:
        server = (sys.executable, "-m", "benchmarks.instant_server")
        return _running(socket, "disk0", *server, program.repository, socket)

    return serve


def _qemu_nbd(socket: Path, disk: Path) -> AbstractContextManager[str]:
    return _running(socket, "", "qemu-nbd", "-r", "-t", "-e", "8", "-f", "raw", "-k", socket, disk)


def _restic(folder: Path, disk: Path) -> _Serve:
    program = Restic(folder / "programs")
    program.start_over()
    program.back_up(disk)
    mounted = folder / "mounted"
    mounted.mkdir()

    @contextmanager
    def serve(socket: Path) -> Iterator[str]:
        environment = {**os.environ, **program.environment()}
        mount = subprocess.Popen(
            [PEERS / "restic", "--quiet", "mount", mounted], stdout=subprocess.DEVNULL, env=environment
        )
        try:
            image = mounted / "snapshots" / "latest" / disk.relative_to("/")
            deadline = time.monotonic() + _PATIENCE
            while not image.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            with _qemu_nbd(socket, image) as export:
                yield export
        finally:
            mount.terminate()
            mount.wait()

    return serve


@contextmanager
def _running(socket: Path, export: str, *command: str | Path) -> Iterator[str]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield export
    finally:
        process.terminate()
        process.wait()
        socket.unlink(missing_ok=True)
