"""A disk in memory, for tests of what happens above the block layer."""

from collections.abc import Iterator
from typing import Self

from typing_extensions import Buffer

from hotspare.block.extent import Extent, ExtentKind

_GRAIN = 4096


class MemoryDisk:
    """A ``BlockReader`` and ``BlockWriter``; blocks of zeroes are its holes."""

    def __init__(self, data: Buffer) -> None:
        self.data = data if isinstance(data, bytearray) else bytearray(data)
        self.size = len(self.data)
        self.bytes_read = 0

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        start, kind = offset, self._kind(offset)
        at = offset
        while at < end:
            found = self._kind(at)
            if found is not kind:
                yield Extent(start, at - start, kind)
                start, kind = at, found
            at = min(end, (at // _GRAIN + 1) * _GRAIN)
        if end > start:
            yield Extent(start, end - start, kind)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        assert offset + len(buffer) <= self.size
        buffer[:] = self.data[offset : offset + len(buffer)]
        self.bytes_read += len(buffer)

    def write(self, offset: int, data: Buffer) -> None:
        view = memoryview(data)
        assert offset + len(view) <= self.size
        self.data[offset : offset + len(view)] = view

    def write_zeroes(self, offset: int, length: int) -> None:
        self.data[offset : offset + length] = bytes(length)

    def flush(self) -> None:
        pass

    def clone(self) -> Self:
        return self

    def close(self) -> None:
        pass

    def _kind(self, offset: int) -> ExtentKind:
        start = offset // _GRAIN * _GRAIN
        return ExtentKind.DATA if any(self.data[start : start + _GRAIN]) else ExtentKind.ZERO
