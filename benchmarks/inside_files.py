"""How quickly files are listed and fetched out of restore points."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import Cost, settle
from benchmarks.programs import Bucket, Hotspare
from hotspare.storage.registry import open_backend
from hotspare.units import GIB, KIB, MIB
from tests.guest.unused.garbage import mounted
from tests.storage.servers import KEY, SECRET, Seaweed

FILES = 100_000
_PER_FOLDER = 100
LARGE_DISK = 20 * GIB
WANTED = 200 * MIB
_OTHER = 1 * GIB
_PROGRAM = Path(sys.executable).parent / "hotspare"


class Listing(NamedTuple):
    """Whole processes."""

    first: list[Cost]
    """The root folder."""
    walk: list[Cost]
    """Every name, with size and time."""
    found: int


class Fetching(NamedTuple):
    """Seconds for ``WANTED`` bytes."""

    store: list[float]
    """One GET of an object of that size, from the same store."""
    file: list[float]
    """The file, by a whole process."""


def measure_listing(folder: Path, rounds: int, tell: Callable[[str], None]) -> Listing:
    """List the files of an ext4 disk in a restore point on this host."""
    tell(f"making a disk with {FILES} files")
    disk = _disk_of_many_files(folder)
    program = Hotspare(folder / "listing")
    program.start_over()
    program.back_up(disk)
    first, walk, found = [], [], 0
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}: listing")
        settle()
        first.append(program.run(_PROGRAM, "files", "ls", "bench", "/"))
        settle()
        walk.append(program.run(_PROGRAM, "files", "find", "*", "bench", "-o", "json"))
        # What is said on standard error is in the log too.
        said = program.log.read_text()
        document, _ = json.JSONDecoder().raw_decode(said, said.index("{\n"))
        found = len(document["files"])
    program.clear()
    disk.unlink()
    return Listing(first, walk, found)


def measure_fetching(folder: Path, rounds: int, tell: Callable[[str], None]) -> Fetching:
    """Fetch a file out of a restore point on a real S3 server of this host."""
    tell("making a disk of 20 GiB with one large file among others")
    disk = _large_disk(folder)
    server = Seaweed(folder / "s3")
    server.up()
    try:
        bucket = Bucket(f"127.0.0.1:{server.port}", "plain", KEY, SECRET)
        program = Hotspare(folder / "fetching", bucket)
        program.start_over()
        program.back_up(disk)
        environment = {**os.environ, **program.environment()}
        store = open_backend(f"s3:http://{bucket.server}/{bucket.name}/object", environment)
        store.put("object", [os.urandom(WANTED)])
        measured = Fetching([], [])
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}: fetching")
            settle()
            began = time.monotonic()
            assert len(store.get("object")) == WANTED
            measured.store.append(time.monotonic() - began)
            settle()
            shutil.rmtree(program.folder / "state" / "cache", ignore_errors=True)
            began = time.monotonic()
            subprocess.run(
                [_PROGRAM, "files", "cat", "bench", "/wanted"],
                check=True,
                stdout=subprocess.DEVNULL,
                env=environment,
            )
            measured.file.append(time.monotonic() - began)
        store.close()
        return measured
    finally:
        server.stop()
        disk.unlink()


def _disk_of_many_files(folder: Path) -> Path:
    stage, disk = folder / "many", folder / "many.raw"
    for number in range(0, FILES, _PER_FOLDER):
        below = stage / f"folder{number // _PER_FOLDER:04d}"
        below.mkdir(parents=True)
        for name in range(number, number + _PER_FOLDER):
            (below / f"file{name:06d}.txt").write_bytes(b"x" * (name % 64))
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-N", str(FILES * 11 // 10), "-d", stage, disk, f"{GIB // KIB}k"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(stage)
    return disk


def _large_disk(folder: Path) -> Path:
    disk = folder / "large.raw"
    with disk.open("wb") as file:
        file.truncate(LARGE_DISK)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", disk], check=True)
    with mounted(disk, "ext4") as root:
        for number in range(_OTHER // (64 * MIB)):
            (root / f"other{number}").write_bytes(os.urandom(64 * MIB))
        (root / "wanted").write_bytes(os.urandom(WANTED))
    return disk
