"""The content of an attribute: bytes in its record, or runs of clusters."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hotspare.block.ranges import Ranges
from hotspare.guest.unused.ntfs.boot import NtfsLayout
from hotspare.guest.unused.ntfs.record import HOLE, Attribute, Run, decode_runs
from hotspare.guest.unused.unused import KeepAll
from hotspare.guest.unused.volume_bytes import PIECE, Octets, VolumeBytes

RUNS_MAX = 500_000
"""No file of a volume that anybody uses is in more pieces."""


@dataclass(slots=True)
class Stream:
    """The content of an attribute. Compressed, encrypted and sparse ones are for the caller to refuse."""

    layout: NtfsLayout
    flags: int
    content: bytes | None
    """What lies in the record itself; None when it lies in ``runs``."""
    allocated: int
    size: int
    initialized: int
    """Bytes; what is beyond was never written and reads as zeroes."""
    runs: list[Run] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    """The first virtual cluster of each run."""
    clusters: int = 0
    """Of all runs."""

    @classmethod
    def of(cls, parts: Iterable[Attribute], layout: NtfsLayout) -> "Stream":
        """Put the parts of one attribute together; there is at least one.

        Raises:
            KeepAll: there is a gap between them, or their sizes contradict each other.
        """
        ordered = sorted(parts, key=lambda part: part.first)
        stream = cls.begun(ordered[0], layout)
        for part in ordered[1:]:
            stream.append(part)
        stream.refuse_contradictions()
        return stream

    @classmethod
    def begun(cls, part: Attribute, layout: NtfsLayout) -> "Stream":
        """Take the first part, which others may follow.

        Raises:
            KeepAll: it is not the first, or damaged.
        """
        if part.content is not None:
            size = len(part.content)
            return cls(layout, part.flags, part.content, size, size, size)
        stream = cls(layout, part.flags, None, part.allocated, part.size, part.initialized)
        stream.append(part)
        return stream

    def append(self, part: Attribute) -> None:
        """Take the next part of the run list.

        Raises:
            KeepAll: it is not the next, or damaged.
        """
        if self.content is not None or part.content is not None or part.first != self.clusters:
            raise KeepAll("a part of a run list is missing, or twice there")
        for run in decode_runs(part, self.layout.clusters):
            self.runs.append(run)
            self.starts.append(self.clusters)
            self.clusters += run[1]
        if len(self.runs) > RUNS_MAX:
            raise KeepAll("one of its files is in too many pieces")

    def refuse_contradictions(self) -> None:
        """Compare sizes, when all parts are there.

        Raises:
            KeepAll: they contradict each other.
        """
        if self.content is None and not (
            self.initialized <= self.size <= self.allocated == self.clusters * self.layout.cluster
        ):
            raise KeepAll("the sizes of a file contradict its run list")

    @property
    def is_plain(self) -> bool:
        """Whether its clusters hold its bytes as they are, all of them."""
        return not self.flags and all(place != HOLE for place, _ in self.runs)

    @property
    def on_volume(self) -> Ranges:
        """The bytes of the volume that it occupies."""
        return Ranges.of(
            (place * self.layout.cluster, (place + length) * self.layout.cluster)
            for place, length in self.runs
            if place != HOLE
        )

    def read(self, volume: VolumeBytes, offset: int, length: int) -> bytes:
        """Give bytes of a plain stream; zeroes where it was never written.

        Raises:
            KeepAll: it ends before.
        """
        if offset < 0 or offset + length > self.size:
            raise KeepAll("a file is shorter than it has to be")
        if self.content is not None:
            return self.content[offset : offset + length]
        written = max(0, min(length, self.initialized - offset))
        found = bytearray()
        while len(found) < written:
            place, room = self._place(offset + len(found))
            found += volume.read(place, min(room, written - len(found)))
        return bytes(found) + bytes(length - written)

    def pieces(self, volume: VolumeBytes, length: int) -> Iterator[Octets]:
        """Give the first ``length`` bytes of a plain stream outside of its record, piece by piece.

        Raises:
            KeepAll: it ends before, or was not written that far.
        """
        if length > self.initialized:
            raise KeepAll("a file is shorter than it has to be")
        done = 0
        for place, clusters in self.runs:
            here = min(clusters * self.layout.cluster, length - done)
            yield from volume.pieces(place * self.layout.cluster, here, PIECE)
            done += here
            if done == length:
                return

    def _place(self, offset: int) -> tuple[int, int]:
        """Say at which byte of the volume a byte of the stream lies, and how many follow it there."""
        inside, rest = divmod(offset, self.layout.cluster)
        number = bisect_right(self.starts, inside) - 1
        if number < 0:
            raise KeepAll("a file is shorter than it has to be")
        place, length = self.runs[number]
        skipped = inside - self.starts[number]
        if place == HOLE or skipped >= length:
            raise KeepAll("a file has a hole where none can be")
        unit = self.layout.cluster
        return (place + skipped) * unit + rest, (length - skipped) * unit - rest
