"""The contract of a volume: a run of bytes that one file system, swap space or container lies in."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hotspare.block.ranges import Ranges


class Place(NamedTuple):
    """A run of bytes on one disk of the machine."""

    disk: str
    offset: int
    length: int


class Layout(Protocol):
    """Where the bytes of a volume lie on the disks of its machine. Implemented in ``layouts.py``."""

    @property
    def size(self) -> int:
        """Bytes of the volume."""
        ...

    @property
    def disks(self) -> frozenset[str]:
        """Those that hold any byte of it."""
        ...

    def places(self, offset: int, length: int) -> Iterator[Place]:
        """Yield where a run of the volume's bytes lies, in the order of the volume.

        Lazily: a run may lie in millions of stripes. What is not inside the volume is left out.
        """
        ...

    def on_disks(self, ranges: Ranges) -> dict[str, Ranges]:
        """Translate a set of the volume's bytes into sets of bytes of each disk. No slower for stripes.

        What is not inside the volume is left out, so that no mistaken map reaches the bytes of a neighbour.
        """
        ...


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume, found by ``find.py``."""

    name: str
    """``vda1``, ``vda`` for a file system on a whole disk, ``vg0/root`` for a logical volume."""
    layout: Layout
    content: str
    """By its signature: ``ext``, ``xfs``, ``btrfs``, ``ntfs``, ``fat``, ``exfat``, ``swap``, ``luks``,
    ``bitlocker``, ``refs``, ``zfs``, ``lvm``, ``mdraid``…; empty when unknown. ``signatures.py`` has all."""
    label: str = ""
    uuid: str = ""
    """Of the file system, as ``blkid`` prints it; for swap too."""
    partition_uuid: str = ""
    """As ``blkid`` prints ``PARTUUID``: a GUID, or the signature of an MBR and a number."""
    partition_label: str = ""
    """The name that a GPT gives."""
    also: tuple[str, ...] = ()
    """What else it might be by its signatures, one of which is stale; then ``keep_because`` says so too."""
    keep_because: str | None = None
    """Why nothing in it may be called unused, whatever its file system says: ``"it is part of a RAID"``."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.layout.size


@dataclass(frozen=True, slots=True)
class UnreadableVolume:
    """One that is known to be there, and cannot be read in here. All its bytes are kept."""

    name: str
    """As that of a ``Volume``."""
    size: int
    """Bytes; 0 when not even that is known."""
    reason: str
    """``"it is thin, and thin volumes are not mapped"``."""
