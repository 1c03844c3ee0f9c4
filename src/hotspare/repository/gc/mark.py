"""Marking: which chunks restore points need. Each map page is read once, however many points share it."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

from hotspare.cancellation import Cancellation
from hotspare.errors import RepositoryDamaged
from hotspare.repository.disk_map import chunk_count, first_in_page, ids_in_page, level_widths
from hotspare.repository.format import CHUNK_ID_SIZE, HOLE
from hotspare.repository.index import ChunkIndex
from hotspare.repository.point import PointContent, RestorePoint
from hotspare.repository.reader import ChunkReader

_PAGES_AT_ONCE = 256
_CHUNKS_AT_ONCE = 64

Places = npt.NDArray[np.int64]


class Marks:
    """What is needed, as one flag for each place in the index."""

    def __init__(
        self, index: ChunkIndex, reader: ChunkReader, chunk_size: int, cancellation: Cancellation
    ) -> None:
        self.needed = np.zeros(index.published_rows, dtype=np.bool_)
        self._index = index
        self._reader = reader
        self._chunk_size = chunk_size
        self._cancellation = cancellation
        self._seen: set[tuple[int, bytes]] = set()
        self._proven: set[bytes] = set()

    def add_point(self, point: RestorePoint) -> None:
        """Mark all that a restore point needs.

        Raises:
            RepositoryDamaged: a page cannot be read, or a chunk is in no index segment.
        """
        for content in point.contents:
            if content.root != HOLE:
                self._add_content(content)

    def add_bases_of(self, places: Places) -> None:
        """Mark what the deltas among these places are to be put upon."""
        bases = self._index.bases(places)
        self.needed[bases[bases >= 0]] = True

    @property
    def places(self) -> Places:
        """The places of all that is needed."""
        return np.flatnonzero(self.needed)

    def _add_content(self, content: PointContent) -> None:
        chunks = chunk_count(content.size, self._chunk_size)
        widths = level_widths(chunks)
        self._mark(content.root)
        level = [(0, content.root)]
        for height in reversed(range(len(widths))):
            below = widths[height - 1] if height else chunks
            lower: list[tuple[int, bytes]] = []
            for first, page in self._new_pages(height, level, below):
                ids = np.frombuffer(page, dtype=np.uint8).reshape(-1, CHUNK_ID_SIZE)
                stored = ids.any(axis=1)
                self._mark(ids[stored].tobytes())
                if height:
                    lower += [(first + int(at), ids[at].tobytes()) for at in np.flatnonzero(stored)]
            level = lower

    def _new_pages(
        self, height: int, level: list[tuple[int, bytes]], below: int
    ) -> Iterator[tuple[int, bytes]]:
        """Yield (number of the first id, page) of the pages that were not met before."""
        new: dict[bytes, int] = {}
        for number, page_id in level:
            if (height, page_id) not in self._seen:
                self._seen.add((height, page_id))
                new[page_id] = number
        page_ids = list(new)
        for start in range(0, len(page_ids), _PAGES_AT_ONCE):
            self._cancellation.check()
            batch = page_ids[start : start + _PAGES_AT_ONCE]
            for at, plaintext in self._reader.read_many(batch):
                page, number = bytes(plaintext), new[batch[at]]
                count = ids_in_page(number, below)
                if len(page) != count * CHUNK_ID_SIZE:
                    raise RepositoryDamaged(f"Map page {batch[at].hex()[:16]} has another size than it must")
                self._require(batch[at], page)
                yield first_in_page(number), page

    def _mark(self, chunk_ids: bytes) -> None:
        places = self._index.positions(chunk_ids)
        missing = np.flatnonzero(places < 0)
        if len(missing):
            start = int(missing[0]) * CHUNK_ID_SIZE
            raise RepositoryDamaged(f"Chunk {chunk_ids[start : start + 8].hex()} is in no index segment")
        self.needed[places] = True
        self._prove(chunk_ids, np.flatnonzero(self._index.contested(chunk_ids, places)))

    def _prove(self, chunk_ids: bytes, contested: Places) -> None:
        """Read chunks that lie in several places: the copy that is marked is what others are deleted for."""
        at = [slice(number * CHUNK_ID_SIZE, (number + 1) * CHUNK_ID_SIZE) for number in contested.tolist()]
        unproven = list({chunk_ids[one] for one in at} - self._proven)
        for start in range(0, len(unproven), _CHUNKS_AT_ONCE):
            self._cancellation.check()
            batch = unproven[start : start + _CHUNKS_AT_ONCE]
            for number, plaintext in self._reader.read_many(batch):
                self._require(batch[number], plaintext)
            self._proven.update(batch)

    def _require(self, chunk_id: bytes, plaintext: Buffer) -> None:
        if self._reader.keyring.chunk_id(memoryview(plaintext)) != chunk_id:
            pack = self._reader.locate(chunk_id).pack.name
            raise RepositoryDamaged(f"Chunk {chunk_id.hex()[:16]} in {pack} is not what its id says")


def mark_points(marks: Marks, points: Iterable[tuple[str, RestorePoint]]) -> None:
    """Mark points, given with their object names. Raises ``RepositoryDamaged``, naming the first bad one."""
    for name, point in points:
        try:
            marks.add_point(point)
        except RepositoryDamaged as error:
            raise RepositoryDamaged(
                f"The restore point {name} needs what is damaged: {error.what}",
                meaning="No garbage was collected, so as not to make it worse",
                hint="Run 'hotspare repo check', mend what it names or forget the points that need it",
            ) from error
