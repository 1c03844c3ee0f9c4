"""Copying restore points into another repository: only what it lacks, every chunk checked on the way.

Where both repositories name chunks alike (one was made *like* the other), what the target has is not even
read, and what it lacks is deciphered, checked and sealed again as it is, without being compressed anew. Else
each chunk that changed since the machine's previous copied point is read and stored the way a backup does.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from cryptography.exceptions import InvalidTag

from hotspare import events
from hotspare.block.pipeline import WORKERS, ordered_map
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, ObjectNotFound, RepositoryDamaged, RunExpelled, UsageError
from hotspare.repository import codec
from hotspare.repository.copy_plan import bytes_of, changed_runs, in_larger_or_smaller_chunks
from hotspare.repository.disk_map import DiskMap, DiskMapBuilder, chunk_count
from hotspare.repository.format import HOLE
from hotspare.repository.index import Location
from hotspare.repository.pack import open_entry, pack_cipher
from hotspare.repository.point import NO_STATE, PointContent, RestorePoint, order_of_points
from hotspare.repository.reader import ChunkReader, group_neighbours
from hotspare.repository.repository import Repository
from hotspare.repository.tested import copy_tested
from hotspare.repository.writer import Encoded, Prepared, RepositoryWriter
from hotspare.units import GIB, MIB

MODE = "copy"
_BATCH = 4 * MIB
"""Bytes of a disk that one worker handles at a time."""
_FLUSH_EVERY = GIB
"""Bytes sent between two index segments: a copy that is cut short loses no more than this."""

_NOT_COPIED = "This restore point was not copied; those before it were"


Content = TypeVar("Content", bound=PointContent)


class CopyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was copied, or would be."""

    copied: tuple[RestorePoint, ...]
    """As the target has them."""
    there: tuple[str, ...]
    """Ids of points that the target had already."""
    bytes_read: int
    bytes_stored: int


def copy_points(
    source: Repository,
    target: Repository,
    points: Sequence[RestorePoint],
    listener: events.Listener,
    cancellation: Cancellation,
) -> CopyReport:
    """Copy points, the oldest first; each is there whole or not at all.

    A copied point keeps its id, machine and times. It has no change-tracking token: the next backup of the
    machine into the target begins with a full read.

    Raises:
        UsageError: source and target are the same repository.
        RepositoryDamaged: something that a point needs is missing or not what was written.
        NoSpace, StorageError: the target could not take the data.
        Interrupted: ``cancellation`` was requested; points copied before stay.
    """
    if source.id == target.id:
        raise UsageError("Source and target are the same repository", meaning="Nothing was copied")
    there = {point.id: point for point in target.points(lambda _name, _error: None)}
    wanted = sorted(points, key=order_of_points)
    copied: list[RestorePoint] = []
    read = 0
    for point in wanted:
        if point.id in there:
            continue
        cancellation.check()
        listener(events.PhaseStarted(point.machine_name, MODE))
        copy, transfer = _copy_point(source, target, point, listener, cancellation)
        there[copy.id] = copy
        copied.append(copy)
        read += transfer.bytes_read
    ids = {point.id for point in wanted}
    copy_tested(source.backend, source.keyring, target.backend, target.keyring, ids)
    return CopyReport(
        copied=tuple(copied),
        there=tuple(
            point.id for point in wanted if point.id in there and point.id not in {c.id for c in copied}
        ),
        bytes_read=read,
        bytes_stored=sum(one.bytes_stored for point in copied for one in point.contents),
    )


def _copy_point(
    source: Repository,
    target: Repository,
    point: RestorePoint,
    listener: events.Listener,
    cancellation: Cancellation,
) -> "tuple[RestorePoint, _PointCopy]":
    """Copy one point. What was sent of one that failed stays, and is counted on by the next copy."""
    failure: HotspareError | None = None
    with target.writer() as writer:
        transfer = _PointCopy(source, target, writer, listener, cancellation)
        try:
            copy = msgspec.structs.replace(transfer.copy(point), session=writer.session_id)
            writer.flush()
            cancellation.check()
        except RunExpelled:
            raise
        except HotspareError as error:
            # No point was put yet, so nothing can come to light later that this session would answer for.
            failure = error
            with suppress(HotspareError):
                writer.flush()
        else:
            writer.publish(copy)
    if failure is not None:
        raise failure
    return copy, transfer


class _Batch(NamedTuple):
    """Target chunks to be made: their ids in the source, and what lay there in the target before."""

    first: int
    parents: list[bytes]
    source_first: int
    source_ids: list[bytes]


@dataclass
class _PointCopy:
    """One point on its way."""

    source: Repository
    target: Repository
    writer: RepositoryWriter
    listener: events.Listener
    cancellation: Cancellation
    bytes_read: int = 0
    same_ids: bool = field(init=False)

    def __post_init__(self) -> None:
        self.same_ids = (
            self.source.keyring.secrets.id_key == self.target.keyring.secrets.id_key
            and self.source.config.chunk_size == self.target.config.chunk_size
        )

    def copy(self, point: RestorePoint) -> RestorePoint:
        """Store all of a point but its record, and give that."""
        previous = self._previous(point)
        disks = tuple(
            msgspec.structs.replace(self._copy_content(point, disk, previous), token=None)
            for disk in point.disks
        )
        state = point.state
        if state and not self.target.keeps_state:
            self.listener(events.Warned(point.machine_name, NO_STATE))
            state = ()
        extras = point.extras if self.target.keeps_extras else ()
        return msgspec.structs.replace(
            point,
            disks=disks,
            state=tuple(self._copy_content(point, one, previous) for one in state),
            extras=tuple(self._copy_content(point, one, previous) for one in extras),
            copied_from=self.source.id,
        )

    def _previous(self, point: RestorePoint) -> tuple[RestorePoint, RestorePoint] | None:
        """Give the newest older point of the machine that both sides have, as each has it."""
        older, copies = (
            repository.machine_points(point.machine_id, lambda _name, _error: None)
            for repository in (self.source, self.target)
        )
        there = {copy.id: copy for copy in copies}
        for candidate in reversed(older):
            if order_of_points(candidate) < order_of_points(point) and candidate.id in there:
                return candidate, there[candidate.id]
        return None

    def _copy_content(
        self, point: RestorePoint, disk: Content, previous: tuple[RestorePoint, RestorePoint] | None
    ) -> Content:
        source_map = self.source.disk(disk).map
        source_parent, target_parent = self._parent_maps(disk, previous)
        target_size = self.target.config.chunk_size
        runs = list(
            in_larger_or_smaller_chunks(
                changed_runs(source_map, source_parent), self.source.config.chunk_size, target_size, disk.size
            )
        )
        total = sum(bytes_of(first, count, target_size, disk.size) for first, count in runs)
        self.listener(events.DiskStarted(point.machine_name, disk.name, disk.size, total, MODE))
        builder = DiskMapBuilder(self.writer.store_page, chunk_count(disk.size, target_size), target_parent)
        done = new = stored = unflushed = 0
        with ExitStack() as stack:
            readers = [self.source.reader() for _ in range(WORKERS)]
            batches = self._batches(runs, source_map, target_parent, disk.size)
            work = self._move if self.same_ids else self._convert
            for first, read, chunks in stack.enter_context(
                closing(ordered_map(lambda reader, batch: work(reader, batch, disk.size), batches, readers))
            ):
                self.cancellation.check()
                for number, prepared in enumerate(chunks, first):
                    builder.set(number, prepared.id if prepared else HOLE)
                    size = self.writer.append(prepared) if prepared else 0
                    new += prepared.size if prepared and size else 0
                    stored += size
                    unflushed += size
                if unflushed >= _FLUSH_EVERY:
                    self.writer.flush()
                    unflushed = 0
                self.bytes_read += read
                done += bytes_of(first, len(chunks), target_size, disk.size)
                self.listener(
                    events.Progress(point.machine_name, disk.name, done, self.bytes_read, new, stored)
                )
        root = builder.finish()
        self.listener(events.DiskFinished(point.machine_name, disk.name))
        return msgspec.structs.replace(disk, root=root, bytes_new=new, bytes_stored=stored)

    def _parent_maps(
        self, disk: PointContent, previous: tuple[RestorePoint, RestorePoint] | None
    ) -> tuple[DiskMap | None, DiskMap | None]:
        if previous is None:
            return None, None
        pair = [
            (repository, one)
            for repository, point in zip((self.source, self.target), previous, strict=True)
            for one in point.contents
            if one.name == disk.name and one.size == disk.size
        ]
        if len(pair) != 2:
            return None, None
        try:
            source_map, target_map = (repository.disk(one).map for repository, one in pair)
            self.target.require_pages(target_map)
            if self.target.misses_chunks(target_map):
                return None, None
            self.writer.keep_inherited(target_map, self.target.reader())
        except RepositoryDamaged:
            return None, None
        return source_map, target_map

    def _batches(
        self,
        runs: Iterable[tuple[int, int]],
        source_map: DiskMap,
        target_parent: DiskMap | None,
        disk_size: int,
    ) -> Iterator[_Batch]:
        source_size, target_size = self.source.config.chunk_size, self.target.config.chunk_size
        step = max(1, _BATCH // target_size)
        for start, count in runs:
            for first in range(start, start + count, step):
                last = min(first + step, start + count)
                source_first = first * target_size // source_size
                source_last = chunk_count(min(last * target_size, disk_size), source_size)
                yield _Batch(
                    first,
                    [target_parent[number] if target_parent else HOLE for number in range(first, last)],
                    source_first,
                    [source_map[number] for number in range(source_first, source_last)],
                )

    def _move(
        self, reader: ChunkReader, batch: _Batch, disk_size: int
    ) -> tuple[int, int, list[Prepared | None]]:
        """Take sealed chunks over as they are; gives first chunk, bytes read, and the chunks."""
        index = self.target.index()
        made: list[Prepared | None] = []
        sizes: dict[int, int] = {}
        claimed: list[tuple[int, Location]] = []
        read = 0
        for at, (chunk_id, parent_id) in enumerate(zip(batch.source_ids, batch.parents, strict=True)):
            sizes[at] = bytes_of(batch.first + at, 1, self.target.config.chunk_size, disk_size)
            if chunk_id == HOLE:
                made.append(None)
                continue
            made.append(Prepared(chunk_id, sizes[at], None))
            location = reader.locate(chunk_id)
            if location.entry.base and index.find(chunk_id) is None:
                # Deltas are made anew, upon what the target has as base.
                made[at] = self.writer.prepare(self._checked(reader, chunk_id), parent_id)
                read += sizes[at]
            elif index.claim(chunk_id):
                if location.entry.base:  # the target has it where it cannot be counted on
                    encoded = Encoded(*codec.encode(self._checked(reader, chunk_id)))
                    made[at] = Prepared(chunk_id, sizes[at], encoded)
                    read += sizes[at]
                else:
                    claimed.append((at, location))
        for at, encoded in self._payloads(reader, claimed):
            made[at] = Prepared(batch.source_ids[at], sizes[at], encoded)
            read += sizes[at]
        return batch.first, read, made

    def _payloads(
        self, reader: ChunkReader, wanted: list[tuple[int, Location]]
    ) -> Iterator[tuple[int, Encoded]]:
        """Yield what the source stores of chunks that are no deltas, neighbours with one read."""
        wanted.sort(key=lambda item: (item[1].pack.digest, item[1].entry.offset))
        for group in group_neighbours(wanted):
            pack, first = group[0][1]
            last = group[-1][1].entry
            end = last.offset + last.length
            try:
                data = memoryview(self.source.backend.get_range(pack.name, first.offset, end - first.offset))
            except ObjectNotFound:
                # A prune has moved them since the index was loaded; the reader finds out where to.
                for at, (_, entry) in group:
                    yield at, Encoded(*codec.encode(self._checked(reader, entry.id)))
                continue
            cipher = pack_cipher(self.source.keyring, pack.epoch, pack.seed)
            for at, (_, entry) in group:
                start = entry.offset - first.offset
                try:
                    payload = open_entry(
                        cipher, self.source.keyring, entry, data[start : start + entry.length]
                    )
                    plaintext = codec.decode(entry.codec, payload, self.source.chunk_size_max)
                except (InvalidTag, ValueError) as error:
                    raise RepositoryDamaged(
                        f"Pack {pack.name} has a damaged chunk at byte {entry.offset}",
                        meaning=_NOT_COPIED,
                        hint="Run 'hotspare repo repair', or copy other restore points",
                    ) from error
                self._check_id(memoryview(plaintext), entry.id)
                yield at, Encoded(entry.codec, payload)

    def _checked(self, reader: ChunkReader, chunk_id: bytes) -> memoryview:
        plaintext = memoryview(reader.read(chunk_id))
        self._check_id(plaintext, chunk_id)
        return plaintext

    def _check_id(self, plaintext: memoryview, chunk_id: bytes) -> None:
        if self.source.keyring.chunk_id(plaintext) != chunk_id:
            raise RepositoryDamaged(
                f"Chunk {chunk_id.hex()[:16]} is not what its id says",
                meaning=_NOT_COPIED,
            )

    def _convert(
        self, reader: ChunkReader, batch: _Batch, disk_size: int
    ) -> tuple[int, int, list[Prepared | None]]:
        """Read chunks and prepare them the way a backup does; gives as ``_move``."""
        source_size, target_size = self.source.config.chunk_size, self.target.config.chunk_size
        base = batch.source_first * source_size
        end = min((batch.source_first + len(batch.source_ids)) * source_size, disk_size)
        buffer = memoryview(bytearray(end - base))
        wanted = [(at, chunk_id) for at, chunk_id in enumerate(batch.source_ids) if chunk_id != HOLE]
        for position, plaintext in reader.read_many([chunk_id for _, chunk_id in wanted]):
            at, chunk_id = wanted[position]
            view = memoryview(plaintext)
            self._check_id(view, chunk_id)
            buffer[at * source_size : at * source_size + len(view)] = view
        made: list[Prepared | None] = []
        for number, parent_id in enumerate(batch.parents, batch.first):
            start = number * target_size
            piece = buffer[start - base : min(start + target_size, disk_size) - base]
            zero = not np.frombuffer(piece, dtype=np.uint8).any()
            made.append(None if zero else self.writer.prepare(piece, parent_id))
        return batch.first, len(buffer), made
