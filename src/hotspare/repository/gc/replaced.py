"""Which index segments really are replaced, and which only if one believes the segment that says so.

Whoever can add segments could say that one of his replaces all others, and have the packs that only those
name taken for garbage. So a collector drops a segment only when every row of it is listed elsewhere.
"""

from collections.abc import Callable, Container, Iterable, Mapping

import numpy as np

from hotspare.repository.damaged import DamagedChunks, without_damaged
from hotspare.repository.index import PackRecord
from hotspare.repository.index.cache import ListedSegment, SegmentListing, in_order_of_deletion
from hotspare.repository.index.table import Table


def with_doubtful_in_force(
    listing: SegmentListing,
    find_gone: Callable[[Iterable[PackRecord]], Container[str]],
    damaged: DamagedChunks,
) -> SegmentListing:
    """Put back in force what is replaced by segments that do not list all that it lists.

    Args:
        listing: as the segments have it.
        find_gone: gives the names of those packs whose rows there was a reason to leave out.
        damaged: chunks whose rows there was a reason to leave out.
    """
    coverage = _Coverage(listing.in_force)
    doubtful = {}
    for name, one in listing.superseded.items():
        gone = find_gone(one.table.packs)
        kept = np.array([pack.name not in gone for pack in one.table.packs], dtype=np.bool_)
        rows = one.table if kept.all() else one.table.only(np.flatnonzero(kept[one.table.pack]))
        if not coverage.covers(without_damaged(rows, damaged), name):
            doubtful[name] = one
    if not doubtful:
        return listing
    superseded = {name: one for name, one in listing.superseded.items() if name not in doubtful}
    opened = {**listing.in_force, **listing.superseded}
    replaced = [name for name in listing.replaced if name not in doubtful]
    order = in_order_of_deletion(opened, replaced)
    return SegmentListing({**listing.in_force, **doubtful}, order, superseded, frozenset(doubtful))


class _Coverage:
    """Tells whether rows are listed by segments in force; merges those that many are compared with once."""

    def __init__(self, in_force: Mapping[str, ListedSegment]) -> None:
        self._in_force = in_force
        self._rows: dict[tuple[str, ...], int] = {}

    def covers(self, table: Table, name: str) -> bool:
        """Look into the segments first that say they replace the one of this name."""
        said = tuple(other for other, one in self._in_force.items() if name in one.replaces)
        return self._all_listed(table, said) or self._all_listed(table, tuple(self._in_force))

    def _all_listed(self, table: Table, names: tuple[str, ...]) -> bool:
        tables = [self._in_force[name].table for name in names]
        if not tables:
            return not len(table)
        if names not in self._rows:
            self._rows[names] = len(Table.merged(tables))
        return len(Table.merged([*tables, table])) == self._rows[names]
