"""No file may own what the bitmap calls free: every record of the master file table is held against the map.

The same as ``record.py`` does for one record is done here for thousands at once, step by step side by
side, since a volume may have millions of files.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hotspare.block.ranges import Ranges
from hotspare.guest.unused.ntfs.boot import STRIDE, NtfsLayout
from hotspare.guest.unused.ntfs.record import DATA
from hotspare.guest.unused.ntfs.table import BAD_CLUSTERS, MasterFileTable
from hotspare.guest.unused.unused import KeepAll
from hotspare.guest.unused.volume_bytes import PIECE, Octets

_END = 0xFFFFFFFF
_DAMAGED = "a record of its master file table is damaged"

Numbers = NDArray[np.int64]


class _Owned(NamedTuple):
    """Runs of files, row by row: the first cluster, the one after the last, and the file's record."""

    first: Numbers
    end: Numbers
    record: Numbers


def refuse_files_in(table: MasterFileTable, unused: Ranges, owners: frozenset[int]) -> None:
    """Fail if any file owns a cluster of ``unused``.

    Args:
        table: all of whose records are read.
        unused: bytes of the volume.
        owners: numbers of the records of files that may.

    Raises:
        KeepAll: one does, or a record is damaged.
    """
    bounds = unused.bounds // table.layout.cluster
    if not len(bounds):
        return
    exempt = np.array(sorted(owners), dtype=np.int64)
    for owned in _all_owned(table):
        after = np.searchsorted(bounds[:, 1], owned.first, side="right")
        within = np.minimum(after, len(bounds) - 1)
        hit = (after < len(bounds)) & (bounds[within, 0] < owned.end)
        if np.any(hit & ~np.isin(owned.record, exempt)):
            raise KeepAll("files own clusters that its bitmap says are free")


def _all_owned(table: MasterFileTable) -> Iterator[_Owned]:
    size = table.layout.record
    number = 0
    for octets in _gathered(table.data.pieces(table.volume, table.data.initialized // size * size), size):
        records = octets.reshape(-1, size)
        yield _owned(records, number, table.layout)
        number += len(records)


def _gathered(pieces: Iterator[Octets], size: int) -> Iterator[Octets]:
    """Join pieces, which may be short and need not end with a record, to long ones that do."""
    waiting, held = [np.empty(0, dtype=np.uint8)], 0
    for piece in pieces:
        waiting.append(piece)
        held += len(piece)
        if held >= PIECE:
            octets = np.concatenate(waiting)
            whole = held // size * size
            waiting, held = [octets[whole:]], held - whole
            yield octets[:whole]
    if held:
        yield np.concatenate(waiting)


def _owned(records: Octets, number: int, layout: NtfsLayout) -> _Owned:
    """Give the runs of all records in use.

    Args:
        records: shape (records, bytes of one).
        number: of the first.
        layout: of the volume.
    """
    magic = records[:, :4].copy().view("<u4")[:, 0]
    if np.any(magic == int.from_bytes(b"BAAD", "little")):
        raise KeepAll(_DAMAGED)
    is_used = (magic == int.from_bytes(b"FILE", "little")) & (records[:, 0x16] & 1 == 1)
    rows = np.flatnonzero(is_used)
    grid = _Grid(_repaired(records[rows]))
    base = grid.number(np.arange(len(rows)), np.full(len(rows), 0x20), 6)
    file = np.where(base != 0, base, rows + number)
    row, at = _attributes_outside(grid)
    is_bad = (
        (file[row] == BAD_CLUSTERS) & (grid.number(row, at, 4) == DATA) & (grid.number(row, at + 9, 1) > 0)
    )
    row, at = row[~is_bad], at[~is_bad]
    return _decoded(grid, row, at, file, layout.clusters)


class _Grid:
    """Records side by side, with room behind each for reads that begin at its end."""

    def __init__(self, records: Octets) -> None:
        self.count, self.size = records.shape
        self._width = self.size + 16
        padded = np.zeros((self.count, self._width), dtype=np.uint8)
        padded[:, : self.size] = records
        self._flat = padded.reshape(-1)

    def number(self, row: Numbers, at: Numbers, octets: int) -> Numbers:
        """Give the little-endian number of up to 7 bytes at a place in each of some records."""
        places = row * self._width + at
        total = np.zeros(len(places), dtype=np.int64)
        for step in range(octets):
            total |= self._flat[places + step].astype(np.int64) << (8 * step)
        return total

    def signed(self, row: Numbers, at: Numbers, sizes: Numbers) -> Numbers:
        """Give signed numbers of ``sizes`` bytes each, up to 8; 0 for those of no bytes."""
        places = row * self._width + at
        total = np.zeros(len(places), dtype=np.int64)
        for step in range(int(sizes.max(initial=0))):
            octet = self._flat[places + step].astype(np.int64)
            total |= np.where(step < sizes, octet << (8 * step), 0)
        unused_bits = np.where(sizes > 0, 64 - 8 * sizes, 0)
        return total << unused_bits >> unused_bits


def _repaired(records: Octets) -> Octets:
    """Undo the protection of records against torn writes; see ``boot.repaired``."""
    count, size = records.shape
    strides = size // STRIDE
    at = records[:, 4].astype(np.int64) | records[:, 5].astype(np.int64) << 8
    entries = records[:, 6].astype(np.int64) | records[:, 7].astype(np.int64) << 8
    if np.any((entries != strides + 1) | (at + 2 * entries > STRIDE - 2)):
        raise KeepAll(_DAMAGED)
    row = np.arange(count)
    whole = records.copy()
    for stride in range(strides):
        for half in (0, 1):
            end = (stride + 1) * STRIDE - 2 + half
            if np.any(records[:, end] != records[row, at + half]):
                raise KeepAll("a record of its master file table was not written as a whole")
            whole[:, end] = records[row, at + 2 * (stride + 1) + half]
    return whole


def _attributes_outside(grid: _Grid) -> tuple[Numbers, Numbers]:
    """Find all attributes whose content lies outside of their records: the row of each, and where in it."""
    row = np.arange(grid.count)
    at = grid.number(row, np.full(grid.count, 0x14), 2)
    found: list[tuple[Numbers, Numbers]] = [(row[:0], at[:0])]
    while len(row):
        if np.any(at > grid.size - 4):
            raise KeepAll(_DAMAGED)
        goes_on = grid.number(row, at, 4) != _END
        row, at = row[goes_on], at[goes_on]
        length = grid.number(row, at + 4, 4)
        if np.any((length < 0x18) | (length > grid.size - at)):
            raise KeepAll(_DAMAGED)
        outside = grid.number(row, at + 8, 1) == 1
        found.append((row[outside], at[outside]))
        at = at + length
    rows, places = zip(*found, strict=True)
    return np.concatenate(rows), np.concatenate(places)


def _decoded(grid: _Grid, row: Numbers, attribute: Numbers, file: Numbers, clusters: int) -> _Owned:
    """Decode the run lists of attributes; see ``ntfs_record.decode_runs``."""
    end = attribute + grid.number(row, attribute + 4, 4)
    at = attribute + grid.number(row, attribute + 0x20, 2)
    # Lengths and last clusters are far below 2**56 in a volume: what is not is found to be wrong below.
    missing = grid.number(row, attribute + 0x18, 7) + 1 - grid.number(row, attribute + 0x10, 7)
    missing &= (1 << 56) - 1
    place = np.zeros(len(row), dtype=np.int64)
    parts: list[_Owned] = [_Owned(row[:0], row[:0], row[:0])]
    while len(row):
        if np.any(at >= end):
            raise KeepAll("a run list is damaged")
        header = grid.number(row, at, 1)
        if np.any(missing[header == 0]):
            raise KeepAll("a run list is not as long as it says")
        goes_on = header != 0
        row, at, end, place, missing, header = (
            column[goes_on] for column in (row, at, end, place, missing, header)
        )
        length_size, step_size = header & 0xF, header >> 4
        after = at + 1 + length_size + step_size
        if np.any((length_size < 1) | (length_size > 8) | (step_size > 8) | (after > end)):
            raise KeepAll("a run list is damaged")
        length = grid.signed(row, at + 1, length_size)
        step = grid.signed(row, at + 1 + length_size, step_size)
        if np.any((length < 1) | (length > missing) | (np.abs(step) > clusters)):
            raise KeepAll("a run list leads out of the volume")
        place = place + step
        if np.any((step_size > 0) & ((place < 0) | (length > clusters - place))):
            raise KeepAll("a run list leads out of the volume")
        here = step_size > 0
        parts.append(_Owned(place[here], (place + length)[here], file[row[here]]))
        missing, at = missing - length, after
    first, ends, records = zip(*parts, strict=True)
    return _Owned(np.concatenate(first), np.concatenate(ends), np.concatenate(records))
