"""A disk inside a repository, read like any other disk."""

from collections.abc import Iterator, Sequence
from typing import Protocol, Self

from typing_extensions import Buffer

from hotspare.block.extent import Extent, ExtentKind
from hotspare.errors import RepositoryDamaged
from hotspare.repository.disk_map import DiskMap, LoadPage, chunk_count
from hotspare.repository.format import HOLE


class ChunkSource(Protocol):
    """Where a disk's chunks come from: a ``ChunkReader``, or something that keeps them for a while."""

    def read_many(self, chunk_ids: Sequence[bytes]) -> Iterator[tuple[int, Buffer]]:
        """Yield (position in ``chunk_ids``, plaintext) for each. Raises ``HotspareError``."""
        ...


class RepositoryDisk:
    """A ``BlockReader`` over one disk of a restore point."""

    def __init__(
        self, reader: ChunkSource, load_page: LoadPage, root: bytes, size: int, chunk_size: int
    ) -> None:
        self.size = size
        self._reader = reader
        self._load_page = load_page
        self._root = root
        self._chunk_size = chunk_size
        self._map = DiskMap(load_page, root, chunk_count(size, chunk_size))

    @property
    def map(self) -> DiskMap:
        """The disk's map."""
        return self._map

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield data and holes by chunk, neighbours merged. Raises ``RepositoryDamaged``."""
        end = offset + length
        first = offset // self._chunk_size
        current: Extent | None = None
        for chunk, count, hole in self._map.runs(first, chunk_count(end, self._chunk_size) - first):
            start = max(offset, chunk * self._chunk_size)
            stop = min(end, (chunk + count) * self._chunk_size)
            kind = ExtentKind.ZERO if hole else ExtentKind.DATA
            if current is not None and current.kind is kind:
                current = Extent(current.offset, stop - current.offset, kind)
                continue
            if current is not None:
                yield current
            current = Extent(start, stop - start, kind)
        if current is not None:
            yield current

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer. Raises ``RepositoryDamaged``, ``StorageError``."""
        end = offset + len(buffer)
        if offset < 0 or end > self.size:
            raise ValueError(f"bytes {offset} to {end} of a disk of {self.size}")
        wanted: list[bytes] = []
        places: list[int] = []
        for chunk in range(offset // self._chunk_size, chunk_count(end, self._chunk_size)):
            chunk_id = self._map[chunk]
            start = chunk * self._chunk_size
            if chunk_id == HOLE:
                low, high = max(start, offset), min(start + self._chunk_size, end)
                buffer[low - offset : high - offset] = bytes(high - low)
            else:
                wanted.append(chunk_id)
                places.append(start)
        for position, plaintext in self._reader.read_many(wanted):
            start = places[position]
            if len(memoryview(plaintext)) != min(self._chunk_size, self.size - start):
                raise RepositoryDamaged(
                    f"Chunk {wanted[position].hex()[:16]} has another length than its place in a disk",
                    meaning="What was read of the disk before is whole",
                    hint="Run 'hotspare verify' to learn which restore points are hit",
                )
            low, high = max(start, offset), min(start + self._chunk_size, end)
            buffer[low - offset : high - offset] = memoryview(plaintext)[low - start : high - start]

    def clone(self) -> Self:
        """Give another reader of the same disk, with page position of its own."""
        return type(self)(self._reader, self._load_page, self._root, self.size, self._chunk_size)

    def close(self) -> None:
        """Do nothing: the repository owns the connections."""
