"""Small reads of a disk, served from larger blocks that are kept in memory.

File systems are read in pieces of some bytes to some KiB, often the same ones again; a disk in a repository,
or behind NBD, is better read in blocks.
"""

import threading
from collections import OrderedDict
from typing import Self

from hotspare.block.device import BlockReader
from hotspare.units import KIB, MIB

BLOCK = 256 * KIB
_BYTES_MAX = 32 * MIB


class _Blocks:
    """Blocks used lately, by their number. Thread-safe."""

    def __init__(self, bytes_max: int) -> None:
        self._room = max(1, bytes_max // BLOCK)
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def get(self, number: int) -> bytes | None:
        with self._lock:
            block = self._blocks.get(number)
            if block is not None:
                self._blocks.move_to_end(number)
            return block

    def put(self, number: int, block: bytes) -> None:
        with self._lock:
            self._blocks[number] = block
            while len(self._blocks) > self._room:
                self._blocks.popitem(last=False)


class CachedReader:
    """Reads any bytes of a disk or volume through a cache. An instance belongs to one thread at a time.

    Args:
        disk: what is read; closed by whoever opened it.
        bytes_max: how much of it is kept.
    """

    def __init__(self, disk: BlockReader, *, bytes_max: int = _BYTES_MAX) -> None:
        self.size = disk.size
        self._disk = disk
        self._blocks = _Blocks(bytes_max)

    def read(self, offset: int, length: int) -> bytes:
        """Give the bytes from ``offset``: fewer than ``length`` only where the disk ends before.

        Raises:
            SourceLost, StorageError, RepositoryDamaged: the disk cannot be read.
        """
        end = min(offset + length, self.size)
        if offset < 0 or offset >= end:
            return b""
        first, last = offset // BLOCK, (end - 1) // BLOCK
        if first == last:
            return self._block(first)[offset - first * BLOCK : end - first * BLOCK]
        found = b"".join(self._block(number) for number in range(first, last + 1))
        return found[offset - first * BLOCK : end - first * BLOCK]

    def clone(self) -> Self:
        """Give a reader for another thread, upon the same blocks."""
        other = type(self)(self._disk.clone())
        other._blocks = self._blocks
        return other

    def close(self) -> None:
        """Close what ``clone`` opened, or the disk."""
        self._disk.close()

    def _block(self, number: int) -> bytes:
        block = self._blocks.get(number)
        if block is None:
            start = number * BLOCK
            buffer = bytearray(min(BLOCK, self.size - start))
            self._disk.read_into(start, memoryview(buffer))
            block = bytes(buffer)
            self._blocks.put(number, block)
        return block
