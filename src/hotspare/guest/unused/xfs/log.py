"""The journal of XFS: whether mounting would change anything by it.

After *XFS Algorithms & Data Structures*, "Journaling Log". The journal is a ring of basic blocks of 512
bytes. The first four bytes of each are the cycle in which it was written, or, in the first block of a
record, a magic number with the cycle after it; the cycle falls by one at the head, where the next record
will go. Each record names the tail: where a replay begins.

- Unmounted: the last record is an unmount record. A replay does nothing.
- Mounted and frozen, or idle for a while: everything logged was written to its place, and what lies between
  tail and head are changes of the superblock alone, which XFS logs to mark the tail (and, frozen, so that a
  crash is noticed). A replay writes that one block, and allocates and frees nothing. This proves more than
  having frozen it: whatever else was going on is not in the journal, so after a restart it never happened.
- Anything else may allocate or free blocks when it is replayed, and the btrees on disk are of another time.
"""

import struct
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from hotspare.guest.unused.unused import KeepAll, Quiet
from hotspare.guest.unused.volume_bytes import VolumeBytes
from hotspare.guest.unused.xfs.geometry import Geometry
from hotspare.guest.unused.xfs.log_record import (
    BASIC_BLOCK,
    RECORD_BLOCKS_MAX,
    RECORD_MAGIC,
    Position,
    Record,
    changes_superblock_only,
    is_unmount,
    parse_record,
)

_WINDOW = 4096
"""Basic blocks around the head whose cycles are all looked at: writes in flight reach no further (8 of 256
KiB)."""
_COVER_MAX = 4096
"""Basic blocks that a few changes of the superblock can take, each padded to a stripe of up to 256 KiB."""


class LogState(Enum):
    """Why a replay would change nothing but the superblock."""

    UNMOUNTED = "unmounted"
    COVERED = "covered"


def check_log(reader: VolumeBytes, geometry: Geometry, quiet: Quiet) -> LogState:
    """Make sure that mounting would neither allocate nor free a block.

    Raises:
        KeepAll: it would, or the journal makes no sense.
        SourceLost, StorageError, RepositoryDamaged: it cannot be read.
    """
    log = _Log(reader, geometry)
    last = log.last_record()
    if log.after(last) == log.head and is_unmount(last):
        return LogState.UNMOUNTED
    if quiet is Quiet.OFFLINE:
        raise KeepAll("its journal is not empty: it was not unmounted")
    for record in log.records_from(last.tail):
        if not changes_superblock_only(record, geometry.sector_size):
            raise _missed("its journal holds changes")
    return LogState.COVERED


def _missed(why: str) -> KeepAll:
    return KeepAll(f"it is mounted, and missed by the freeze: {why}")


class _Log:
    """The ring, with its head found."""

    def __init__(self, reader: VolumeBytes, geometry: Geometry) -> None:
        self._reader = reader
        self._geometry = geometry
        self._blocks = geometry.log_size // BASIC_BLOCK
        self._first = self._cycle_at(0)
        self._last = self._cycle_at(self._blocks - 1)
        self.head = self._find_head()
        """Block after the last one written."""
        self._check_window()

    def after(self, record: Record) -> int:
        """Give the block after a record."""
        return (record.position.block + record.blocks) % self._blocks

    def last_record(self) -> Record:
        """Find the last record before the head."""
        reach = min(RECORD_BLOCKS_MAX, self._blocks)
        words = self._words(self.head - reach, reach)
        places = np.flatnonzero(words[:, 0] == RECORD_MAGIC)
        if not len(places):
            raise self._wrong("no record")
        return self._record_at((self.head - reach + int(places[-1])) % self._blocks)

    def records_from(self, tail: Position) -> list[Record]:
        """Give all records from the tail on, which must end at the head exactly."""
        if tail.block >= self._blocks or tail.cycle != self._cycle_of(tail.block):
            raise self._wrong("tail")
        left = (self.head - tail.block) % self._blocks
        if left > _COVER_MAX:
            raise _missed("its journal is not empty")
        records = []
        while left > 0:
            records.append(self._record_at((self.head - left) % self._blocks))
            left -= records[-1].blocks
        if left or not records:
            raise _missed("its journal does not end with a whole record")
        return records

    def _record_at(self, block: int) -> Record:
        position = Position(self._cycle_of(block), block)
        data = self._read(block, min(RECORD_BLOCKS_MAX, self._blocks))
        return parse_record(data, position, self._geometry.uuid, has_checksums=self._geometry.has_checksums)

    def _find_head(self) -> int:
        """Find the first block of an older cycle by halving; 0 where the journal is full of one."""
        if not self._first:
            raise self._wrong("nothing was ever written")
        if self._first == self._last:
            return 0
        low, high = 0, self._blocks - 1
        if self._first != self._last + 1:
            raise self._wrong("cycles")
        while high - low > 1:
            middle = (low + high) // 2
            cycle = self._cycle_at(middle)
            if cycle not in {self._first, self._last}:
                raise self._wrong("cycles")
            low, high = (middle, high) if cycle == self._first else (low, middle)
        return high

    def _check_window(self) -> None:
        """Look for blocks of another cycle around the head, as writes leave that a power cut broke off."""
        reach = min(_WINDOW, self._blocks // 2)
        start = self.head - reach
        words = self._words(start, 2 * reach)
        cycles = np.where(words[:, 0] == RECORD_MAGIC, words[:, 1], words[:, 0])
        places = np.arange(start, start + 2 * reach) % self._blocks
        if not np.array_equal(cycles, np.where(places < self.head, self._first, self._last)):
            raise self._wrong("cycles around its head")

    def _cycle_of(self, block: int) -> int:
        return self._first if block < self.head else self._last

    def _cycle_at(self, block: int) -> int:
        magic, cycle = struct.unpack_from(">II", self._read(block, 1))
        return int(cycle if magic == RECORD_MAGIC else magic)

    def _words(self, block: int, count: int) -> NDArray[np.int64]:
        """Give the first two words of each block."""
        words = np.frombuffer(self._read(block % self._blocks, count), dtype=">u4")
        return words.reshape(count, -1)[:, :2].astype(np.int64)

    def _read(self, block: int, count: int) -> bytes:
        """Read round the ring."""
        start, size = self._geometry.log_start, BASIC_BLOCK
        until_end = min(count, self._blocks - block)
        found = self._reader.read(start + block * size, until_end * size)
        if count > until_end:
            found += self._reader.read(start, (count - until_end) * size)
        return found

    @staticmethod
    def _wrong(what: str) -> KeepAll:
        return KeepAll(f"its journal makes no sense ({what})")
