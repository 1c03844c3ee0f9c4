"""Repositories for the tests of this folder."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import asdict

from hotspare import events
from hotspare.backup.content import store_content
from hotspare.backup.plan import plan_transfer
from hotspare.backup.transfer import transfer_disk
from hotspare.cancellation import Cancellation
from hotspare.platforms.platform import StateFile
from hotspare.repository.gc.collect import prune
from hotspare.repository.gc.report import PruneReport
from hotspare.repository.point import PointDisk, PointState, RestorePoint, new_point_id
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from hotspare.storage.served.client import ServedBackend
from hotspare.units import KIB
from tests.memory_disk import MemoryDisk
from tests.storage.servers import SERVE

PASSPHRASE = "correct horse battery staple"
CHUNK = 64 * KIB


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path / "repository")


@pytest.fixture
def repository(backend: LocalBackend) -> Repository:
    return Repository.create(backend, PASSPHRASE, chunk_size=CHUNK)


StorePoint = Callable[..., RestorePoint]


def store(
    repository: Repository,
    machine: str,
    *disks: bytes | bytearray,
    parent: RestorePoint | None = None,
    state: Sequence[StateFile] = (),
) -> RestorePoint:
    """Store in-memory disks as a point, the way a full backup does, or upon a point of the same disks."""
    stored = []
    with repository.writer() as writer:
        for number, data in enumerate(disks):
            disk = MemoryDisk(data)
            plan = plan_transfer(disk.extents(0, disk.size), disk.size, CHUNK)
            parent_map = repository.disk(parent.disks[number]).map if parent else None
            root, counts = transfer_disk(disk, writer, plan, parent_map, CHUNK, lambda: None, lambda _: None)
            stored.append(
                PointDisk(
                    name=f"vd{'abc'[number]}",
                    size=disk.size,
                    root=root,
                    mode="full",
                    bytes_read=counts.read,
                    bytes_new=counts.new,
                    bytes_stored=counts.stored,
                )
            )
        pieces = tuple(
            PointState(**asdict(store_content(repository, writer, one.name, one.content, None)))
            for one in state
        )
        writer.flush()
        now = datetime.now(UTC)
        point = RestorePoint(
            id=new_point_id(now),
            machine_id=f"id of {machine}",
            machine_name=machine,
            platform="test:",
            started_at=now,
            finished_at=now,
            consistency="crash",
            disks=tuple(stored),
            state=pieces,
            machine={},
            session=writer.session_id,
        )
        writer.publish(point)
    return point


@pytest.fixture
def store_point() -> StorePoint:
    return store


@pytest.fixture
def client(repository: Repository, tmp_path: Path) -> Iterator[ServedBackend]:
    """The repository as an append-only key shows it."""
    folder = str(tmp_path / "repository")
    client = ServedBackend.over("pipe", [*SERVE, "--append-only", folder], folder)
    yield client
    client.close()


def content(backend: LocalBackend, point: RestorePoint) -> bytes:
    reading = Repository.open(backend, PASSPHRASE)
    buffer = bytearray(point.disks[0].size)
    reading.disk(point.disks[0]).read_into(0, memoryview(buffer))
    return bytes(buffer)


def collect_all(backend: LocalBackend, *, expel_after: float = 0.2) -> PruneReport:
    """Collect garbage on the server itself."""
    opened = Repository.open(backend, PASSPHRASE)
    return prune(opened, events.ignore, Cancellation(), keep_waste=0, expel_after=expel_after)
