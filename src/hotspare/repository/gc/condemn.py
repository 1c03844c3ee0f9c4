"""Choosing the packs that are to go: unused ones, and those whose waste is worth a copy of the rest."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from hotspare.repository.format import DATA, META
from hotspare.repository.gc.mark import Marks
from hotspare.repository.index import ChunkIndex, PackRecord

DEFAULT_KEEP_WASTE = 10.0
"""Percent of the packs' bytes that may stay waste rather than be copied around."""
_SMALL_PACKS_MIN = 8
"""Fewer small packs of a kind than this are left alone."""


class Usage(NamedTuple):
    """How much of one pack is needed."""

    record: PackRecord
    size: int
    needed: int
    """Sealed bytes of its chunks that are needed."""
    waste: int
    """Sealed bytes of its chunks that are not."""


class Choice(NamedTuple):
    """What is to be condemned."""

    unused: list[Usage]
    repacked: list[Usage]
    waste_left: int
    """Bytes."""


def pack_usage(index: ChunkIndex, marks: Marks, sizes: Mapping[str, int]) -> list[Usage]:
    """Give the usage of each pack that is in the index and in the store, with its size there."""
    places = np.arange(index.published_rows, dtype=np.int64)
    numbers, stored = index.pack_numbers(places), index.lengths(places)
    count = len(index.packs)
    total = np.bincount(numbers, stored, minlength=count).astype(np.int64)
    needed = np.bincount(numbers, stored * marks.needed, minlength=count).astype(np.int64)
    return [
        Usage(record, sizes[record.name], int(needed[number]), int(total[number] - needed[number]))
        for number, record in enumerate(index.packs)
        if record.name in sizes
    ]


def choose(usages: Iterable[Usage], keep_waste: float, pack_target: int) -> Choice:
    """Choose among packs that are not condemned yet; ``keep_waste`` is in percent."""
    usages = list(usages)
    unused = [one for one in usages if not one.needed]
    used = [one for one in usages if one.needed]
    repacked = {one.record.name: one for one in _small(used, pack_target)}
    left = [one for one in used if one.record.name not in repacked]
    waste = sum(one.waste for one in left)
    allowed = keep_waste / 100 * sum(one.size for one in used)
    for one in sorted(left, key=lambda one: one.waste / (one.waste + one.needed), reverse=True):
        if waste <= allowed:
            break
        repacked[one.record.name] = one
        waste -= one.waste
    return Choice(unused, list(repacked.values()), waste)


def _small(used: list[Usage], pack_target: int) -> list[Usage]:
    """Give small packs where there are many: each costs a request and a row in every listing."""
    found = []
    for kind in (DATA, META):
        small = [one for one in used if one.record.kind == kind and one.size < pack_target // 4]
        packs_after = -(-sum(one.needed for one in small) // pack_target)
        if len(small) >= max(_SMALL_PACKS_MIN, 4 * packs_after):
            found += small
    return found
