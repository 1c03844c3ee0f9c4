"""The file allocation table: an entry of 12, 16 or 32 bits for each cluster, 0 for a free one."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hotspare.guest.unused.fat.boot import FatLayout
from hotspare.guest.unused.unused import KeepAll
from hotspare.guest.unused.volume_bytes import Octets, VolumeBytes

PIECE = 3 << 18
"""Bytes that are decoded at once: whole entries of every width, and whole bytes of a bit for each entry."""

Entries = NDArray[np.uint32]
_MASK = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}
_CLEAN = {16: 0x8000, 32: 0x08000000}
_NO_ERRORS = {16: 0x4000, 32: 0x04000000}
"""Bits of entry 1, cleared while a volume is in use, and when its disk gave errors."""


def refuse_unsound(volume: VolumeBytes, layout: FatLayout) -> None:
    """Look at the first two entries, which belong to no cluster, and compare the tables.

    Raises:
        KeepAll: the tables differ, their width or medium is another, or they bear a mark that they are dirty.
    """
    first, second = (int(entry) for entry in next(read_entries(volume, layout))[:2])
    mask = _MASK[layout.bits]
    if first != mask & ~0xFF | layout.media:
        raise KeepAll("its file allocation table does not begin as one does")
    if layout.bits != 12:
        if not second & _CLEAN[layout.bits]:
            raise KeepAll("it is in use, or was not unmounted cleanly")
        if not second & _NO_ERRORS[layout.bits]:
            raise KeepAll("it is marked to have had disk errors")
    if second | 7 != mask:
        raise KeepAll("its file allocation table does not begin as one does")
    if len(layout.tables) == 2:
        first_table, other = (volume.pieces(start, layout.table_size) for start in layout.tables)
        for mine, its in zip(first_table, other, strict=True):
            if not np.array_equal(mine, its):
                raise KeepAll("its two file allocation tables differ")


def read_entries(volume: VolumeBytes, layout: FatLayout) -> Iterator[Entries]:
    """Give all entries in order, those of numbers 0 and 1 and of all clusters, without reserved bits."""
    left = layout.clusters + 2
    for octets in volume.pieces(layout.tables[0], -(-left * layout.bits // 8), PIECE):
        entries = _decode(octets, layout.bits)[:left]
        left -= len(entries)
        yield entries


def refuse_broken_chains(volume: VolumeBytes, layout: FatLayout, free: Octets) -> None:
    """Follow every entry by one step: none may lead out of the table, or to a free cluster.

    Args:
        volume: where it lies.
        layout: how.
        free: a bit for each entry, the lowest of a byte first.

    Raises:
        KeepAll: the table contradicts itself.
    """
    end = layout.clusters + 2
    first_mark = _MASK[layout.bits] & ~0x8
    passed = 0
    for entries in read_entries(volume, layout):
        of_clusters = entries if passed else entries[2:]
        passed += len(entries)
        leads = of_clusters[(of_clusters != 0) & (of_clusters < first_mark)]
        if not len(leads):
            continue
        if int(leads.min()) < 2 or int(leads.max()) >= end:
            raise KeepAll("its file allocation table leads to clusters that do not exist")
        if np.any(free[leads >> 3] >> (leads & 7).astype(np.uint8) & 1):
            raise KeepAll("a file leads to a cluster that is said to be free")


def _decode(octets: Octets, bits: int) -> Entries:
    if bits == 32:
        return octets[: len(octets) // 4 * 4].view("<u4") & np.uint32(_MASK[32])
    if bits == 16:
        return octets[: len(octets) // 2 * 2].view("<u2").astype(np.uint32)
    triples = np.zeros(-(-len(octets) // 3) * 3, dtype=np.uint32)
    triples[: len(octets)] = octets
    low, middle, high = triples.reshape(-1, 3).T
    return np.column_stack((low | (middle & 0xF) << 8, middle >> 4 | high << 4)).reshape(-1)
