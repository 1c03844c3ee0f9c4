"""Fetching what will be read next, while what was fetched is used.

A store answers late, but many questions at once.
"""

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from hotspare.block.device import BlockReader
from hotspare.block.extent import Extent
from hotspare.units import MIB

_PIECE = 2 * MIB
_AHEAD = 6
"""Pieces that are fetched at once."""
_KEPT = 2 * _AHEAD
_RUN_MIN = 1 * MIB
"""After so many bytes in a row, more are expected."""


class ReadAhead:
    """A ``BlockReader`` over another, which it owns. An instance belongs to one thread at a time."""

    def __init__(self, disk: BlockReader) -> None:
        self.size = disk.size
        self._disk = disk
        self._pool: ThreadPoolExecutor | None = None
        self._pieces: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._next = self._run = 0

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield what the range is made of; see the contract."""
        return self._disk.extents(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill all of ``buffer`` from ``offset``; see the contract."""
        self._run = self._run + len(buffer) if offset == self._next else len(buffer)
        self._next = offset + len(buffer)
        numbers = range(offset // _PIECE, -(-(offset + len(buffer)) // _PIECE))
        if self._run < _RUN_MIN and not all(number in self._pieces for number in numbers):
            self._disk.read_into(offset, buffer)
            return
        filled = 0
        for number in numbers:
            piece = self._piece(number)
            start = offset + filled - number * _PIECE
            part = piece[start : start + len(buffer) - filled]
            buffer[filled : filled + len(part)] = part
            filled += len(part)

    def clone(self) -> Self:
        """Open the same disk once more, for another thread."""
        return type(self)(self._disk.clone())

    def close(self) -> None:
        """Let go of the disk; a second call does nothing."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._pieces.clear()
        self._disk.close()

    def _piece(self, wanted: int) -> bytes:
        pool = self._pool = self._pool or ThreadPoolExecutor(_AHEAD, thread_name_prefix="read-ahead")
        for number in range(wanted, min(wanted + _AHEAD, -(-self.size // _PIECE))):
            if number not in self._pieces:
                self._pieces[number] = pool.submit(self._fetch, number)
        self._pieces.move_to_end(wanted)
        while len(self._pieces) > _KEPT:
            self._pieces.popitem(last=False)[1].cancel()
        try:
            return self._pieces[wanted].result()
        except BaseException:
            del self._pieces[wanted]  # the next attempt asks again
            raise

    def _fetch(self, number: int) -> bytes:
        start = number * _PIECE
        piece = bytearray(min(_PIECE, self.size - start))
        disk = self._disk.clone()
        try:
            disk.read_into(start, memoryview(piece))
        finally:
            disk.close()
        return bytes(piece)
