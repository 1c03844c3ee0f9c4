"""Runs of a disk's bytes that are of one kind."""

from enum import Enum
from typing import NamedTuple


class ExtentKind(Enum):
    """What is known of a run of bytes without reading it."""

    DATA = "data"
    """May hold anything: has to be read."""
    ZERO = "zero"
    """Reads as zeroes."""


class Extent(NamedTuple):
    """``length`` bytes from ``offset``, all of one kind. ``length`` is never 0."""

    offset: int
    length: int
    kind: ExtentKind

    @property
    def end(self) -> int:
        """The first byte after the extent."""
        return self.offset + self.length
