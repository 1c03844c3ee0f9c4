"""What the blocks of a disk are like: 32 bytes for each, to be compared with those of another host.

A block that is all zeroes has a digest of zeroes, and is not even read where the disk knows that it holds
nothing. All others have their BLAKE3: two different blocks of one digest cannot be made, not even on purpose.
"""

from typing import Protocol, Self

from blake3 import blake3

from hotspare.block.device import BlockReader
from hotspare.block.extent import ExtentKind
from hotspare.block.zeroes import is_zero
from hotspare.units import KIB, MIB

BLOCK = 64 * KIB
"""Bytes that one digest is of, the last one of a disk fewer: what a qcow2 image allocates at a time."""
BATCH = 4 * MIB
"""Bytes whose digests are asked for at a time."""
DIGEST_SIZE = 32
ZERO_DIGEST = bytes(DIGEST_SIZE)


class RangeHasher(Protocol):
    """The disk on the other side, as far as comparing needs it. One for each thread."""

    size: int
    """Bytes."""

    def digests(self, offset: int, length: int) -> bytes:
        """Give the digests of the blocks from ``offset`` on, one after the other.

        Args:
            offset: a multiple of ``BLOCK``.
            length: a multiple of ``BLOCK``, or up to the disk's end.

        Raises:
            SourceLost: the disk, or who reads it, went away.
        """
        ...

    def clone(self) -> Self:
        """Give another for another thread."""
        ...

    def close(self) -> None:
        """Let go of it; a second call does nothing."""
        ...


class LocalHasher:
    """Hashes a disk that is open here. Closes it in the end."""

    def __init__(self, reader: BlockReader) -> None:
        self.size = reader.size
        self._reader = reader
        self._buffer = memoryview(bytearray(BATCH))

    def digests(self, offset: int, length: int) -> bytes:
        """Read and hash, in steps of bounded memory."""
        parts = []
        for at in range(offset, offset + length, BATCH):
            piece = self._buffer[: min(BATCH, offset + length - at)]
            parts.append(read_and_hash(self._reader, at, piece))
        return b"".join(parts)

    def clone(self) -> "LocalHasher":
        """Open the disk once more."""
        return LocalHasher(self._reader.clone())

    def close(self) -> None:
        """Close the disk."""
        self._reader.close()


def read_and_hash(reader: BlockReader, offset: int, buffer: memoryview) -> bytes:
    """Fill a buffer from a disk and give the digests of the blocks in it.

    Raises:
        SourceLost: the disk went away.
    """
    for extent in reader.extents(offset, len(buffer)):
        piece = buffer[extent.offset - offset : extent.end - offset]
        if extent.kind is ExtentKind.ZERO:
            piece[:] = bytes(len(piece))
        else:
            reader.read_into(extent.offset, piece)
    return digests_of(buffer)


def digests_of(data: memoryview) -> bytes:
    """Give the digests of the blocks of bytes in memory; the last block may be a short one."""
    return b"".join(_digest(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK))


def _digest(block: memoryview) -> bytes:
    return ZERO_DIGEST if is_zero(block) else blake3(block).digest()
