"""Storing what is in memory already (state outside of disks, extras): like a very small disk."""

import mmap
from contextlib import suppress

from hotspare.block.zeroes import is_zero
from hotspare.errors import RepositoryDamaged, StorageError
from hotspare.repository.disk_map import DiskMapBuilder, chunk_count
from hotspare.repository.format import HOLE
from hotspare.repository.point import PointContent
from hotspare.repository.repository import Repository
from hotspare.repository.writer import RepositoryWriter

CONTINUOUS = "continuous"
"""The extra that marks a restore point as one of a continuous backup: its content tells what that keeps."""


def store_content(
    repository: Repository,
    writer: RepositoryWriter,
    name: str,
    content: bytes | mmap.mmap,
    earlier: PointContent | None,
) -> PointContent:
    """Store bytes and give their record.

    Args:
        repository: that the writer is of.
        writer: where chunks go; flushed by the caller.
        name: in the restore point.
        content: never empty.
        earlier: the same content in the parent restore point, of whatever size it was: chunks may become
            deltas upon it.

    Raises:
        NoSpace, StorageError: the repository could not take it.
    """
    size, chunk_size = len(content), repository.config.chunk_size
    chunks = chunk_count(size, chunk_size)
    before = _ids_of(repository, earlier, chunks)
    builder = DiskMapBuilder(writer.store_page, chunks)
    new = stored = 0
    view = memoryview(content)
    for number, earlier_id in enumerate(before):
        piece = view[number * chunk_size : (number + 1) * chunk_size]
        if is_zero(piece):
            builder.set_holes(number, 1)
            continue
        prepared = writer.prepare(piece, earlier_id)
        builder.set(number, prepared.id)
        taken = writer.append(prepared)
        new += prepared.size if taken else 0
        stored += taken
    return PointContent(name=name, size=size, root=builder.finish(), bytes_new=new, bytes_stored=stored)


def _ids_of(repository: Repository, earlier: PointContent | None, chunks: int) -> list[bytes]:
    """Give the chunks to compare with: whatever cannot be read costs space, nothing else."""
    found: list[bytes] = []
    with suppress(RepositoryDamaged, StorageError):
        if earlier is not None:
            disk_map = repository.disk(earlier).map
            found = [disk_map[number] for number in range(min(chunks, disk_map.chunks))]
    return found + [HOLE] * (chunks - len(found))
