"""Reading a volume through its layout, as if it were a disk."""

from collections.abc import Iterator, Mapping
from typing import Self

from hotspare.block.device import BlockReader
from hotspare.block.extent import Extent, ExtentKind
from hotspare.guest.volumes.volume import Layout, Place
from hotspare.units import MIB

_LOOK_AHEAD = 64 * MIB
"""How far a disk is asked for its extents at once: stripes would otherwise cost a call each."""


class VolumeReader:
    """A ``BlockReader`` over the bytes of one volume. An instance belongs to one thread at a time.

    Args:
        layout: where the bytes lie.
        disks: at least all disks of the layout. They are borrowed: whoever opened them closes them.
    """

    def __init__(self, layout: Layout, disks: Mapping[str, BlockReader]) -> None:
        self.size = layout.size
        self._layout = layout
        self._disks = {name: disks[name] for name in layout.disks}
        self._owned = False

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield what the range is made of, as the disks tell it, neighbours of one kind joined."""
        self._check_range(offset, length)
        return self._joined(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill all of ``buffer`` from ``offset``.

        Raises:
            SourceLost, StorageError, RepositoryDamaged: a disk cannot be read.
        """
        self._check_range(offset, len(buffer))
        filled = 0
        for disk, start, length in self._layout.places(offset, len(buffer)):
            self._disks[disk].read_into(start, buffer[filled : filled + length])
            filled += length

    def clone(self) -> Self:
        """Give another upon clones of the disks, for another thread; to be closed."""
        other = type(self)(self._layout, {name: disk.clone() for name, disk in self._disks.items()})
        other._owned = True
        return other

    def close(self) -> None:
        """Close what ``clone`` opened; a second call does nothing."""
        if self._owned:
            for disk in self._disks.values():
                disk.close()

    def _joined(self, offset: int, length: int) -> Iterator[Extent]:
        known = {name: _KnownExtents(disk) for name, disk in self._disks.items()}
        start = position = offset
        kind: ExtentKind | None = None
        for place in self._layout.places(offset, length):
            for part, part_kind in known[place.disk].of(place):
                if part_kind is not kind and kind is not None:
                    yield Extent(start, position - start, kind)
                    start = position
                kind = part_kind
                position += part
        if kind is not None:
            yield Extent(start, position - start, kind)

    def _check_range(self, offset: int, length: int) -> None:
        if not 0 <= offset <= offset + length <= self.size:
            raise ValueError(f"{length} bytes at {offset} are not all in a volume of {self.size} bytes")


class _KnownExtents:
    """The extents of one disk, asked for in large runs, and wanted in small ones that mostly ascend."""

    def __init__(self, disk: BlockReader) -> None:
        self._disk = disk
        self._coming: Iterator[Extent] = iter(())
        self._current = Extent(0, 0, ExtentKind.DATA)

    def of(self, place: Place) -> Iterator[tuple[int, ExtentKind]]:
        """Yield length and kind of what a place is made of."""
        position, end = place.offset, place.offset + place.length
        while position < end:
            if not self._current.offset <= position < self._current.end:
                self._go_to(position)
            take = min(end, self._current.end) - position
            yield take, self._current.kind
            position += take

    def _go_to(self, position: int) -> None:
        """Make the extent that holds the byte at ``position`` the current one."""
        if position >= self._current.end:
            for extent in self._coming:
                if extent.end > position:
                    self._current = extent
                    return
        self._coming = self._disk.extents(position, min(_LOOK_AHEAD, self._disk.size - position))
        self._current = next(self._coming)
