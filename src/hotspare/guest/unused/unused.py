"""The contract of an unused-block map.

Each file system has a function of the type ``FindUnused``. It starts from "keep all" and gives only what is
proven to be free; any doubt at all is a ``KeepAll`` with the reason. A wrong answer here is silent loss of
data, a missing one costs some space.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from hotspare.block.device import BlockReader
from hotspare.block.ranges import NOTHING, Ranges


class Quiet(Enum):
    """Why the file system stands still in the view that is read."""

    FROZEN = "frozen"
    """The machine runs, and its mounted file systems were flushed and frozen at that instant, as we saw
    ourselves. One that the freeze has missed must be found out by its own marks where it has such."""
    OFFLINE = "offline"
    """The machine was off: what was not unmounted cleanly has a journal to be replayed, or a mark that it is
    dirty."""


class KeepAll(Exception):
    """Nothing of this file system may be left out; the reason is for people: "its journal is not empty"."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class UnusedBlocks:
    """What a file system does not need. All sets are of bytes from the start of its volume."""

    file_system: str
    """``ext4``, ``xfs``, ``ntfs``…"""
    size: int
    """Bytes that the file system manages; what its volume has beyond is always kept."""
    free: Ranges
    """Free by its allocation maps, exactly as its own tools count them."""
    scratch: Ranges = NOTHING
    """In use, by content that is worth nothing after a restart: swap, page and hibernation files."""
    remarks: tuple[str, ...] = ()
    """What people should know: parts that are kept, and why."""


FindUnused = Callable[[BlockReader, Quiet], UnusedBlocks]
"""Reads a volume and says what is unused in it.

Raises:
    KeepAll: nothing is proven, or the content makes no sense. Whatever bytes the volume holds, the function
        ends in time and memory that are bounded by the volume's size, with a result or with this.
    SourceLost, StorageError, RepositoryDamaged: it cannot be read.
"""
