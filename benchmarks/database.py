"""A disk with a real PostgreSQL on it, before and after a thousand transactions."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard

from hotspare.units import KIB, MIB

TRANSACTIONS = 1000
_BLOCK = 4 * KIB
_STEP = 8 * MIB
_AS_POSTGRES = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")


@dataclass(frozen=True, slots=True)
class Transactions:
    """What the transactions changed on the disk.

    Attributes:
        blocks: how many blocks of 4 KiB.
        one_by_one: bytes of them as zstd level 1, each block by itself.
        as_stream: bytes of them as zstd level 1, all together.
    """

    blocks: int
    one_by_one: int
    as_stream: int


def make_database(disk: Path, scale: int) -> None:
    """Make a PostgreSQL cluster within the ext4 file system of ``disk``, with pgbench's tables.

    They take 15 MiB for each unit of ``scale``.
    """
    with _mounted(disk) as root:
        cluster = root / "var-lib-postgresql"
        cluster.mkdir()
        shutil.chown(cluster, "postgres", "postgres")
        _run(*_AS_POSTGRES, _program("initdb"), "--pgdata", cluster)
        with _started(cluster) as socket:
            _run(*_AS_POSTGRES, _program("createdb"), "--host", socket, "bench")
            initialise = ["--initialize", "--quiet", "--scale", str(scale)]
            _run(*_AS_POSTGRES, _program("pgbench"), "--host", socket, *initialise, "bench")


def run_transactions(disk: Path) -> None:
    """Run the transactions on that database, and shut it down."""
    with _mounted(disk) as root, _started(root / "var-lib-postgresql") as socket:
        work = ["--client", "2", "--transactions", str(TRANSACTIONS // 2), "--no-vacuum"]
        _run(*_AS_POSTGRES, _program("pgbench"), "--host", socket, *work, "bench")


def compare_disks(before: Path, after: Path) -> Transactions:
    """Count and compress the blocks in which two images differ."""
    single, together = zstandard.ZstdCompressor(level=1), zstandard.ZstdCompressor(level=1).compressobj()
    blocks = one_by_one = as_stream = 0
    with before.open("rb") as old_file, after.open("rb") as new_file:
        while new := new_file.read(_STEP):
            old = old_file.read(_STEP)
            if old == new:
                continue
            pairs = [np.frombuffer(each, dtype=np.uint64).reshape(-1, _BLOCK // 8) for each in (old, new)]
            for at in np.flatnonzero((pairs[0] != pairs[1]).any(axis=1)).tolist():
                block = new[at * _BLOCK : (at + 1) * _BLOCK]
                blocks += 1
                one_by_one += len(single.compress(block))
                as_stream += len(together.compress(block))
    return Transactions(blocks, one_by_one, as_stream + len(together.flush()))


@contextmanager
def _mounted(disk: Path) -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="hotspare-bench-disk-"))
    try:
        _run("mount", "-o", "loop", disk, root)
        try:
            yield root
        finally:
            _run("umount", root)
    finally:
        root.rmdir()


@contextmanager
def _started(cluster: Path) -> Iterator[Path]:
    """Run the server, reached by a socket in the folder that is given."""
    socket = Path(tempfile.mkdtemp(prefix="hotspare-bench-pg-"))
    try:
        shutil.chown(socket, "postgres", "postgres")
        control: list[str | Path] = [*_AS_POSTGRES, _program("pg_ctl"), "--pgdata", cluster, "--wait"]
        options: list[str | Path] = [
            "--log",
            socket / "log",
            "--options",
            f"-c listen_addresses= -c max_wal_size=128MB -k {socket}",
        ]
        _run(*control, *options, "start")
        try:
            yield socket
        finally:
            _run(*control, "--mode", "fast", "stop")
    finally:
        shutil.rmtree(socket)


def _program(name: str) -> Path:
    """Find a program of the newest PostgreSQL; Debian keeps most of them out of the PATH."""
    return max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/")
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr}")
