"""The file allocation table: which cluster follows which."""

from array import array

import numpy as np
from numpy.typing import NDArray

from hotspare.errors import FileSystemUnreadable
from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.files.nodes import damaged
from hotspare.guest.files.runs import Run

_WINDOW = 96 * 1024
"""Bytes of the table read at once: a multiple of 3, so that no entry of 12 bits crosses its end."""
_WINDOWS_MAX = 512
_LENGTH_MAX = 1 << 24
"""Clusters of one file: some seconds and 64 MiB of memory."""
FIRST = 2
"""The number of the first cluster there is."""

Clusters = NDArray[np.uint32]


class Chains:
    """Follows chains of clusters.

    Args:
        kind: of the file system, for errors.
        reader: the volume.
        bits: of an entry: 12, 16 or 32.
        mask: the bits of an entry that count.
        table: offset of the table.
        heap: offset of the first cluster.
        cluster_size: bytes.
        clusters: how many there are.
    """

    def __init__(
        self,
        kind: str,
        reader: CachedReader,
        *,
        bits: int,
        mask: int,
        table: int,
        heap: int,
        cluster_size: int,
        clusters: int,
    ) -> None:
        self.cluster_size = cluster_size
        self.clusters = clusters
        self._kind = kind
        self._reader = reader
        self._bits = bits
        self._mask = mask
        self._end_mark = mask & ~0x7
        self._table = table
        self._heap = heap
        self._windows: dict[int, array[int]] = {}

    def file(self, first: int, size: int) -> list[Run]:
        """Give the runs of a chain, as many clusters as ``size`` bytes need.

        Raises:
            FileSystemUnreadable: it is shorter, a loop, or leads out of the volume.
        """
        wanted = -(-size // self.cluster_size)
        if wanted > _LENGTH_MAX:
            raise self._wrong("file of more clusters than can be followed")
        return self._joined(self._chain(first, wanted, to_end=False))

    def folder(self, first: int, bytes_max: int) -> list[Run]:
        """Give the runs of a whole chain: folders of FAT have no size.

        Raises:
            FileSystemUnreadable: it is longer than ``bytes_max``, a loop, or leads out of the volume.
        """
        limit = min(bytes_max // self.cluster_size, self.clusters) + 1
        found = self._chain(first, limit, to_end=True)
        if len(found) == limit:
            raise self._wrong("folder that is larger than can be")
        return self._joined(found)

    def _chain(self, first: int, limit: int, *, to_end: bool) -> Clusters:
        found: array[int] = array("I")
        at = first
        while len(found) < limit:
            if not FIRST <= at < FIRST + self.clusters:
                if to_end and found and at >= self._end_mark:
                    break
                raise self._wrong("chain of clusters that ends early or leads nowhere")
            found.append(at)
            at = self._following(at)
        clusters = np.array(found, dtype=np.uint32)
        if (np.diff(np.sort(clusters)) == 0).any():
            raise self._wrong("chain of clusters that is a loop")
        return clusters

    def contiguous(self, first: int, size: int) -> list[Run]:
        """Give the run of a file of exFAT that has no chain."""
        wanted = -(-size // self.cluster_size)
        if not wanted:
            return []
        if first < FIRST or first + wanted > FIRST + self.clusters:
            raise self._wrong("file outside of the volume")
        return [Run(0, wanted * self.cluster_size, self.place(first))]

    def place(self, cluster: int) -> int:
        """Give the offset of a cluster."""
        return self._heap + (cluster - FIRST) * self.cluster_size

    def _following(self, cluster: int) -> int:
        if self._bits == 12:
            return self._following_12(cluster)
        width = self._bits // 8
        window, index = divmod(cluster * width, _WINDOW)
        entries = self._window(window)
        index //= width
        if index >= len(entries):
            raise self._wrong("table that is cut off")
        return entries[index] & self._mask

    def _following_12(self, cluster: int) -> int:
        window, index = divmod(cluster * 3 // 2, _WINDOW)
        entries = self._window(window)
        if index + 1 >= len(entries):
            raise self._wrong("table that is cut off")
        both = entries[index] | entries[index + 1] << 8
        return both >> 4 if cluster & 1 else both & 0xFFF

    def _window(self, number: int) -> "array[int]":
        window = self._windows.get(number)
        if window is None:
            if len(self._windows) >= _WINDOWS_MAX:
                self._windows.pop(next(iter(self._windows)))
            raw = self._reader.read(self._table + number * _WINDOW, _WINDOW)
            window = array({12: "B", 16: "H", 32: "I"}[self._bits])
            window.frombytes(raw[: len(raw) // window.itemsize * window.itemsize])
            self._windows[number] = window
        return window

    def _joined(self, clusters: Clusters) -> list[Run]:
        if not len(clusters):
            return []
        breaks = np.flatnonzero(clusters[1:] != clusters[:-1] + 1) + 1
        starts = [0, *breaks.tolist()]
        ends = [*breaks.tolist(), len(clusters)]
        size = self.cluster_size
        return [
            Run(start * size, (end - start) * size, self.place(int(clusters[start])))
            for start, end in zip(starts, ends, strict=True)
        ]

    def _wrong(self, what: str) -> FileSystemUnreadable:
        return damaged(self._kind, f"it has a {what}")
