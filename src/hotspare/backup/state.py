"""Storing the state of a machine outside of its disks: in chunks with a map, like a very small disk."""

from contextlib import suppress

from hotspare.errors import RepositoryDamaged, StorageError
from hotspare.platforms.platform import StateFile
from hotspare.repository.disk_map import DiskMapBuilder, chunk_count
from hotspare.repository.format import HOLE
from hotspare.repository.point import PointState
from hotspare.repository.repository import Repository
from hotspare.repository.writer import RepositoryWriter


def store_state(
    repository: Repository, writer: RepositoryWriter, state: StateFile, earlier: PointState | None
) -> PointState:
    """Store one piece of state and give its record.

    Args:
        repository: that the writer is of.
        writer: where chunks go; flushed by the caller.
        state: its content.
        earlier: the same piece in the parent restore point: chunks may become deltas upon it.

    Raises:
        NoSpace, StorageError: the repository could not take it.
    """
    size, chunk_size = len(state.content), repository.config.chunk_size
    chunks = chunk_count(size, chunk_size)
    before = _ids_of(repository, earlier, chunks) if earlier and earlier.size == size else [HOLE] * chunks
    builder = DiskMapBuilder(writer.store_page, chunks)
    new = stored = 0
    view = memoryview(state.content)
    for number, earlier_id in enumerate(before):
        piece = view[number * chunk_size : (number + 1) * chunk_size]
        if not any(piece):
            builder.set_holes(number, 1)
            continue
        prepared = writer.prepare(piece, earlier_id)
        builder.set(number, prepared.id)
        taken = writer.append(prepared)
        new += prepared.size if taken else 0
        stored += taken
    return PointState(name=state.name, size=size, root=builder.finish(), bytes_new=new, bytes_stored=stored)


def _ids_of(repository: Repository, earlier: PointState, chunks: int) -> list[bytes]:
    """Give the chunks to compare with: whatever cannot be read costs space, nothing else."""
    with suppress(RepositoryDamaged, StorageError):
        disk_map = repository.disk(earlier).map
        return [disk_map[number] for number in range(chunks)]
    return [HOLE] * chunks
