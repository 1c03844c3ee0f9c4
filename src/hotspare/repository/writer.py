"""The way into a repository: prepared in many threads, packed in one, stored in the background.

    prepare (any thread): hash -> known? -> compress        append (one thread, in order): seal -> pack -> put

Nothing that is appended may be named by a restore point before ``flush`` has returned: only then are
all packs, and an index segment that lists them, durable.
"""

import mmap
from collections import deque
from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from hotspare.errors import HotspareError, Interrupted, ObjectNotFound, RepositoryDamaged, StorageError
from hotspare.repository import codec, delta
from hotspare.repository.compression import AdaptiveLevel
from hotspare.repository.disk_map import DiskMap, split_ids, without_holes
from hotspare.repository.format import DATA, HOLE, META
from hotspare.repository.index import SEGMENT_ROWS_MAX, ChunkIndex, Location, PackRecord
from hotspare.repository.index.merge import merge_piled_up
from hotspare.repository.index.table import Table
from hotspare.repository.keys import Keyring
from hotspare.repository.object_lock.keeper import LockKeeper
from hotspare.repository.pack import PackBuilder, SealedPack
from hotspare.repository.parity import build_parity, parity_name
from hotspare.repository.point import RestorePoint, point_name, seal_point
from hotspare.repository.reader import ChunkReader
from hotspare.repository.session import PUTS_MAX, Session, Surroundings, run_expelled
from hotspare.repository.waits import StoreWaits
from hotspare.storage.backend import Backend

SEGMENT_PACKS_MAX = 32
"""After so many packs (1 GiB) a segment is published: whoever does again what a run died of finds them."""
_MERGED_ROWS_MAX = 1 << 19
"""A larger merge of segments is left to ``prune``: it takes about 100 bytes of memory a row."""
_DELTA_OVERHEAD = 64
"""Bytes that naming a base costs: its id in the pack's table and in the index."""
_NO_POINT = "There is no new restore point; nothing was lost"


class Encoded(NamedTuple):
    """What is stored of a chunk."""

    codec: int
    payload: bytes
    base: bytes = b""


class Prepared(NamedTuple):
    """A chunk on its way: its id, and what is to be stored of it unless it is known already."""

    id: bytes
    size: int
    """Bytes of plaintext."""
    new: Encoded | None
    """None when the repository has the chunk."""


class RepositoryWriter:
    """Stores chunks for one run. A context manager: leaving it waits for or drops what is on its way."""

    def __init__(
        self,
        backend: Backend,
        keyring: Keyring,
        index: ChunkIndex,
        session: Session,
        surroundings: Surroundings,
        bases: ChunkReader | None = None,
        parity: int = 0,
        *,
        segments: Mapping[str, Table] | None = None,
        damaged: Container[bytes] = frozenset(),
        locks: LockKeeper | None = None,
    ) -> None:
        """Open the way in.

        Args:
            backend: the store.
            keyring: its keys.
            index: what is stored already, loaded after the session was begun.
            session: has begun; it ends with the writer.
            surroundings: the world.
            bases: where chunks are read that others are compared with; None stores nothing as a delta.
            parity: that of the repository.
            segments: the index segments that were there, by object name: many small ones are merged.
            locks: sees to it that all which a point needs is locked for long enough; None where nothing is.
            damaged: digests of packs that are known to be damaged; what the index lists in them was proven.
        """
        self._session = session
        self._surroundings = surroundings
        self._open = ExitStack()
        self._stored = self._published = False
        self._backend = backend
        self._keyring = keyring
        self._index = index
        self._bases = bases
        self._parity = parity
        self._damaged = damaged
        self._locks = locks
        self._segments = segments or {}
        self.compression = AdaptiveLevel()
        self.waits = StoreWaits()
        self._builders: dict[str, PackBuilder] = {}
        self._executor = surroundings.executor()
        self._puts: list[Future[SealedPack]] = []
        self._unlisted_packs = 0
        self._spare_buffers: deque[mmap.mmap] = deque(maxlen=PUTS_MAX)

    @property
    def session_id(self) -> str:
        """Id of the session; the restore point carries it."""
        return self._session.id

    def __enter__(self) -> Self:
        self._open.enter_context(self._surroundings.heart(self._session.beat))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kept = isinstance(error, Interrupted) and self._keep_stored()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._index.drop_claims()
        self._open.close()
        # The run has its result already: a session that cannot be removed is left to a collector.
        with suppress(HotspareError):
            if kind is None or self._published or kept or not self._stored:
                self._session.end()
            else:
                self._session.give_up()

    def _keep_stored(self) -> bool:
        """Let the next run count on what one that was told to stop has stored: nothing is on its way."""
        try:
            self.flush()
        except HotspareError:
            return False
        return True

    def prepare(
        self, plaintext: memoryview, parent_id: bytes = HOLE, shift: int = delta.CHUNK_SHIFT
    ) -> Prepared:
        """Hash a chunk and, when nobody has it yet, compress it. Any thread; the buffer is free on return.

        Args:
            plaintext: the chunk.
            parent_id: the chunk that lay in its place before: what it is compared with.
            shift: it is compared in blocks of ``1 << shift`` bytes.
        """
        chunk_id = self._keyring.chunk_id(plaintext)
        if not self._index.claim(chunk_id):
            return Prepared(chunk_id, len(plaintext), None)
        return Prepared(chunk_id, len(plaintext), self._encode(plaintext, parent_id, shift))

    def prepare_run(self, plaintexts: Sequence[memoryview], parent_ids: Sequence[bytes]) -> list[Prepared]:
        """Prepare chunks that lie near each other; what they are compared with is read together."""
        chunk_ids = [self._keyring.chunk_id(plaintext) for plaintext in plaintexts]
        to_store = [self._index.claim(chunk_id) for chunk_id in chunk_ids]
        self._fetch_bases(parent for parent, wanted in zip(parent_ids, to_store, strict=True) if wanted)
        return [
            Prepared(
                chunk_id,
                len(plaintext),
                self._encode(plaintext, parent_id, delta.CHUNK_SHIFT) if wanted else None,
            )
            for chunk_id, plaintext, parent_id, wanted in zip(
                chunk_ids, plaintexts, parent_ids, to_store, strict=True
            )
        ]

    def append(self, prepared: Prepared) -> int:
        """Put a prepared chunk of a disk into a pack. Gives the bytes it takes there, 0 for a known chunk.

        Raises:
            NoSpace, StorageError, PermissionRefused: this or an earlier pack could not be stored.
        """
        return self._append(DATA, prepared)

    def store_page(self, page: bytes, parent_id: bytes) -> bytes:
        """Store a map page that replaces another, and give its id; thread and errors as ``append``."""
        prepared = self.prepare(memoryview(page), parent_id, delta.PAGE_SHIFT)
        self._append(META, prepared)
        return prepared.id

    def flush(self) -> None:
        """Return when all that was appended, and an index segment that lists it, is durable.

        Raises:
            RepositoryDamaged: a pack that holds chunks which were not stored again is gone or cut short.
            RunExpelled: it is gone because a collector had given this run up.
            NoSpace, StorageError, PermissionRefused: as ``append``.
        """
        for kind in list(self._builders):
            self._ship(kind)
        self._collect(waiting_max=0)
        self._publish_segment()
        merge_piled_up(self._backend, self._keyring, self._segments, _MERGED_ROWS_MAX, self._session.id)
        self._segments = {}
        try:
            for pack in sorted(self._index.take_relied_on(), key=lambda pack: pack.digest):
                require_pack(self._backend, pack, whole=pack.digest not in self._damaged)
        except RepositoryDamaged as error:
            if self._session.expelled():
                raise run_expelled(_NO_POINT) from error
            raise

    def publish(self, point: RestorePoint) -> None:
        """Store the restore point of this session, once all that it names is flushed.

        Raises:
            RunExpelled: a collector had given the session up before; there is no restore point.
            RepositoryDamaged: an object that it needs cannot be locked for longer, as it is not there.
        """
        if self._locks:
            self._locks.secure(point, self._index)
        name = point_name(self._keyring, point)
        self._stored = True
        try:
            self._backend.put(name, [seal_point(self._keyring, point)])
            # A collector expels first and lists the points then: one of us sees the other.
            expelled = self._session.expelled()
        except BaseException:
            self._take_back(name)
            raise
        if expelled:
            self._take_back(name)
            raise run_expelled(_NO_POINT)
        self._published = True

    def _take_back(self, point: str) -> None:
        with suppress(HotspareError):
            self._backend.delete(point)

    def keep_inherited(self, disk_map: DiskMap, reader: ChunkReader) -> None:
        """Store again what a parent's map refers to and a collector is about to delete.

        Raises:
            RepositoryDamaged: it is gone already; the disk has to be read in full.
        """
        if not self._index.avoids_any:
            return
        for number, page_id in enumerate(split_ids(disk_map.leaves)):
            if page_id == HOLE:
                continue
            page = disk_map.leaf(number)
            for _, plaintext in reader.read_many(self._in_danger(without_holes(page))):
                self._append(DATA, self.prepare(memoryview(plaintext)))
            if self._in_danger(page_id):
                self.store_page(page, HOLE)

    def _in_danger(self, chunk_ids: bytes) -> list[bytes]:
        """Give those of the ids that cannot be counted on, or whose base cannot."""
        positions = self._index.positions(chunk_ids)
        if (positions < 0).any():
            raise RepositoryDamaged("A chunk of the parent restore point is in no index segment")
        bases = self._index.bases(positions)
        bases = np.where(bases < 0, positions, bases)
        doubtful = self._index.avoided(positions) | self._index.avoided(bases)
        ids = split_ids(chunk_ids)
        return [ids[at] for at in np.flatnonzero(doubtful)]

    def _fetch_bases(self, parent_ids: Iterable[bytes]) -> None:
        if self._bases is None:
            return
        parents = (self._index.find(parent_id) for parent_id in parent_ids if parent_id != HOLE)
        bases = {parent.entry.base or parent.entry.id for parent in parents if parent is not None}
        # Those that cannot be read are found out one by one.
        with suppress(RepositoryDamaged, StorageError), self.waits.of_fetching():
            self._bases.fetch_bases(bases)

    def _encode(self, plaintext: memoryview, parent_id: bytes, shift: int) -> Encoded:
        upon_base = self._delta(plaintext, parent_id, shift)
        if upon_base is not None and upon_base.size <= upon_base.whole_size:
            self._index.rely_on(upon_base.base)
            return upon_base.encoded
        whole = Encoded(*codec.encode(plaintext, self.compression.level))
        if upon_base is None or len(whole.payload) <= upon_base.size:
            return whole
        self._index.rely_on(upon_base.base)
        return upon_base.encoded

    def _delta(self, plaintext: memoryview, parent_id: bytes, shift: int) -> "_Delta | None":
        """Give a chunk as a delta upon what lay in its place, or upon the base of that, where this can be."""
        parent = self._index.find(parent_id) if self._bases is not None and parent_id != HOLE else None
        if parent is None or self._bases is None:
            return None
        base = self._index.find(parent.entry.base, whole=True) if parent.entry.base else parent
        if base is None or not self._index.is_sound(base):
            return None
        try:
            old = memoryview(self._bases.read_base(base.entry.id))
        except (RepositoryDamaged, StorageError):
            return None  # what cannot be read must not get more to depend on it
        if len(old) != len(plaintext):
            return None
        changed = delta.changed_blocks(old, plaintext, shift)
        if 2 * int(changed.sum()) >= len(changed):
            return None
        payload = delta.encode(plaintext, changed, shift, old)
        return _Delta(Encoded(codec.DELTA, payload, base.entry.id), base)

    def _append(self, kind: str, prepared: Prepared) -> int:
        if prepared.new is None:
            return 0
        builder = self._builders.get(kind)
        if builder is None:
            builder = self._builders[kind] = PackBuilder(
                self._keyring, kind, self._surroundings.pack_target, self._spare_buffer()
            )
        stored = builder.add(prepared.id, *prepared.new)
        if builder.full:
            self._ship(kind)
        return stored

    def _spare_buffer(self) -> mmap.mmap | None:
        """Give the buffer of a stored pack: its pages are there already, new ones cost a fault each."""
        return self._spare_buffers.pop() if self._spare_buffers else None

    def _ship(self, kind: str) -> None:
        builder = self._builders.pop(kind)
        self._collect(waiting_max=PUTS_MAX - 1)
        self._stored = True
        self._puts.append(self._executor.submit(self._put, builder))

    def _put(self, builder: PackBuilder) -> SealedPack:
        pack = builder.finish()
        with builder.data as data:
            self._backend.put(pack.name, [data])
            if self._parity:
                self._backend.put(parity_name(pack.name), build_parity(data, pack.digest, self._parity))
        self._spare_buffers.append(builder.buffer)
        return pack

    def _collect(self, waiting_max: int) -> None:
        """Take in stored packs, oldest first, until at most ``waiting_max`` are on their way."""
        while len(self._puts) > waiting_max:
            with self.waits.of_appending():
                pack = self._puts.pop(0).result()
            self._index.note(pack)
            self._unlisted_packs += 1
        if self._index.fresh_rows >= SEGMENT_ROWS_MAX or self._unlisted_packs >= SEGMENT_PACKS_MAX:
            self._publish_segment()

    def _publish_segment(self) -> None:
        segment = self._index.unpublished()
        if segment is not None:
            segment = replace(segment, session=self._session.id)
            name, data = segment.seal(self._keyring)
            with self.waits.of_appending():
                self._backend.put(name, [data])
            self._index.published(segment)
        self._unlisted_packs = 0


class _Delta(NamedTuple):
    """A chunk as a delta, and the chunk that it is upon."""

    encoded: Encoded
    base: Location

    @property
    def size(self) -> int:
        """Bytes that it takes in the repository."""
        return len(self.encoded.payload) + _DELTA_OVERHEAD

    @property
    def whole_size(self) -> int:
        """A guess at what the chunk would take whole: half of what its base does, to be sure."""
        return self.base.entry.length // 2


def require_pack(backend: Backend, pack: PackRecord, *, whole: bool = True) -> None:
    """Raise ``RepositoryDamaged`` unless the pack is there; if it is to be whole, in its full size."""
    try:
        size = backend.size(pack.name)
    except ObjectNotFound:
        size = 0
    if size != pack.size and (whole or not size):
        state = f"has {size} bytes where {pack.size} were written" if size else "is missing"
        raise RepositoryDamaged(
            f"Pack {pack.name} {state}, and the restore point would depend on it",
            meaning="No restore point was made; those that need this pack are damaged",
            hint="Run 'hotspare repo check' to see which, and restore the pack from a copy of the repository",
        )
