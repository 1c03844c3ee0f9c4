"""An image with some bytes exchanged, without a copy of it: for tests on broken and hostile volumes."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from hotspare.block.extent import Extent
from hotspare.block.file import RawFile


class Overlaid:
    """A ``BlockReader`` over an image; what ``put`` writes stays in memory."""

    def __init__(self, image: Path) -> None:
        self._base = RawFile.open(image)
        self.size = self._base.size
        self.patches: dict[int, bytes] = {}
        self.bytes_read = 0

    def put(self, offset: int, data: bytes) -> None:
        self.patches[offset] = data

    def get(self, offset: int, length: int) -> bytes:
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        end = offset + len(buffer)
        assert 0 <= offset <= end <= self.size
        self._base.read_into(offset, buffer)
        self.bytes_read += len(buffer)
        for at, data in self.patches.items():
            first, last = max(at, offset), min(at + len(data), end)
            if first < last:
                buffer[first - offset : last - offset] = data[first - at : last - at]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        return self._base.extents(offset, length)

    def clone(self) -> Self:
        raise NotImplementedError

    def close(self) -> None:
        self._base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
