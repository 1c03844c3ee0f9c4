"""A segment in the form that is searched: columns of native numbers, in memory or in a mapped file."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hotspare.repository.codec import DELTA
from hotspare.repository.index import filter as id_filter
from hotspare.repository.index.segment import CODEC_BITS, PackRecord, Segment

CODEC_MASK = (1 << CODEC_BITS) - 1

Column = npt.NDArray[Any]


class Keys(NamedTuple):
    """The first 16 bytes of chunk ids, as two columns of numbers."""

    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, ids: bytes, size: int) -> "Keys":
        """Read concatenated ids of ``size`` bytes each."""
        words = np.frombuffer(ids, dtype=">u8").reshape(-1, size // 8)
        return cls(words[:, 0].astype(np.uint64), words[:, 1].astype(np.uint64))


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows sorted by id; of several rows of one id, those that are no deltas come first."""

    packs: tuple[PackRecord, ...]
    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]
    filter: npt.NDArray[np.uint64]
    pack: npt.NDArray[np.uint32]
    offset: npt.NDArray[np.uint32]
    place: npt.NDArray[np.uint32]
    delta_rows: npt.NDArray[np.uint32]
    """Numbers of the rows of deltas, sorted."""
    delta_bases: Column
    """The whole ids of their bases."""

    @classmethod
    def of(cls, segment: Segment) -> "Table":
        """Make the table of a segment."""
        rows = segment.rows
        keys = Keys.of(rows["id"].tobytes(), 16)
        place = rows["place"].astype(np.uint32)
        same = (keys.high[1:] == keys.high[:-1]) & (keys.low[1:] == keys.low[:-1])
        order = np.lexsort((place & CODEC_MASK == DELTA, keys.low, keys.high)) if same.any() else None
        return cls._ordered(
            segment.packs,
            keys,
            (rows["pack"].astype(np.uint32), rows["offset"].astype(np.uint32), place),
            segment.bases["row"].astype(np.uint32),
            segment.bases["id"].copy(),
            order,
        )

    @classmethod
    def merged(cls, tables: list["Table"]) -> "Table":
        """Put tables together; rows that are the same in all respects become one."""
        packs, numbers = merge_packs(tables)
        keys = Keys(*(np.concatenate([getattr(table, name) for table in tables]) for name in ("high", "low")))
        pack = np.concatenate([numbers[at][table.pack] for at, table in enumerate(tables)])
        offset, place = (
            np.concatenate([getattr(table, name) for table in tables]) for name in ("offset", "place")
        )
        starts = np.cumsum([0, *(len(table.high) for table in tables)])
        delta_rows = np.concatenate(
            [table.delta_rows + np.uint32(starts[at]) for at, table in enumerate(tables)]
        )
        bases = np.concatenate([table.delta_bases for table in tables])
        order = np.lexsort((place, offset, pack, place & CODEC_MASK == DELTA, keys.low, keys.high))
        again = np.ones(len(order), dtype=np.bool_)
        for column in (keys.high, keys.low, pack, offset, place):
            again[1:] &= column[order[1:]] == column[order[:-1]]
        again[:1] = False
        _keep_other_bases(again, order, place, delta_rows, bases)
        return cls._ordered(packs, keys, (pack, offset, place), delta_rows, bases, order[~again])

    @classmethod
    def _ordered(
        cls,
        packs: tuple[PackRecord, ...],
        keys: Keys,
        columns: tuple[Column, Column, Column],
        delta_rows: npt.NDArray[np.uint32],
        bases: Column,
        order: npt.NDArray[np.int64] | None,
    ) -> "Table":
        """Finish a table, with its rows put in order; None leaves them as they are."""
        pack, offset, place = columns
        high, low = keys
        if order is not None:
            new = np.full(len(high), -1, dtype=np.int64)
            new[order] = np.arange(len(order))
            high, low, pack, offset, place = (column[order] for column in (high, low, pack, offset, place))
            moved = new[delta_rows]
            kept = np.flatnonzero(moved >= 0)
            kept = kept[np.argsort(moved[kept])]
            delta_rows, bases = moved[kept].astype(np.uint32), bases[kept]
        return cls(packs, high, low, id_filter.build(low), pack, offset, place, delta_rows, bases)

    def only(self, rows: npt.NDArray[np.int64]) -> "Table":
        """Give a table of these rows, which come in rising order, and of the packs they point into."""
        left, pack = np.unique(self.pack[rows], return_inverse=True)
        columns = np.zeros(len(self), dtype=np.uint32)
        columns[rows] = pack
        packs = tuple(self.packs[number] for number in left.tolist())
        keys = Keys(self.high, self.low)
        rest = (columns, self.offset, self.place)
        return self._ordered(packs, keys, rest, self.delta_rows, self.delta_bases, rows)

    def __len__(self) -> int:
        return len(self.high)

    def prefix(self, row: int) -> bytes:
        """Give the first bytes of a row's id."""
        return int(self.high[row]).to_bytes(8, "big") + int(self.low[row]).to_bytes(8, "big")

    def find(self, high: int, low: int) -> int:
        """Give the first row of an id, -1 when there is none."""
        if not id_filter.may_have_one(self.filter, low):
            return -1
        at = int(self.high.searchsorted(np.uint64(high)))
        while at < len(self.high) and self.high[at] == high:
            if self.low[at] == low:
                return at
            at += 1
        return -1

    def next_row(self, row: int) -> int:
        """Give the next row of the same id, -1 when there is none."""
        following = row + 1
        if following < len(self.high) and self.prefix(following) == self.prefix(row):
            return following
        return -1

    def next_rows(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Give for each row the next one of the same id, -1 where there is none."""
        following = np.minimum(rows + 1, len(self.high) - 1)
        same = (self.high[following] == self.high[rows]) & (self.low[following] == self.low[rows])
        return np.where(same & (following > rows), following, -1)

    def search(self, keys: Keys) -> npt.NDArray[np.int64]:
        """Give for each key its first row, -1 where there is none."""
        found = np.full(len(keys.low), -1, dtype=np.int64)
        open_ = np.flatnonzero(id_filter.may_have(self.filter, keys.low))
        at = np.searchsorted(self.high, keys.high[open_])
        while len(open_):
            inside = at < len(self.high)
            open_, at = open_[inside], at[inside]
            candidate = self.high[at] == keys.high[open_]
            open_, at = open_[candidate], at[candidate]
            hit = self.low[at] == keys.low[open_]
            found[open_[hit]] = at[hit]
            open_, at = open_[~hit], at[~hit] + 1
        return found

    def is_delta(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell of rows whether they are of deltas."""
        deltas: npt.NDArray[np.bool_] = self.place[rows] & CODEC_MASK == DELTA
        return deltas

    def base(self, row: int) -> bytes:
        """Give the id of the base of a delta's row."""
        at = int(self.delta_rows.searchsorted(np.uint32(row)))
        found: bytes = self.delta_bases[at].tobytes()
        return found

    def bases(self, rows: npt.NDArray[np.int64]) -> bytes:
        """Give the concatenated ids of the bases of deltas' rows."""
        found: bytes = self.delta_bases[np.searchsorted(self.delta_rows, rows)].tobytes()
        return found


def _keep_other_bases(
    again: npt.NDArray[np.bool_],
    order: npt.NDArray[np.int64],
    place: Column,
    delta_rows: Column,
    bases: Column,
) -> None:
    """Take out of ``again`` the deltas that have another base than the row before them in ``order``."""
    doubled = np.flatnonzero(again & (place[order] & CODEC_MASK == DELTA))
    words = bases.view(np.uint64).reshape(-1, bases.dtype.itemsize // 8)
    own, before = (words[np.searchsorted(delta_rows, order[rows])] for rows in (doubled, doubled - 1))
    again[doubled] = (own == before).all(axis=1)


def merge_packs(tables: list[Table]) -> tuple[tuple[PackRecord, ...], list[npt.NDArray[np.uint32]]]:
    """Give the packs of all tables once, and for each table the new numbers of its packs."""
    numbers: dict[bytes, int] = {}
    packs: list[PackRecord] = []
    mappings = []
    for table in tables:
        mapping = np.empty(len(table.packs), dtype=np.uint32)
        for at, record in enumerate(table.packs):
            number = numbers.setdefault(record.digest, len(packs))
            if number == len(packs):
                packs.append(record)
            mapping[at] = number
        mappings.append(mapping)
    return tuple(packs), mappings
