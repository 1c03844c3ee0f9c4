"""The index of a repository: all published chunks, and those that this process is about to store."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hotspare.repository.codec import DELTA
from hotspare.repository.format import CHUNK_ID_SIZE
from hotspare.repository.index.segment import CODEC_BITS, PREFIX, PackRecord, Segment
from hotspare.repository.index.table import CODEC_MASK, Keys, Table
from hotspare.repository.pack import Entry, SealedPack

_SMALL = 1 << 17
_SMALL_TABLES_MAX = 8
"""More small tables than this are merged in memory, as every lookup asks every table."""

_SOUND, _DOUBTFUL, _GONE = range(3)
"""How far a pack may be counted on; the least is the best."""
_NEVER = 2 * _GONE + 2
_ID_WORDS = CHUNK_ID_SIZE // 8

Positions = npt.NDArray[np.int64]


class Location(NamedTuple):
    """Where one chunk lies."""

    pack: PackRecord
    entry: Entry


class _Part(NamedTuple):
    """A table, and the numbers in ``ChunkIndex.packs`` of its packs."""

    table: Table
    numbers: Positions


class ChunkIndex:
    """All known chunks, and those that this process is about to store. Safe for several threads.

    Where several rows have one id (two hosts stored the chunk at the same time), one that is no delta
    is preferred, everywhere: so that a base, once there, stays a base.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._packs: list[PackRecord] = []
        self._numbers: dict[bytes, int] = {}
        self._parts: tuple[_Part, ...] = ()
        self._fresh: dict[bytes, tuple[int, Entry]] = {}
        self._claimed: set[bytes] = set()
        self._relied_on: set[PackRecord] = set()
        self._worth: dict[str, int] = {}
        self._worths: npt.NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)

    def __len__(self) -> int:
        return sum(len(part.table) for part in self._parts) + len(self._fresh)

    @property
    def packs(self) -> Sequence[PackRecord]:
        """Every pack that a row points into."""
        return self._packs

    def avoid(self, names: Iterable[str]) -> None:
        """Prefer any other pack to these, and do not count on them for chunks that are to be stored.

        They are condemned, or were stored by a session that was given up.
        """
        self._set_worth(names, _DOUBTFUL)

    def give_up(self, names: Iterable[str]) -> None:
        """Prefer even a pack that is to be avoided to these, which have turned out to be gone."""
        self._set_worth(names, _GONE)

    @property
    def avoids_any(self) -> bool:
        """Whether a pack that it lists is to be avoided."""
        return bool(self._worths.any())

    def avoided(self, positions: Positions) -> npt.NDArray[np.bool_]:
        """Tell for each place whether its pack is to be avoided, which means that no other has the chunk."""
        return self._worths[self.pack_numbers(positions)] > _SOUND

    def is_sound(self, location: Location) -> bool:
        """Tell whether what is new may depend on what lies there."""
        return location.pack.name not in self._worth

    def find(self, chunk_id: bytes, *, whole: bool = False) -> Location | None:
        """Give where a stored chunk lies, or None; ``whole`` passes over deltas.

        It is in a pack that is to be avoided only if in no other.
        """
        fresh = self._fresh.get(chunk_id[:PREFIX])
        if fresh is not None and not (whole and fresh[1].base):
            return Location(self._packs[fresh[0]], fresh[1])
        high, low = int.from_bytes(chunk_id[:8], "big"), int.from_bytes(chunk_id[8:PREFIX], "big")
        best, best_score = None, _NEVER
        for part in self._parts:
            row = part.table.find(high, low)
            while row >= 0:
                is_delta = int(part.table.place[row]) & CODEC_MASK == DELTA
                score = 2 * int(self._worths[part.numbers[part.table.pack[row]]]) + is_delta
                if score < best_score and not (whole and is_delta):
                    best, best_score = self._location(chunk_id, part, row), score
                row = part.table.next_row(row) if best_score else -1
            if not best_score:
                break
        return best

    def positions(self, chunk_ids: bytes) -> Positions:
        """Give for each of the concatenated ids its place among the published rows, -1 for an unknown one.

        The place is in a pack that is to be avoided only if no other has the chunk. A delta whose base is
        unknown is as good as unknown. Places are dense from 0 and stay as they are
        until the next ``published`` or ``load``.
        """
        found, whole = self._search(Keys.of(chunk_ids, CHUNK_ID_SIZE))
        deltas = np.flatnonzero((found >= 0) & ~whole)
        found[deltas[self.bases(found[deltas]) < 0]] = -1
        return found

    def _search(self, keys: Keys, *, whole: bool = False) -> tuple[Positions, npt.NDArray[np.bool_]]:
        """Give the place of each key, and whether what is there is no delta; ``whole`` passes over deltas."""
        found = np.full(len(keys.low), -1, dtype=np.int64)
        scores = np.full(len(found), _NEVER, dtype=np.uint8)
        base = 0
        for part in self._parts:
            open_ = np.flatnonzero(scores > 0)
            rows = part.table.search(Keys(keys.high[open_], keys.low[open_]))
            while len(open_):
                hit = rows >= 0
                open_, rows = open_[hit], rows[hit]
                is_delta = part.table.is_delta(rows)
                score = 2 * self._worths[part.numbers[part.table.pack[rows]]] + is_delta
                better = (score < scores[open_]) & ~(is_delta & whole)
                found[open_[better]] = base + rows[better]
                scores[open_[better]] = score[better]
                unhappy = scores[open_] > 0
                open_, rows = open_[unhappy], part.table.next_rows(rows[unhappy])
            base += len(part.table)
        return found, (scores & 1 == 0) & (found >= 0)

    def bases(self, positions: Positions) -> Positions:
        """Give for each place that of the chunk which a delta there is to be put upon.

        It is -1 for what is no delta, and for a delta whose base is not in the index (which is damage).
        Whoever needs the delta needs the base.
        """
        found = np.full(len(positions), -1, dtype=np.int64)
        for part, inside, rows in self._by_part(positions):
            is_delta = part.table.is_delta(rows)
            if is_delta.any():
                places, _ = self._search(Keys.of(part.table.bases(rows[is_delta]), CHUNK_ID_SIZE), whole=True)
                found[inside[is_delta]] = places
        return found

    def contested(self, chunk_ids: bytes, positions: Positions) -> npt.NDArray[np.bool_]:
        """Tell of chunks and their places which of them other rows say to be elsewhere, or to be different.

        The same goes for the base of a delta. Packs that are gone do not count.
        """
        found = self._has_rival(Keys.of(chunk_ids, CHUNK_ID_SIZE), positions)
        for part, inside, rows in self._by_part(positions):
            deltas = part.table.is_delta(rows)
            if deltas.any():
                keys = Keys.of(part.table.bases(rows[deltas]), CHUNK_ID_SIZE)
                places, _ = self._search(keys, whole=True)
                found[inside[deltas]] |= self._has_rival(keys, places)
        return found

    def _has_rival(self, keys: Keys, positions: Positions) -> npt.NDArray[np.bool_]:
        packs, offsets = self.pack_numbers(positions), self.offsets(positions)
        lengths, deltas = self.lengths(positions), self._bases_at(positions)
        found = np.zeros(len(positions), dtype=np.bool_)
        for part in self._parts:
            open_, rows = np.arange(len(found)), part.table.search(keys)
            while len(open_):
                hit = rows >= 0
                open_, rows = open_[hit], rows[hit]
                numbers = part.numbers[part.table.pack[rows]]
                other = (numbers != packs[open_]) | (part.table.offset[rows] != offsets[open_])
                other |= part.table.place[rows] >> CODEC_BITS != lengths[open_]
                other |= (_bases_of(part.table, rows) != deltas[open_]).any(axis=1)
                found[open_] |= other & (self._worths[numbers] < _GONE)
                rows = part.table.next_rows(rows)
        return found

    def _bases_at(self, positions: Positions) -> npt.NDArray[np.uint64]:
        bases = np.zeros((len(positions), _ID_WORDS), dtype=np.uint64)
        for part, inside, rows in self._by_part(positions):
            bases[inside] = _bases_of(part.table, rows)
        return bases

    def pack_numbers(self, positions: Positions) -> Positions:
        """Give for each place the number, in ``packs``, of the pack that the row points into."""
        numbers = np.empty(len(positions), dtype=np.int64)
        for part, inside, rows in self._by_part(positions):
            numbers[inside] = part.numbers[part.table.pack[rows]]
        return numbers

    def lengths(self, positions: Positions) -> Positions:
        """Give for each place the sealed bytes of the entry."""
        lengths = np.empty(len(positions), dtype=np.int64)
        for part, inside, rows in self._by_part(positions):
            lengths[inside] = part.table.place[rows] >> CODEC_BITS
        return lengths

    def offsets(self, positions: Positions) -> Positions:
        """Give for each place the offset of the entry in its pack."""
        offsets = np.empty(len(positions), dtype=np.int64)
        for part, inside, rows in self._by_part(positions):
            offsets[inside] = part.table.offset[rows]
        return offsets

    def _by_part(self, positions: Positions) -> Iterator[tuple[_Part, Positions, Positions]]:
        """Yield each part, which of the places are in it, and their rows there."""
        start = 0
        for part in self._parts:
            inside = np.flatnonzero((positions >= start) & (positions < start + len(part.table)))
            yield part, inside, positions[inside] - start
            start += len(part.table)

    @property
    def published_rows(self) -> int:
        """Rows that have a place: places go from 0 to one less."""
        return sum(len(part.table) for part in self._parts)

    def claim(self, chunk_id: bytes) -> bool:
        """Tell whether the caller must store this chunk: False when it is stored or another caller has it."""
        prefix = chunk_id[:PREFIX]
        with self._lock:
            if prefix in self._claimed:
                return False
            location = self.find(chunk_id)
            if location is None or not self._rely_on(location):
                self._claimed.add(prefix)
                return True
            return False

    def rely_on(self, location: Location) -> None:
        """Take note that what is new depends on this chunk."""
        with self._lock:
            self._rely_on(location)

    def take_relied_on(self) -> set[PackRecord]:
        """Give the packs that what is new since the last call depends on."""
        with self._lock:
            packs, self._relied_on = self._relied_on, set()
            return packs

    def note(self, pack: SealedPack) -> None:
        """Take in the entries of a pack that is now durable."""
        record = PackRecord(pack.kind, pack.digest, pack.size, pack.epoch, pack.seed)
        with self._lock:
            number = self._number(record)
            self._note_worths()
            for entry in pack.entries:
                self._fresh[entry.id[:PREFIX]] = (number, entry)
                self._claimed.discard(entry.id[:PREFIX])

    def drop_claims(self) -> None:
        """Forget what was claimed and never stored: the run that claimed it has failed."""
        with self._lock:
            self._claimed.clear()
            self._relied_on.clear()

    @property
    def fresh_rows(self) -> int:
        """Stored chunks that no published segment names yet."""
        return len(self._fresh)

    def unpublished(self) -> Segment | None:
        """Give the fresh rows as a segment to be stored, or None; ``published`` comes after."""
        with self._lock:
            if not self._fresh:
                return None
            numbers = sorted({number for number, _ in self._fresh.values()})
            local = {number: position for position, number in enumerate(numbers)}
            entries = ((local[number], entry) for number, entry in self._fresh.values())
            return Segment.of([self._packs[number] for number in numbers], entries)

    def published(self, segment: Segment) -> None:
        """Take note that the segment is durable, and with it every row that was fresh.

        Until then the rows stay fresh: a run that fails to publish must leave them to the next one,
        which would otherwise count on chunks that no stored segment lists.
        """
        with self._lock:
            self._adopt([Table.of(segment)])
            self._fresh.clear()

    def load(self, segments: Iterable[Segment]) -> None:
        """Take in published segments."""
        self.load_tables([Table.of(segment) for segment in segments])

    def extend_tables(self, tables: Sequence[Table]) -> None:
        """Take in the tables of segments that were published since; places stay as they are."""
        with self._lock:
            parts = [self._part(table) for table in tables if len(table)]
            self._note_worths()
            self._parts = (*self._parts, *parts)

    def load_tables(self, tables: Sequence[Table]) -> None:
        """Take in the tables of published segments."""
        with self._lock:
            self._adopt(tables)

    def _rely_on(self, location: Location) -> bool:
        """Note the packs that a chunk needs. False when one of them is not to be counted on."""
        if not self.is_sound(location):
            return False
        if location.entry.base:
            base = self.find(location.entry.base, whole=True)
            if base is None or not self.is_sound(base):
                return False
            self._relied_on.add(base.pack)
        self._relied_on.add(location.pack)
        return True

    def _set_worth(self, names: Iterable[str], worth: int) -> None:
        with self._lock:
            for name in names:
                self._worth[name] = max(worth, self._worth.get(name, _SOUND))
            self._worths = self._worths[:0]
            self._note_worths()

    def _note_worths(self) -> None:
        """Bring the column of worths up to the number of packs."""
        new = self._packs[len(self._worths) :]
        if new:
            worths = np.fromiter((self._worth.get(pack.name, _SOUND) for pack in new), np.uint8, len(new))
            self._worths = np.append(self._worths, worths)

    def _number(self, record: PackRecord) -> int:
        number = self._numbers.get(record.digest)
        if number is None:
            number = self._numbers[record.digest] = len(self._packs)
            self._packs.append(record)
        return number

    def _adopt(self, tables: Sequence[Table]) -> None:
        """Add tables; merge the small ones once they are many."""
        every = [*(part.table for part in self._parts), *(table for table in tables if len(table))]
        small = [table for table in every if len(table) < _SMALL]
        if len(small) > _SMALL_TABLES_MAX:
            every = [*(table for table in every if len(table) >= _SMALL), Table.merged(small)]
        numbered = {id(part.table): part for part in self._parts}
        parts = tuple(numbered.get(id(table)) or self._part(table) for table in every)
        self._note_worths()
        self._parts = parts

    def _part(self, table: Table) -> _Part:
        numbers = (self._number(record) for record in table.packs)
        return _Part(table, np.fromiter(numbers, np.int64, len(table.packs)))

    def _location(self, chunk_id: bytes, part: _Part, row: int) -> Location:
        table = part.table
        place = int(table.place[row])
        codec = place & CODEC_MASK
        base = table.base(row) if codec == DELTA else b""
        entry = Entry(chunk_id, int(table.offset[row]), place >> CODEC_BITS, codec, base)
        return Location(self._packs[int(part.numbers[table.pack[row]])], entry)


def _bases_of(table: Table, rows: Positions) -> npt.NDArray[np.uint64]:
    """Give for each row the id of its base as numbers; zeroes for what is no delta."""
    bases = np.zeros((len(rows), _ID_WORDS), dtype=np.uint64)
    deltas = table.is_delta(rows)
    if deltas.any():
        bases[deltas] = np.frombuffer(table.bases(rows[deltas]), dtype=np.uint64).reshape(-1, _ID_WORDS)
    return bases
