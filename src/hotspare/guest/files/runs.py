"""A file's content as runs of its volume."""

import bisect
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hotspare.errors import FileSystemUnreadable
from hotspare.guest.cached_reader import CachedReader


class Run(NamedTuple):
    """``length`` bytes of a file from ``offset``, stored at ``place`` of the volume.

    What no run covers reads as zeroes.
    """

    offset: int
    length: int
    place: int


def place_of(runs: Sequence[Run], offset: int) -> int:
    """Give where a byte lies that one of the runs covers."""
    run = runs[bisect.bisect_right(runs, offset, key=_offset) - 1]
    return run.place + offset - run.offset


def _offset(run: Run) -> int:
    return run.offset


class RunContent:
    """Reads a file by its runs, which are in order and do not overlap."""

    def __init__(self, reader: CachedReader, size: int, runs: Sequence[Run]) -> None:
        self.size = size
        self._reader = reader
        self._runs = runs
        self._starts = [run.offset for run in runs]

    def read(self, offset: int, length: int) -> bytes:
        """Give the bytes from ``offset``; see the contract."""
        if offset < 0 or length <= 0:
            return b""
        at, end = offset, min(offset + length, self.size)
        pieces: list[bytes] = []
        for index in range(max(0, bisect.bisect_right(self._starts, offset) - 1), len(self._runs)):
            run = self._runs[index]
            if run.offset >= end or at >= end:
                break
            if run.offset + run.length <= at:
                continue
            if run.offset > at:
                pieces.append(bytes(run.offset - at))
                at = run.offset
            take = min(end, run.offset + run.length) - at
            piece = self._reader.read(run.place + at - run.offset, take)
            if len(piece) < take:
                raise FileSystemUnreadable("A file goes beyond the end of its volume, which was cut off")
            pieces.append(piece)
            at += take
        if at < end:
            pieces.append(bytes(end - at))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def holes(self) -> Iterator[tuple[int, int]]:
        """Yield runs that are not stored; see the contract."""
        at = 0
        for run in self._runs:
            if run.offset >= self.size:
                break
            if run.offset > at:
                yield at, run.offset
            at = run.offset + run.length
        if at < self.size:
            yield at, self.size

    def close(self) -> None:
        """Let go of it."""


class BytesContent:
    """The content of a file whose bytes lie within its description."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        """Give the bytes from ``offset``; see the contract."""
        return self._data[offset : offset + length] if offset >= 0 else b""

    def holes(self) -> Iterator[tuple[int, int]]:
        """Yield nothing: everything is stored."""
        return iter(())

    def close(self) -> None:
        """Let go of it."""
