"""Chunks of a repository, decoded and kept for a while, for all disks that are served from it.

Each chunk is fetched once, however many readers wait for it. What cannot be read is tried again for some
seconds, with an index that is read anew: a repository may have been away, and a collector may have moved
what it holds. Whatever comes out was authenticated on the way in; there is never a wrong byte, only none.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from typing_extensions import Buffer

from hotspare.errors import HotspareError, StorageError
from hotspare.repository.disk import ChunkSource
from hotspare.units import MIB

DEFAULT_CACHE_BYTES = 256 * MIB
DEFAULT_PATIENCE = 10.0
"""Seconds. A guest waits so long for one read before it is told, and paused."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts."""
_BATCH = 4
"""Chunks that are fetched ahead together: neighbours in a pack cost one read."""
_FETCHERS = 4
_BATCHES_MAX = 16
"""Batches that may wait to be fetched ahead; more would only be in the way of what is wanted now."""


@dataclass(slots=True)
class CacheCounts:
    """What a cache did so far, in chunks."""

    found: int = 0
    """Asked for and there, or on the way."""
    fetched: int = 0
    """Asked for and not there."""
    ahead: int = 0
    """Fetched before anybody asked."""


class ChunkCache:
    """Gives chunks from memory where it can. Safe for several threads.

    Args:
        open_source: gives a source that has read the index anew; called at once and after each failure.
        bytes_max: how much is kept; the chunks unused for longest give way.
        patience: seconds that a read goes on trying before it gives up.
    """

    def __init__(
        self,
        open_source: Callable[[], ChunkSource],
        *,
        bytes_max: int = DEFAULT_CACHE_BYTES,
        patience: float = DEFAULT_PATIENCE,
    ) -> None:
        self.counts = CacheCounts()
        self._open_source = open_source
        self._bytes_max = bytes_max
        self._patience = patience
        self._lock = threading.Lock()
        self._chunks: OrderedDict[bytes, Future[Buffer]] = OrderedDict()
        self._bytes = 0
        self._waiting_batches = 0
        self._source_lock = threading.Lock()
        self._source: ChunkSource | None = open_source()
        self._closed = threading.Event()
        self._pool = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch-ahead")

    def read(self, chunk_id: bytes) -> bytes:
        """Give the plaintext of one chunk. Raises ``RepositoryDamaged``, ``StorageError``."""
        ((_, plaintext),) = self.read_many([chunk_id])
        return bytes(plaintext)

    def read_many(self, chunk_ids: Sequence[bytes]) -> Iterator[tuple[int, Buffer]]:
        """Yield (position in ``chunk_ids``, plaintext) for each. Raises as ``read``."""
        with self._lock:
            mine = self._claim(chunk_ids)
            pending = [self._chunks[chunk_id] for chunk_id in chunk_ids]
            for chunk_id in chunk_ids:
                self._chunks.move_to_end(chunk_id)
            self.counts.fetched += len(mine)
            self.counts.found += len(chunk_ids) - len(mine)
        if mine:
            self._fetch(mine)
        yield from ((position, each.result()) for position, each in enumerate(pending))

    def fetch_ahead(self, chunk_ids: Sequence[bytes]) -> None:
        """Fetch chunks that will be asked for soon; nobody is told of a failure before asking for them."""
        with self._lock:
            room = min(len(chunk_ids), (_BATCHES_MAX - self._waiting_batches) * _BATCH)
            mine = self._claim(chunk_ids[:room]) if room > 0 and not self._closed.is_set() else {}
            ids = list(mine)
            batches = [ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH)]
            self._waiting_batches += len(batches)
            self.counts.ahead += len(mine)
            for batch in batches:
                self._pool.submit(self._fetch_batch, {chunk_id: mine[chunk_id] for chunk_id in batch})

    def has(self, chunk_id: bytes) -> bool:
        """Whether a chunk is there or on the way."""
        return chunk_id in self._chunks

    def has_ready(self, chunk_id: bytes) -> bool:
        """Whether a chunk is there already."""
        found = self._chunks.get(chunk_id)
        return found is not None and found.done()

    @property
    def bytes_kept(self) -> int:
        """Memory that is taken by chunks."""
        return self._bytes

    def close(self) -> None:
        """Stop fetching; who waits is told at once."""
        self._closed.set()
        self._pool.shutdown(wait=True, cancel_futures=False)

    def _claim(self, chunk_ids: Sequence[bytes]) -> dict[bytes, Future[Buffer]]:
        """Give those that nobody has fetched or is fetching, as ours to fetch."""
        mine: dict[bytes, Future[Buffer]] = {}
        for chunk_id in chunk_ids:
            if chunk_id not in self._chunks:
                self._chunks[chunk_id] = mine[chunk_id] = Future()
        return mine

    def _fetch_batch(self, wanted: dict[bytes, Future[Buffer]]) -> None:
        try:
            self._fetch(wanted)
        finally:
            with self._lock:
                self._waiting_batches -= 1

    def _fetch(self, wanted: dict[bytes, Future[Buffer]]) -> None:
        """Settle each of the claimed chunks, one way or the other."""
        left = dict(wanted)
        deadline = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        try:
            while left:
                source: ChunkSource | None = None
                ids = list(left)
                try:
                    source = self._opened()
                    for position, plaintext in source.read_many(ids):
                        self._keep(plaintext, left.pop(ids[position]))
                except HotspareError as error:
                    self._give_up(source)
                    if self._closed.is_set() or time.monotonic() + pause > deadline:
                        self._fail(left, error)
                        return
                    self._closed.wait(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
        except BaseException:
            self._fail(left, StorageError("Reading the repository was broken off"))
            raise

    def _opened(self) -> ChunkSource:
        with self._source_lock:
            if self._source is None:
                self._source = self._open_source()
            return self._source

    def _give_up(self, source: ChunkSource | None) -> None:
        """Have the index read anew, unless another thread has seen to that already."""
        with self._source_lock:
            if source is not None and self._source is source:
                self._source = None

    def _keep(self, plaintext: Buffer, future: Future[Buffer]) -> None:
        future.set_result(plaintext)
        with self._lock:
            self._bytes += memoryview(plaintext).nbytes
            if self._bytes > self._bytes_max:
                self._make_room()

    def _make_room(self) -> None:
        for chunk_id in list(self._chunks):
            future = self._chunks[chunk_id]
            if self._bytes <= self._bytes_max:
                return
            if future.done():
                del self._chunks[chunk_id]
                self._bytes -= memoryview(future.result()).nbytes

    def _fail(self, wanted: dict[bytes, Future[Buffer]], error: HotspareError) -> None:
        with self._lock:
            for chunk_id in wanted:
                self._chunks.pop(chunk_id, None)  # the next who asks has it tried again
        for future in wanted.values():
            future.set_exception(error)
