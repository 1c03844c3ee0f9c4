"""Keeping segments few: as many of a size pile up, one that replaces them is published.

Safe beside any other writer: nothing is deleted here. Readers pass over what is replaced; ``prune``
deletes it. Two hosts that merge the same segments publish the same rows twice; the next merge mends that.
"""

from collections.abc import Mapping

import numpy as np

from hotspare.repository.codec import DELTA
from hotspare.repository.index.segment import BASE, CODEC_BITS, ROW, Segment
from hotspare.repository.index.table import Table
from hotspare.repository.keys import Keyring
from hotspare.storage.backend import Backend

FAN_IN = 8
"""Segments of one size class that are merged into one."""
_SMALLEST = 1 << 10


def merge_piled_up(
    backend: Backend, keyring: Keyring, tables: Mapping[str, Table], rows_max: int, session: str = ""
) -> list[str]:
    """Merge the segments of each size class that has many, and give the names of the new segments.

    Args:
        backend: the store.
        keyring: seals the new segments.
        tables: all live segments, by object name.
        rows_max: a merge of more rows than this is not begun.
        session: whose the new segments are.
    """
    classes: dict[int, list[str]] = {}
    for name, table in tables.items():
        classes.setdefault(_size_class(len(table)), []).append(name)
    published = []
    for names in classes.values():
        rows = sum(len(tables[name]) for name in names)
        if len(names) >= FAN_IN and rows <= rows_max:
            merged = merged_segment([tables[name] for name in names], tuple(sorted(names)), session)
            name, data = merged.seal(keyring)
            backend.put(name, [data])
            published.append(name)
    return published


def merged_segment(tables: list[Table], replaces: tuple[str, ...], session: str = "") -> Segment:
    """Make one segment of several tables."""
    table = Table.merged(tables)
    rows = np.empty(len(table), dtype=ROW)
    ids = np.empty((len(table), 2), dtype=">u8")
    ids[:, 0], ids[:, 1] = table.high, table.low
    rows["id"] = ids.view("V16").reshape(-1)
    rows["pack"], rows["offset"], rows["place"] = table.pack, table.offset, table.place
    deltas = np.flatnonzero(table.place & ((1 << CODEC_BITS) - 1) == DELTA)
    bases = np.empty(len(deltas), dtype=BASE)
    bases["row"], bases["id"] = deltas, table.delta_bases
    return Segment(table.packs, rows, replaces, bases, session)


def _size_class(rows: int) -> int:
    """Classes grow by ``FAN_IN``, so each row is written again once a class."""
    number, bound = 0, _SMALLEST
    while rows > bound:
        number, bound = number + 1, bound * FAN_IN
    return number
