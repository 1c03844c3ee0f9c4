"""Reading back what restore points are made of, and comparing each chunk with its id."""

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from hotspare import events
from hotspare.block.pipeline import WORKERS, ordered_map
from hotspare.cancellation import Cancellation
from hotspare.errors import RepositoryDamaged, StorageError
from hotspare.repository.format import CHUNK_ID_SIZE, PAGE_IDS
from hotspare.repository.point import RestorePoint
from hotspare.repository.reader import ChunkReader
from hotspare.repository.repository import Repository
from hotspare.repository.survey import Problem, Survey, slots_of

_BATCH = 32
"""Chunks that one worker reads at a time."""


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was read, and what is wrong."""

    points: int
    chunks: int
    bytes: int
    """Plaintext bytes that were read back; a chunk that many points share counts once."""
    problems: list[Problem]


def verify_points(
    repository: Repository,
    points: list[RestorePoint],
    listener: events.Listener,
    cancellation: Cancellation,
) -> VerifyReport:
    """Read, decipher, decompress and hash every chunk of the points once.

    Raises:
        RepositoryDamaged: an index segment cannot be used, so that nothing can be said.
        Interrupted: ``cancellation`` was requested.
    """
    listener(events.PhaseStarted("repository", "verify"))
    index = repository.index()
    verified = np.zeros(len(index), dtype=np.bool_)
    survey = Survey(repository, points)
    verifier = _Verifier(repository, survey)
    page_span = PAGE_IDS * repository.config.chunk_size
    for point, disk, disk_map in survey.disks():
        name = f"{point.machine_name}@{point.id}"
        listener(events.DiskStarted(name, disk.name, disk.size, disk.size, "verify"))
        for number, page_id, chunk_ids in survey.new_pages(disk_map):
            cancellation.check()
            if len(index) > len(verified):  # a reader found the index to be old, and read on in it
                verified = np.append(verified, np.zeros(len(index) - len(verified), dtype=np.bool_))
            positions = index.positions(chunk_ids)
            known = positions >= 0
            new = ~known
            new[known] = ~verified[positions[known]]
            verified[positions[known]] = True
            damaged = verifier.verify(_select(chunk_ids, new), page_id, disk_map.leaf(number))
            # Whoever else needs a damaged chunk must meet it again, to be named as well.
            positions = index.positions(b"".join(damaged))
            verified[positions[(positions >= 0) & (positions < len(verified))]] = False
            done = min((number + 1) * page_span, disk.size)
            listener(events.Progress(name, disk.name, done, verifier.bytes))
        listener(events.Progress(name, disk.name, disk.size, verifier.bytes))
        listener(events.DiskFinished(name, disk.name))
    return VerifyReport(
        points=len(points), chunks=verifier.chunks, bytes=verifier.bytes, problems=survey.problems()
    )


class _BadChunk(NamedTuple):
    chunk_id: bytes
    object: str
    detail: str


class _Verifier:
    def __init__(self, repository: Repository, survey: Survey) -> None:
        self.chunks = 0
        self.bytes = 0
        self._keyring = repository.keyring
        self._survey = survey
        self._readers = [repository.reader() for _ in range(WORKERS)]

    def verify(self, chunk_ids: list[bytes], page_id: bytes, page: bytes) -> list[bytes]:
        """Read chunks that a map page lists, note what is damaged, and give the ids of those."""
        batches = (chunk_ids[at : at + _BATCH] for at in range(0, len(chunk_ids), _BATCH))
        damaged = []
        for size, bad in ordered_map(self._verify_batch, batches, self._readers):
            self.bytes += size
            for one in bad:
                slots = slots_of(page, one.chunk_id)
                self._survey.damage.on_page(one.object, one.detail, page_id, slots)
                damaged.append(one.chunk_id)
        self.chunks += len(chunk_ids)
        return damaged

    def _verify_batch(self, reader: ChunkReader, chunk_ids: list[bytes]) -> tuple[int, list[_BadChunk]]:
        try:
            return self._read(reader, chunk_ids), []
        except (RepositoryDamaged, StorageError):
            return self._one_by_one(reader, chunk_ids)

    def _one_by_one(self, reader: ChunkReader, chunk_ids: list[bytes]) -> tuple[int, list[_BadChunk]]:
        """Tell the damaged chunks of a batch from the others."""
        size = 0
        damaged = []
        for chunk_id in chunk_ids:
            try:
                size += self._read(reader, [chunk_id])
            except (RepositoryDamaged, StorageError) as error:
                damaged.append(_BadChunk(chunk_id, _holder(reader, chunk_id), error.what))
        return size, damaged

    def _read(self, reader: ChunkReader, chunk_ids: list[bytes]) -> int:
        size = 0
        for position, plaintext in reader.read_many(chunk_ids):
            view = memoryview(plaintext)
            if self._keyring.chunk_id(view) != chunk_ids[position]:
                raise RepositoryDamaged(f"Chunk {chunk_ids[position].hex()[:16]} is not what its id says")
            size += len(view)
        return size


def _holder(reader: ChunkReader, chunk_id: bytes) -> str:
    try:
        return reader.locate(chunk_id).pack.name
    except RepositoryDamaged:
        return f"chunk {chunk_id.hex()[:16]}"


def _select(chunk_ids: bytes, wanted: npt.NDArray[np.bool_]) -> list[bytes]:
    return [chunk_ids[at * CHUNK_ID_SIZE : (at + 1) * CHUNK_ID_SIZE] for at in np.flatnonzero(wanted)]
