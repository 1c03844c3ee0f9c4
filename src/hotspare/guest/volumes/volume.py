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
    """Where the bytes of a volume lie on the disks of its machine."""

    size: int
    """Bytes of the volume."""

    def places(self, offset: int, length: int) -> Iterator[Place]:
        """Yield where a run of the volume's bytes lies, in the order of the volume."""
        ...

    def on_disks(self, ranges: Ranges) -> dict[str, Ranges]:
        """Translate a set of the volume's bytes into sets of bytes of each disk. No slower for stripes."""
        ...


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume, found by ``find.py``."""

    name: str
    """``vda1``, ``vda`` for a file system on a whole disk, ``vg0/root`` for a logical volume."""
    layout: Layout
    content: str
    """By its signature: ``ext``, ``xfs``, ``btrfs``, ``ntfs``, ``fat``, ``exfat``, ``swap``, ``luks``, ``bitlocker``,
    ``refs``, ``zfs``, ``lvm``, ``mdraid``…; empty when unknown."""
    label: str = ""
    uuid: str = ""
    """Of the file system, as ``blkid`` prints it; for swap too."""
    partition_uuid: str = ""
    keep_because: str | None = None
    """Why nothing in it may be called unused, whatever its file system says: ``"an LVM snapshot is taken of it"``."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.layout.size
