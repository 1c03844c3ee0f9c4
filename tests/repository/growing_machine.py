"""A disk that is backed up again and again, each time as an increment upon the last."""

import random

from hotspare.backup.plan import plan_transfer
from hotspare.backup.transfer import TransferCounts, transfer_disk
from hotspare.repository.disk_map import DiskMap
from hotspare.repository.point import PointDisk
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from tests.memory_disk import MemoryDisk
from tests.repository.conftest import CHUNK, PASSPHRASE

BLOCK = 4096


class Machine:
    """One disk that is backed up again and again, each time with a fresh look at the repository."""

    def __init__(self, backend: LocalBackend, content: bytes) -> None:
        self.backend = backend
        self.opened = Repository.open(backend, PASSPHRASE)
        self.content = bytearray(content)
        self.root: bytes | None = None

    def open(self) -> Repository:
        return Repository(self.backend, self.opened.config, self.opened.keyring)

    def disk(self, root: bytes) -> PointDisk:
        return PointDisk(name="vda", size=len(self.content), root=root, mode="full")

    def map(self) -> DiskMap:
        assert self.root is not None
        return self.open().disk(self.disk(self.root)).map

    def back_up(self, *, full: bool = False) -> TransferCounts:
        """Make an increment, or a full that is only compared with what was there."""
        repository = self.open()
        parent = repository.disk(self.disk(self.root)).map if self.root else None
        disk = MemoryDisk(self.content)
        plan = plan_transfer(disk.extents(0, disk.size), disk.size, CHUNK)
        with repository.writer() as writer:
            self.root, counts = transfer_disk(
                disk,
                writer,
                plan,
                None if full else parent,
                CHUNK,
                lambda: None,
                lambda _: None,
                alike=parent if full else None,
            )
            writer.flush()
        return counts

    def overwrite(self, chunk: int, block: int, seed: int, blocks: int = 1) -> None:
        start = chunk * CHUNK + block * BLOCK
        self.content[start : start + blocks * BLOCK] = random.Random(seed).randbytes(blocks * BLOCK)

    def read(self) -> bytes:
        assert self.root is not None
        buffer = bytearray(len(self.content))
        self.open().disk(self.disk(self.root)).read_into(0, memoryview(buffer))
        return bytes(buffer)
