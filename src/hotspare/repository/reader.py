"""The way out of a repository: chunks by their ids, neighbours in a pack with one read."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typing_extensions import Buffer

from hotspare.errors import ObjectNotFound, RepositoryDamaged, StorageError
from hotspare.repository import codec
from hotspare.repository.index import ChunkIndex, Location, PackRecord
from hotspare.repository.keys import Keyring
from hotspare.repository.pack import open_entry, pack_cipher
from hotspare.storage.backend import Backend
from hotspare.units import MIB

_GAP_MAX = 64 * 1024
"""Unwanted bytes between two wanted entries that are read along rather than skipped."""
_READ_MAX = 8 * MIB
_DELTAS_AT_ONCE = 32
"""Deltas whose bases are in memory at the same time."""
_RECENT_BYTES = 16 * MIB
"""Room for the stripes that all workers of a backup compare with their bases."""


class PackGone(RepositoryDamaged):
    """A pack is not there: lost, or deleted by a collector since the index was loaded."""

    def __init__(self, pack: PackRecord) -> None:
        damage = _damaged(pack, "is missing")
        super().__init__(damage.what, meaning=damage.meaning, hint=damage.hint)
        self.pack_name = pack.name


class ChunkUnknown(RepositoryDamaged):
    """A chunk is in no index segment, or was stored since the index was loaded."""

    def __init__(self, chunk_id: bytes) -> None:
        super().__init__(
            f"Chunk {chunk_id.hex()[:16]} is in no index segment",
            meaning="The data that it held cannot be read",
            hint="Run 'hotspare repo check' to see which restore points are affected",
        )


class ChunkReader:
    """Reads and opens chunks. Safe for several threads."""

    def __init__(
        self,
        backend: Backend,
        keyring: Keyring,
        index: ChunkIndex,
        chunk_size: int,
        refresh: Callable[[], None] | None = None,
    ) -> None:
        """Open the way out; ``refresh`` brings the index up to date when it has turned out to be old."""
        self._refresh = refresh
        self.keyring = keyring
        self._gone: set[str] = set()
        self._backend = backend
        self._index = index
        self._size_max = chunk_size
        self._cipher = lru_cache(maxsize=256)(self._make_cipher)
        self._recent = _RecentChunks(max(_RECENT_BYTES, 4 * chunk_size))

    def read(self, chunk_id: bytes) -> bytes:
        """Give the plaintext of one chunk. Raises ``RepositoryDamaged``, ``StorageError``."""
        ((_, plaintext),) = self.read_many([chunk_id])
        return bytes(plaintext)

    def locate(self, chunk_id: bytes) -> Location:
        """Give where a chunk lies. Raises ``RepositoryDamaged`` when no index segment lists it."""
        location = self._index.find(chunk_id)
        if location is None:
            raise ChunkUnknown(chunk_id)
        return location

    def read_many(self, chunk_ids: Sequence[bytes]) -> Iterator[tuple[int, Buffer]]:
        """Yield (position in ``chunk_ids``, plaintext) for each, in an order that suits the store.

        Raises:
            RepositoryDamaged: a chunk is missing or is not what was written.
            StorageError: the store cannot be read.
        """
        left = dict(enumerate(chunk_ids))
        refreshed = False
        while left:
            positions = list(left)
            try:
                for at, plaintext in self._read_listed(list(left.values())):
                    del left[positions[at]]
                    yield positions[at], plaintext
            except PackGone as gone:
                if not self._look_elsewhere(gone.pack_name):
                    raise
            except ChunkUnknown:
                if self._refresh is None or refreshed:
                    raise
                refreshed = True
                self._refresh()

    def _look_elsewhere(self, pack_name: str) -> bool:
        """Bring the index up to date, once for each pack that is gone: its chunks may have been moved."""
        if self._refresh is None or pack_name in self._gone:
            return False
        self._gone.add(pack_name)
        self._index.give_up([pack_name])
        self._refresh()
        return True

    def _read_listed(self, chunk_ids: Sequence[bytes]) -> Iterator[tuple[int, Buffer]]:
        wanted = [(position, self.locate(chunk_id)) for position, chunk_id in enumerate(chunk_ids)]
        wanted.sort(key=_place)
        yield from self._read([item for item in wanted if not item[1].entry.base], {})
        deltas = [item for item in wanted if item[1].entry.base]
        for start in range(0, len(deltas), _DELTAS_AT_ONCE):
            group = deltas[start : start + _DELTAS_AT_ONCE]
            yield from self._read(group, self._read_bases({location.entry.base for _, location in group}))

    def read_base(self, chunk_id: bytes) -> Buffer:
        """Give the plaintext of a chunk that is stored whole. Raises as ``read``."""
        return self._read_bases({chunk_id})[chunk_id]

    def fetch_bases(self, chunk_ids: set[bytes]) -> None:
        """Read chunks that ``read_base`` will be asked for soon, neighbours together. Raises as ``read``."""
        self._read_bases(chunk_ids)

    def _read_bases(self, chunk_ids: set[bytes]) -> dict[bytes, Buffer]:
        """Give the plaintext of bases, from those used lately where they are among them."""
        bases = self._recent.get(chunk_ids)
        missing: list[tuple[int, Location]] = []
        for chunk_id in chunk_ids - bases.keys():
            location = self._index.find(chunk_id, whole=True)
            if location is None:
                location = self.locate(chunk_id)
                raise _damaged(location.pack, f"has a delta upon a delta at byte {location.entry.offset}")
            missing.append((len(missing), location))
        order = [location.entry.id for _, location in missing]
        missing.sort(key=_place)
        for position, plaintext in self._read(missing, {}):
            bases[order[position]] = plaintext
            self._recent.put(order[position], plaintext)
        return bases

    def _read(
        self, wanted: Iterable[tuple[int, Location]], bases: Mapping[bytes, Buffer]
    ) -> Iterator[tuple[int, Buffer]]:
        for group in group_neighbours(wanted):
            yield from self._read_group(group, bases)

    def _read_group(
        self, group: Sequence[tuple[int, Location]], bases: Mapping[bytes, Buffer]
    ) -> Iterator[tuple[int, Buffer]]:
        pack = group[0][1].pack
        start = group[0][1].entry.offset
        last = group[-1][1].entry
        try:
            data = memoryview(self._backend.get_range(pack.name, start, last.offset + last.length - start))
        except ObjectNotFound as error:
            raise PackGone(pack) from error
        except StorageError as error:
            raise _damaged(pack, f"cannot be read: {error.what}") from error
        cipher = self._cipher(pack.epoch, pack.seed)
        for position, location in group:
            entry = location.entry
            sealed = data[entry.offset - start : entry.offset - start + entry.length]
            try:
                payload = open_entry(cipher, self.keyring, entry, sealed)
                plaintext = codec.decode(entry.codec, payload, self._size_max, bases.get(entry.base))
            except (InvalidTag, ValueError) as error:
                raise _damaged(pack, f"has a damaged chunk at byte {entry.offset}") from error
            # A delta is right only upon the right base, which its own seal cannot tell.
            if entry.base and self.keyring.chunk_id(memoryview(plaintext)) != entry.id:
                raise _damaged(pack, f"has a delta at byte {entry.offset} that does not fit its base")
            yield position, plaintext

    def _make_cipher(self, epoch: int, seed: bytes) -> AESGCM:
        return pack_cipher(self.keyring, epoch, seed)


class _RecentChunks:
    """Bases used lately: random reads of a disk come back to the same chunk. Thread-safe."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_left = bytes_max
        self._lock = threading.Lock()
        self._chunks: OrderedDict[bytes, Buffer] = OrderedDict()

    def get(self, chunk_ids: set[bytes]) -> dict[bytes, Buffer]:
        with self._lock:
            found = {one: self._chunks[one] for one in chunk_ids if one in self._chunks}
            for chunk_id in found:
                self._chunks.move_to_end(chunk_id)
            return found

    def put(self, chunk_id: bytes, plaintext: Buffer) -> None:
        with self._lock:
            if chunk_id in self._chunks:
                return
            self._chunks[chunk_id] = plaintext
            self._bytes_left -= memoryview(plaintext).nbytes
            while self._bytes_left < 0:
                _, oldest = self._chunks.popitem(last=False)
                self._bytes_left += memoryview(oldest).nbytes


def _place(item: tuple[int, Location]) -> tuple[bytes, int]:
    return item[1].pack.digest, item[1].entry.offset


def group_neighbours(wanted: Iterable[tuple[int, Location]]) -> Iterator[list[tuple[int, Location]]]:
    """Cut a list sorted by place into groups that one range read each can fetch."""
    group: list[tuple[int, Location]] = []
    for item in wanted:
        if group and not _is_neighbour(group[0][1], group[-1][1], item[1]):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _is_neighbour(first: Location, previous: Location, following: Location) -> bool:
    if previous.pack is not following.pack and previous.pack.digest != following.pack.digest:
        return False
    gap = following.entry.offset - (previous.entry.offset + previous.entry.length)
    return (
        gap <= _GAP_MAX and following.entry.offset + following.entry.length - first.entry.offset <= _READ_MAX
    )


def _damaged(pack: PackRecord, how: str) -> RepositoryDamaged:
    return RepositoryDamaged(
        f"Pack {pack.name} {how}",
        meaning="The data that it held cannot be read from this repository",
        hint="Run 'hotspare verify' to see which restore points are affected",
    )
