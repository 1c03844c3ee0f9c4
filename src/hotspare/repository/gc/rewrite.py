"""Rewriting the index without the rows of packs that are gone or about to go."""

from collections.abc import Container, Iterator
from typing import NamedTuple

import numpy as np

from hotspare.repository.format import SEGMENT_SIZE_MAX
from hotspare.repository.index.cache import SegmentListing
from hotspare.repository.index.merge import merged_segment
from hotspare.repository.index.segment import ROW
from hotspare.repository.index.table import Table
from hotspare.repository.keys import Keyring
from hotspare.storage.backend import Backend

_ROWS_MAX = SEGMENT_SIZE_MAX // 4 // ROW.itemsize


class Rewrite(NamedTuple):
    """What to publish, and what it replaces, in the order in which that has to be deleted."""

    tables: list[list[Table]]
    """Each to become one segment."""
    replaced: tuple[str, ...]


def plan_rewrite(
    listing: SegmentListing, fresh: Table | None, dropped: Container[str], expelled: Container[str]
) -> Rewrite:
    """Put together what is left of the segments that name dropped packs, and the fresh rows.

    Segments of expelled sessions are rewritten as well: what is in them has been checked now, and counts. So
    are those that readers miss.
    """
    stale = {
        name: one.table
        for name, one in listing.in_force.items()
        if one.session in expelled
        or name in listing.doubtful
        or any(pack.name in dropped for pack in one.table.packs)
    }
    parts = [_without(table, dropped) for table in stale.values()]
    if fresh is not None:
        parts.append(fresh)
    # What is replaced already must stay so when the segment that says it goes.
    replaced = (*listing.replaced, *sorted(stale))
    return Rewrite(list(_grouped([part for part in parts if len(part)])), replaced)


def publish(backend: Backend, keyring: Keyring, session: str, rewrite: Rewrite) -> None:
    """Store the new segments; only the last one says what all of them replace."""
    for number, group in enumerate(rewrite.tables, start=1):
        replaces = rewrite.replaced if number == len(rewrite.tables) else ()
        name, data = merged_segment(group, replaces, session).seal(keyring)
        backend.put(name, [data])


def _without(table: Table, dropped: Container[str]) -> Table:
    kept = np.fromiter((pack.name not in dropped for pack in table.packs), np.bool_, len(table.packs))
    return table.only(np.flatnonzero(kept[table.pack]))


def _grouped(parts: list[Table]) -> Iterator[list[Table]]:
    """Put tables together into as few as the size of a segment allows."""
    group: list[Table] = []
    for part in parts:
        if group and sum(map(len, group)) + len(part) > _ROWS_MAX:
            yield group
            group = []
        group.append(part)
    if group:
        yield group
