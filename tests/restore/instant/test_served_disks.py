"""Disks served from a repository: right bytes, read once, ahead of who reads on, and patient."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from hotspare.block.extent import ExtentKind
from hotspare.block.nbd.client import NbdClient
from hotspare.errors import HotspareError
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.restore.instant.served_disks import ServedDisks
from hotspare.storage.local import LocalBackend
from hotspare.units import KIB, MIB
from tests.repository.conftest import CHUNK, PASSPHRASE, store
from tests.watched_backend import WatchedBackend


class CountingBackend(WatchedBackend):
    """Counts how often something was read."""

    reads = 0

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self.reads += 1
        return super().get_range(name, offset, length)


FIRST = random.Random(1).randbytes(40 * CHUNK) + bytes(20 * CHUNK) + random.Random(2).randbytes(CHUNK + 512)
SECOND = FIRST[: 10 * CHUNK]


@pytest.fixture
def stored(tmp_path: Path) -> tuple[LocalBackend, RestorePoint]:
    backend = LocalBackend(tmp_path / "repository")
    made = Repository.create(backend, PASSPHRASE, chunk_size=CHUNK)
    return backend, store(made, "web", FIRST, SECOND)


@contextmanager
def served(
    stored: tuple[LocalBackend, RestorePoint], folder: Path, *, cache: int = 64 * MIB, patience: float = 10.0
) -> Iterator[tuple[ServedDisks, CountingBackend]]:
    watched = CountingBackend(stored[0])
    repository = Repository.open(watched, PASSPHRASE)
    with ServedDisks(repository, stored[1], folder / "s", cache_bytes=cache, patience=patience) as disks:
        yield disks, watched


def read(client: NbdClient, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    client.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def connect(disks: ServedDisks, name: str = "vda") -> NbdClient:
    return NbdClient.connect(disks.address, name)


def test_reads_what_was_stored(stored: tuple[LocalBackend, RestorePoint], tmp_path: Path) -> None:
    chance = random.Random(3)
    with served(stored, tmp_path) as (disks, _):
        for name, content in (("vda", FIRST), ("vdb", SECOND)):
            with closing(connect(disks, name)) as client:
                assert client.size == len(content)
                for _ in range(100):
                    offset = chance.randrange(len(content))
                    length = chance.randrange(1, min(3 * CHUNK, len(content) - offset) + 1)
                    assert read(client, offset, length) == content[offset : offset + length]
                assert read(client, 0, len(content)) == content


def test_says_what_are_holes(stored: tuple[LocalBackend, RestorePoint], tmp_path: Path) -> None:
    with served(stored, tmp_path) as (disks, _), closing(connect(disks)) as client:
        found = [(one.offset, one.length, one.kind) for one in client.extents(0, client.size)]
    assert found == [
        (0, 40 * CHUNK, ExtentKind.DATA),
        (40 * CHUNK, 20 * CHUNK, ExtentKind.ZERO),
        (60 * CHUNK, CHUNK + 512, ExtentKind.DATA),
    ]


def test_reads_each_chunk_once(stored: tuple[LocalBackend, RestorePoint], tmp_path: Path) -> None:
    with served(stored, tmp_path) as (disks, watched):
        clients = [connect(disks, name) for name in ("vda", "vdb", "vda")]
        threads = [
            threading.Thread(
                target=lambda client=client: [read(client, at, 512) for at in range(0, 10 * CHUNK, 512)]
            )
            for client in clients
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts = disks.counts
        before = watched.reads
        assert read(clients[0], 0, 4 * CHUNK) == FIRST[: 4 * CHUNK]
        assert watched.reads == before
        for client in clients:
            client.close()
    assert counts.fetched + counts.ahead <= 41 + 4  # what was ahead of the end, and pages of maps


def test_reads_ahead_only_of_who_reads_on(stored: tuple[LocalBackend, RestorePoint], tmp_path: Path) -> None:
    with served(stored, tmp_path) as (disks, _), closing(connect(disks)) as client:
        for chunk in (3, 17, 9, 31):
            read(client, chunk * CHUNK + 100, 4 * KIB)
        assert disks.counts.ahead == 0
        for at in range(20 * CHUNK, 23 * CHUNK, 4 * KIB):
            read(client, at, 4 * KIB)
        assert disks.counts.ahead >= 3


def test_keeps_no_more_than_it_may(stored: tuple[LocalBackend, RestorePoint], tmp_path: Path) -> None:
    repository = Repository.open(stored[0], PASSPHRASE)
    room = 64 * repository.chunk_size_max  # the least that is kept
    with served(stored, tmp_path, cache=1) as (disks, _), closing(connect(disks)) as client:
        for _ in range(2):
            assert read(client, 0, len(FIRST)) == FIRST
        assert 0 < disks.bytes_kept <= room


def test_waits_for_a_repository_that_is_away(
    stored: tuple[LocalBackend, RestorePoint], tmp_path: Path
) -> None:
    folder = stored[0].folder
    with served(stored, tmp_path) as (disks, _), closing(connect(disks)) as client:
        read(client, 0, 512)
        folder.rename(tmp_path / "away")
        back = threading.Timer(1.0, lambda: (tmp_path / "away").rename(folder))
        back.start()
        began = time.monotonic()
        assert read(client, 30 * CHUNK, CHUNK) == FIRST[30 * CHUNK : 31 * CHUNK]
        assert time.monotonic() - began > 0.9


def test_gives_an_error_and_never_other_bytes(
    stored: tuple[LocalBackend, RestorePoint], tmp_path: Path
) -> None:
    folder = stored[0].folder
    with served(stored, tmp_path, patience=0.3) as (disks, _), closing(connect(disks)) as client:
        read(client, 0, 512)
        folder.rename(tmp_path / "away")
        with pytest.raises(HotspareError):
            read(client, 30 * CHUNK, CHUNK)
        assert read(client, 0, 512) == FIRST[:512]  # that is kept
        (tmp_path / "away").rename(folder)
        assert read(client, 30 * CHUNK, CHUNK) == FIRST[30 * CHUNK : 31 * CHUNK]
        for pack in (folder / "data").rglob("*"):
            if pack.is_file():
                damaged = bytearray(pack.read_bytes())
                damaged[len(damaged) // 2] ^= 1
                pack.write_bytes(damaged)
        for chunk in range(10, 40):
            try:
                got = read(client, chunk * CHUNK, CHUNK)
            except HotspareError:
                continue
            assert got == FIRST[chunk * CHUNK : (chunk + 1) * CHUNK]
