"""The contract of whatever can be read or written as a disk.

Implemented by files (``file.py``), NBD connections (``nbd/client.py``) and a disk inside a
repository (``repository/disk.py``). An instance belongs to one thread at a time; ``clone`` gives
another on the same disk for another thread.
"""

from collections.abc import Iterator
from typing import Protocol, Self

from typing_extensions import Buffer

from hotspare.block.extent import Extent


class BlockReader(Protocol):
    """A disk that can be read."""

    size: int
    """Bytes, fixed for the life of the reader."""

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield what the range is made of: ordered, without gaps or overlaps, covering it exactly."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill all of ``buffer`` with the bytes from ``offset``.

        Raises:
            SourceLost: the disk went away or stopped answering.
        """
        ...

    def clone(self) -> Self:
        """Open the same disk once more, for another thread."""
        ...

    def close(self) -> None:
        """Let go of the disk; a second call does nothing."""
        ...


class BlockWriter(Protocol):
    """A disk that can be written. Bytes that were never written read as whatever was there before."""

    size: int

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of ``data`` at ``offset``; it may be buffered until ``flush``."""
        ...

    def write_zeroes(self, offset: int, length: int) -> None:
        """Make the range read as zeroes, without allocating space where the target can do that."""
        ...

    def flush(self) -> None:
        """Return when everything written through this writer or a clone of it is durable."""
        ...

    def clone(self) -> Self:
        """Open the same disk once more, for another thread."""
        ...

    def close(self) -> None:
        """Let go of the disk; a second call does nothing. Does not flush."""
        ...


class BlockDisk(BlockReader, BlockWriter, Protocol):
    """A disk that can be read and written."""
