"""Which bytes of an exFAT file system are unused.

exFAT has no journal. A volume is marked dirty while it is changed and until it is flushed; a marked one is
kept whole, whether the machine was frozen or off. The allocation bitmap is a file that an entry of the root
directory names, a bit for each cluster; what we know to be in use must be in use there.
"""

from collections.abc import Iterator

import numpy as np

from hotspare.block.device import BlockReader
from hotspare.block.ranges import Ranges
from hotspare.guest.unused.fat.exfat_boot import ExfatLayout, read_layout
from hotspare.guest.unused.fat.map import SHORT_RUNS_KEPT
from hotspare.guest.unused.free_runs import FreeRuns
from hotspare.guest.unused.unused import KeepAll, Quiet, UnusedBlocks
from hotspare.guest.unused.volume_bytes import PIECE, VolumeBytes
from hotspare.units import MIB

_ENTRY = 32
_BITMAP, _UPCASE = 0x81, 0x82
_BAD = 0xFFFFFFF7
_MEDIA = 0xFFFFFFF8
_ROOT_MAX = 256 * MIB
"""The largest directory that the specification allows."""


class _Volume:
    """An exFAT volume with its table. Every step of a chain is checked, so that it stays inside and ends."""

    def __init__(self, octets: VolumeBytes, layout: ExfatLayout) -> None:
        self.octets = octets
        self.layout = layout

    def chain(self, first: int, clusters_max: int) -> Iterator[int]:
        """Give the clusters of a file in order, at most so many: a longer chain is refused.

        Raises:
            KeepAll: it leads nowhere, or goes on for too long, as one does that is a ring.
        """
        cluster = first
        for _ in range(clusters_max):
            if not self.layout.has(cluster):
                raise KeepAll("a chain of its file allocation table leads nowhere")
            yield cluster
            cluster = int.from_bytes(self.octets.read(self.layout.table + 4 * cluster, 4), "little")
            if cluster == 0xFFFFFFFF:
                return
        raise KeepAll("a chain of its file allocation table is too long, or a ring")

    def extents(self, first: int, length: int) -> list[tuple[int, int]]:
        """Give where a file of ``length`` bytes lies, as (offset, length), joined where clusters follow.

        Raises:
            KeepAll: its chain has another length.
        """
        size, found = self.layout.cluster, list[tuple[int, int]]()
        wanted = -(-length // size)
        count = 0
        for cluster in self.chain(first, wanted):
            count += 1
            offset = self.layout.offset_of(cluster)
            if found and sum(found[-1]) == offset:
                found[-1] = (found[-1][0], found[-1][1] + size)
            else:
                found.append((offset, size))
        if count != wanted:
            raise KeepAll("a chain of its file allocation table is too short")
        return found


def exfat_unused(volume: BlockReader, quiet: Quiet) -> UnusedBlocks:  # noqa: ARG001  # its marks decide
    """Find the free clusters of an exFAT file system.

    Raises:
        KeepAll: see ``FindUnused``.
        SourceLost, StorageError, RepositoryDamaged: the volume cannot be read.
    """
    octets = VolumeBytes(volume)
    layout = read_layout(octets)
    disk = _Volume(octets, layout)
    if int.from_bytes(octets.read(layout.table, 4), "little") != _MEDIA:
        raise KeepAll("its file allocation table does not begin as one does")
    in_use, bitmap = _read_root(disk)
    runs = FreeRuns(layout.cluster, layout.heap)
    left = layout.clusters
    for offset, length in bitmap:
        for piece in octets.pieces(offset, length, PIECE):
            units = min(left, 8 * len(piece))
            runs.add_bitmap(piece, units)
            left -= units
    free = runs.ranges()
    if len(free & in_use):
        raise KeepAll("its allocation bitmap says that its own tables are free")
    remarks = [SHORT_RUNS_KEPT] if runs.incomplete else []
    used = 100 * (layout.clusters - runs.free) // layout.clusters
    if layout.percent_in_use is not None and abs(layout.percent_in_use - used) > 1:
        # Linux leaves the number as it was when the volume was made; the specification calls it a hint.
        remarks.append(f"its boot sector counts {layout.percent_in_use} % as used, its bitmap {used} %")
    return UnusedBlocks("exfat", layout.size, free - _bad(octets, layout), remarks=tuple(remarks))


def _read_root(disk: _Volume) -> tuple[Ranges, list[tuple[int, int]]]:
    """Look through the root directory: what it and what it names occupies, and where the bitmap lies."""
    layout = disk.layout
    used, bitmaps, upcases = [], [], []
    ended = False
    for cluster in disk.chain(layout.root, min(layout.clusters, -(-_ROOT_MAX // layout.cluster))):
        used.append((layout.offset_of(cluster), layout.offset_of(cluster) + layout.cluster))
        if ended:
            continue
        content = disk.octets.read(layout.offset_of(cluster), layout.cluster)
        entries = np.frombuffer(content, dtype=np.uint8).reshape(-1, _ENTRY)
        ends = np.flatnonzero(entries[:, 0] == 0)
        if len(ends):
            entries, ended = entries[: ends[0]], True
        bitmaps += [bytes(entry) for entry in entries[entries[:, 0] == _BITMAP][:2]]
        upcases += [bytes(entry) for entry in entries[entries[:, 0] == _UPCASE][:2]]
    if len(bitmaps) != 1 or len(upcases) != 1 or bitmaps[0][1] & 1:
        raise KeepAll(f"it has {len(bitmaps)} allocation bitmaps and {len(upcases)} up-case tables")
    needed = -(-layout.clusters // 8)
    found = []
    for entry, length_max in ((bitmaps[0], needed + layout.cluster), (upcases[0], MIB)):
        first, length = int.from_bytes(entry[20:24], "little"), int.from_bytes(entry[24:32], "little")
        if not 0 < length <= length_max:
            raise KeepAll("its tables are longer than they can be")
        found.append((length, disk.extents(first, length)))
    (length, bitmap), (_, upcase) = found
    if length < needed:
        raise KeepAll("its allocation bitmap is too short")
    used += [(offset, offset + size) for offset, size in bitmap + upcase]
    return Ranges.of(used), bitmap


def _bad(octets: VolumeBytes, layout: ExfatLayout) -> Ranges:
    """Find clusters that the table calls bad: they are not to be touched, whatever the bitmap says."""
    runs = FreeRuns(layout.cluster, layout.heap)
    for piece in octets.pieces(layout.table + 8, layout.clusters * 4, PIECE):
        runs.add_flags(piece.view("<u4") == _BAD)
    return runs.ranges()
