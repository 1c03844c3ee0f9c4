"""Small reads within a part of a disk, such as a partition."""

from typing import Protocol


class Bytes(Protocol):
    """Something that any few bytes can be read of: a ``CachedReader``, or a window of one."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Give the bytes from ``offset``: fewer than ``length`` only where it ends before.

        Raises:
            SourceLost, StorageError, RepositoryDamaged: the disk cannot be read.
        """
        ...


class Window:
    """The bytes of ``whole`` from ``start`` up to ``end``, which are inside it."""

    def __init__(self, whole: Bytes, start: int, end: int) -> None:
        self.size = end - start
        self._whole = whole
        self._start = start

    def read(self, offset: int, length: int) -> bytes:
        """See ``Bytes``."""
        if not 0 <= offset < self.size:
            return b""
        return self._whole.read(self._start + offset, min(length, self.size - offset))


class Outside:
    """The bytes of ``whole`` with zeroes in place of the runs (start, end) that belong to others."""

    def __init__(self, whole: Bytes, others: list[tuple[int, int]]) -> None:
        self.size = whole.size
        self._whole = whole
        self._others = others

    def read(self, offset: int, length: int) -> bytes:
        """See ``Bytes``."""
        found = bytearray(self._whole.read(offset, length))
        for start, end in self._others:
            first, last = max(start - offset, 0), min(end - offset, len(found))
            if first < last:
                found[first:last] = bytes(last - first)
        return bytes(found)
