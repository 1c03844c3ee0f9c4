"""The disks of a restore point as machines run from them: over NBD, cached, and read ahead.

Each disk is an export of its name on one socket. What reads as zeroes is told (``base:allocation``), so that
who copies a disk does not read its holes.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from hotspare.block.extent import Extent
from hotspare.block.nbd.connection import Address
from hotspare.block.nbd.server import Export, NbdServer
from hotspare.errors import HotspareError
from hotspare.repository.disk import RepositoryDisk
from hotspare.repository.disk_map import chunk_count
from hotspare.repository.format import HOLE
from hotspare.repository.point import PointDisk, RestorePoint
from hotspare.repository.reader import ChunkReader
from hotspare.repository.repository import Repository
from hotspare.restore.instant.chunk_cache import (
    DEFAULT_CACHE_BYTES,
    DEFAULT_PATIENCE,
    CacheCounts,
    ChunkCache,
)
from hotspare.units import KIB

_WORKERS = 8
"""Requests of one connection that are done at once: a store answers late, but many questions at once."""
_AHEAD_MAX = 32
"""Chunks that are fetched ahead of who reads on and on."""
_PROMPT_MAX = 64 * KIB
"""Bytes of a read that the thread does which took it, when they are in memory."""
_RUN_MIN = 2
"""After so many chunks in a row, more are expected."""
_RUNS_MAX = 16
"""Places of a disk where somebody reads on and on, that are kept in mind."""


class ServedDisks:
    """Serves all disks of a point until ``close``. A context manager.

    Args:
        repository: where the point is. It stays the caller's, and must not be closed before.
        point: whose disks.
        address: path of the unix socket to create, or a loopback address and a port (0 for any).
        cache_bytes: memory for chunks, shared by all disks.
        patience: seconds that a read is tried again before the client gets an I/O error.
        mode: permissions of the unix socket.

    Raises:
        TargetExists: the path or the port is taken.
        UsageError: the address is not a loopback address.
        PermissionRefused, SourceLost: the socket cannot be created.
        RepositoryDamaged: the index or the map of a disk cannot be read.
    """

    def __init__(
        self,
        repository: Repository,
        point: RestorePoint,
        address: Address,
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        patience: float = DEFAULT_PATIENCE,
        mode: int = 0o600,
    ) -> None:
        self._cache = ChunkCache(
            _Reopened(repository).reader,
            bytes_max=max(cache_bytes, 64 * repository.chunk_size_max),
            patience=patience,
        )
        try:
            exports = {disk.name: Export(reader=self._disk(repository, disk)) for disk in point.disks}
            self._server = NbdServer.start(address, exports, workers=_WORKERS, mode=mode)
        except BaseException:
            self._cache.close()
            raise

    def _disk(self, repository: Repository, disk: PointDisk) -> "ServedDisk":
        size = repository.config.chunk_size
        stored = RepositoryDisk(self._cache, self._cache.read, disk.root, disk.size, size)
        return ServedDisk(stored, self._cache, _Runs(), size)

    @property
    def address(self) -> Address:
        """Where it listens; the port is the real one where 0 was asked for."""
        return self._server.address

    @property
    def counts(self) -> CacheCounts:
        """What was read so far."""
        return self._cache.counts

    @property
    def bytes_kept(self) -> int:
        """Memory that is taken by chunks."""
        return self._cache.bytes_kept

    def close(self) -> None:
        """Stop listening and hang up on all clients; a second call does nothing."""
        self._server.close()
        self._cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ServedDisk:
    """A ``BlockReader`` over a disk in a repository, which sees who reads on and on, and fetches ahead."""

    def __init__(self, stored: RepositoryDisk, cache: ChunkCache, runs: "_Runs", chunk_size: int) -> None:
        self.size = stored.size
        self._stored = stored
        self._cache = cache
        self._runs = runs
        self._chunk_size = chunk_size

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield what the range is made of. Raises ``RepositoryDamaged``, ``StorageError``."""
        return self._stored.extents(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer. Raises ``RepositoryDamaged``, ``StorageError``."""
        first = offset // self._chunk_size
        ahead = self._runs.note(first, chunk_count(offset + len(buffer), self._chunk_size) - 1)
        if ahead:
            self._fetch_ahead(ahead)
        self._stored.read_into(offset, buffer)

    def is_at_hand(self, offset: int, length: int) -> bool:
        """Tell whether all of it is in memory; small reads only, as others are better done side by side."""
        chunk = offset // self._chunk_size
        if length > _PROMPT_MAX or chunk != (offset + length - 1) // self._chunk_size:
            return False
        page = self._stored.map.missing_page(chunk)
        if page is not None and not self._cache.has_ready(page):
            return False
        chunk_id = self._stored.map[chunk]
        return chunk_id == HOLE or self._cache.has_ready(chunk_id)

    def _fetch_ahead(self, chunks: range) -> None:
        known = self._stored.map
        try:
            ids = [known[chunk] for chunk in chunks if chunk < known.chunks]
        except HotspareError:
            return  # who reads there will be told
        wanted = [chunk_id for chunk_id in ids if chunk_id != HOLE]
        # Asked for by halves, so that what is fetched together is more than a chunk or two.
        if wanted and not self._cache.has(wanted[len(wanted) // 2]):
            self._cache.fetch_ahead(wanted)

    def clone(self) -> Self:
        """Give another reader of the same disk, for another thread."""
        return type(self)(self._stored.clone(), self._cache, self._runs, self._chunk_size)

    def close(self) -> None:
        """Do nothing: the repository owns the connections."""


class _Runs:
    """Where on a disk somebody reads chunk after chunk; of all threads and clients together. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lengths: OrderedDict[int, int] = OrderedDict()
        """By the chunk that would be next: how many came before it, in a row."""

    def note(self, first: int, last: int) -> range:
        """Note that chunks were asked for, and give those that will be asked for next."""
        with self._lock:
            length = last - first + 1
            if (before := self._lengths.pop(first, None)) is not None:
                length += before
            elif (before := self._lengths.pop(first + 1, None)) is not None:
                length += before - 1  # within the chunk that was read last
            self._lengths[last + 1] = length
            if len(self._lengths) > _RUNS_MAX:
                self._lengths.popitem(last=False)
        return range(last + 1, last + 1 + min(2 * length, _AHEAD_MAX)) if length >= _RUN_MIN else range(0)


class _Reopened:
    """Gives readers of a repository: at first with the index as it is known, then with one read anew."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._given = False

    def reader(self) -> ChunkReader:
        if self._given:
            self._repository.forget_index()
        self._given = True
        return self._repository.reader()
