"""Where volumes lie on disks: a run of one disk, one layout after another, or striped over several.

All arithmetic on sets is vectorised and independent of how many stripes there are: successive stripes of one
column touch each other, so that a run of the volume, however long, is one run of each column.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from hotspare.block.ranges import Ranges
from hotspare.guest.volumes.volume import Layout, Place


class Linear:
    """A run of bytes of one disk: a whole disk, a partition, some extents of a physical volume."""

    def __init__(self, disk: str, offset: int, size: int) -> None:
        self.disk = disk
        self.offset = offset
        self.size = size
        self.disks = frozenset([disk])

    def __repr__(self) -> str:
        return f"Linear({self.disk!r}, {self.offset}, {self.size})"

    def places(self, offset: int, length: int) -> Iterator[Place]:
        """See ``Layout``."""
        start, end = max(offset, 0), min(offset + length, self.size)
        if start < end:
            yield Place(self.disk, self.offset + start, end - start)

    def on_disks(self, ranges: Ranges) -> dict[str, Ranges]:
        """See ``Layout``."""
        return {self.disk: ranges.within(0, self.size).moved(self.offset)}


class Concatenated:
    """One layout after another, such as the segments of a logical volume."""

    def __init__(self, parts: Sequence[Layout]) -> None:
        self._parts = tuple(parts)
        ends = list(accumulate(part.size for part in parts))
        self._starts = np.array([0, *ends[:-1]], dtype=np.int64)
        self.size = ends[-1]
        self.disks = frozenset[str]().union(*(part.disks for part in parts))

    def __repr__(self) -> str:
        return f"Concatenated({list(self._parts)!r})"

    def places(self, offset: int, length: int) -> Iterator[Place]:
        """See ``Layout``."""
        end = offset + length
        first = max(0, int(np.searchsorted(self._starts, offset, side="right")) - 1)
        for number in range(first, len(self._parts)):
            start = int(self._starts[number])
            if start >= end:
                return
            skip = max(offset - start, 0)
            yield from self._parts[number].places(skip, end - start - skip)

    def on_disks(self, ranges: Ranges) -> dict[str, Ranges]:
        """See ``Layout``."""
        found: dict[str, list[Ranges]] = {disk: [] for disk in self.disks}
        for start, part in zip(self._starts.tolist(), self._parts, strict=True):
            own = ranges.within(start, start + part.size).moved(-start)
            if len(own):
                for disk, there in part.on_disks(own).items():
                    found[disk].append(there)
        return {disk: Ranges.union(sets) for disk, sets in found.items()}


class Striped:
    """Stripes of ``stripe`` bytes dealt out to the columns in turn, as dm-stripe and RAID 0 do.

    Args:
        columns: at least one, all of the same size, a multiple of ``stripe``.
        stripe: bytes.
    """

    def __init__(self, columns: Sequence[Layout], stripe: int) -> None:
        column_size = columns[0].size
        if any(column.size != column_size for column in columns) or column_size % stripe:
            raise ValueError("columns differ in size or do not end with a stripe")
        self._columns = tuple(columns)
        self._stripe = stripe
        self._row = stripe * len(columns)
        self.size = column_size * len(columns)
        self.disks = frozenset[str]().union(*(column.disks for column in columns))

    def __repr__(self) -> str:
        return f"Striped({list(self._columns)!r}, {self._stripe})"

    def places(self, offset: int, length: int) -> Iterator[Place]:
        """See ``Layout``."""
        position, end = max(offset, 0), min(offset + length, self.size)
        while position < end:
            stripe, skip = divmod(position, self._stripe)
            row, column = divmod(stripe, len(self._columns))
            take = min(self._stripe - skip, end - position)
            yield from self._columns[column].places(row * self._stripe + skip, take)
            position += take

    def on_disks(self, ranges: Ranges) -> dict[str, Ranges]:
        """See ``Layout``."""
        inside = ranges.within(0, self.size).bounds
        rows, rests = np.divmod(inside, self._row)
        found: dict[str, list[Ranges]] = {disk: [] for disk in self.disks}
        for number, column in enumerate(self._columns):
            own = Ranges.of(self._before(number, rows, rests))
            for disk, there in column.on_disks(own).items():
                found[disk].append(there)
        return {disk: Ranges.union(sets) for disk, sets in found.items()}

    def _before(self, column: int, rows: NDArray[np.int64], rests: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give how many bytes of a column come before each place of the volume, given as row and rest."""
        found: NDArray[np.int64] = rows * self._stripe + np.clip(
            rests - column * self._stripe, 0, self._stripe
        )
        return found
