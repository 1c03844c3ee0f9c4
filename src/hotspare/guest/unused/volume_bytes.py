"""Reading a volume of which nothing is believed: what should be there and is not, means keep all."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hotspare.block.device import BlockReader
from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.unused.unused import KeepAll
from hotspare.units import MIB

PIECE = 1 * MIB
"""How much of a long table is read at once, in bytes."""
_READ_MAX = 64 * MIB

Octets = NDArray[np.uint8]


class VolumeBytes:
    """A volume's bytes: short reads through a cache, long tables piece by piece."""

    def __init__(self, volume: BlockReader) -> None:
        self.size = volume.size
        self._volume = volume
        self._cached = CachedReader(volume, bytes_max=8 * MIB)

    def read(self, offset: int, length: int) -> bytes:
        """Give exactly the bytes that were asked for.

        Raises:
            KeepAll: the volume ends before, or they are too many to be of a sane file system.
        """
        if offset < 0 or length > _READ_MAX or offset + length > self.size:
            raise KeepAll("it points beyond its own end")
        return self._cached.read(offset, length)

    def pieces(self, offset: int, length: int, piece: int = PIECE) -> Iterator[Octets]:
        """Give a long run of bytes in order, each piece but the last of the same length.

        Raises:
            KeepAll: the volume ends before.
        """
        if offset < 0 or offset + length > self.size:
            raise KeepAll("it points beyond its own end")
        for start in range(offset, offset + length, piece):
            octets = bytearray(min(piece, offset + length - start))
            self._volume.read_into(start, memoryview(octets))
            yield np.frombuffer(octets, dtype=np.uint8)
