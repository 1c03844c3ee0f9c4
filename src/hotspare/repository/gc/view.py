"""The repository as a collector sees it at one moment."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hotspare.errors import ObjectNotFound, RepositoryDamaged
from hotspare.repository.damaged import DamagedChunks
from hotspare.repository.gc.mark import Marks
from hotspare.repository.index import ChunkIndex, PackRecord
from hotspare.repository.index.cache import SegmentListing
from hotspare.repository.point import RestorePoint
from hotspare.storage.backend import Backend


class View(NamedTuple):
    """The repository at one moment: points, index, and what is needed."""

    points: dict[str, RestorePoint]
    """Those that count, by object name."""
    void_points: list[str]
    """Names of points of expelled sessions that nobody adopted."""
    segments: SegmentListing
    chunks: ChunkIndex
    marks: Marks


def refuse_missing(
    view: View, missing: frozenset[str], sizes: Mapping[str, int], damaged: DamagedChunks
) -> None:
    """Raise ``RepositoryDamaged`` when something needed lies only in a pack that is gone or cut short."""
    index = view.chunks
    for number in set(index.pack_numbers(view.marks.places).tolist()):
        record = index.packs[number]
        cut = sizes.get(record.name, record.size) != record.size and record.digest not in damaged
        if record.name in missing or cut:
            raise RepositoryDamaged(
                f"Pack {record.name} is missing or cut short, and restore points need it",
                meaning="No garbage was collected, so as not to make it worse",
                hint="Run 'hotspare repo check', mend what it names or forget the points that need it",
            )


def missing_packs(backend: Backend, packs: Iterable[PackRecord], sizes: Mapping[str, int]) -> frozenset[str]:
    """Give the names of those packs that the store does not have; ``sizes`` are of what was listed."""
    return frozenset(
        pack.name for pack in packs if pack.name not in sizes and not _exists(backend, pack.name)
    )


def _exists(backend: Backend, name: str) -> bool:
    try:
        backend.size(name)
    except ObjectNotFound:
        return False
    return True
