"""Where the logical addresses of Btrfs lie on its devices.

After the Btrfs developer documentation, "On-disk format", "CHUNK_ITEM". A chunk is a run of logical
addresses with stripes on one or more devices. Only chunks whose stripes are whole copies (single, DUP,
RAID1, 1C3, 1C4) are translated.
"""

import struct
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from hotspare.guest.unused.unused import KeepAll

_SYSTEM = 0x2
_RAID0, _RAID1, _DUP, _RAID10, _RAID5, _RAID6 = 0x8, 0x10, 0x20, 0x40, 0x80, 0x100
_RAID1C3, _RAID1C4 = 0x200, 0x400
_PROFILES = _RAID0 | _RAID1 | _DUP | _RAID10 | _RAID5 | _RAID6 | _RAID1C3 | _RAID1C4
_CONTENTS = 0x1 | _SYSTEM | 0x4
"""Data, system, metadata."""
_COPIES = {0: 1, _DUP: 2, _RAID1: 2, _RAID1C3: 3, _RAID1C4: 4}
"""Number of stripes of profiles in which each stripe is a whole copy."""
_HEADER = struct.Struct("<QQQQIIIHH")
_STRIPE = struct.Struct("<QQ16s")
_KEY = struct.Struct("<QBQ")
_CHUNK_TREE_OBJECT, _CHUNK_ITEM = 256, 228
_LIMIT = 2**62
"""No address or length of a real file system comes near it, and sums below it do not overflow 64 bits."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of logical addresses."""

    start: int
    """Logical."""
    length: int
    kind: int
    """What it holds, and its profile: flags."""
    stripes: tuple[tuple[int, int, bytes], ...]
    """Of each: device id, physical start, UUID of the device."""
    substripes: int

    @property
    def end(self) -> int:
        """The first logical address after it."""
        return self.start + self.length

    @property
    def is_system(self) -> bool:
        """Holds the chunk tree."""
        return bool(self.kind & _SYSTEM)

    @property
    def is_copied(self) -> bool:
        """Each stripe is a whole copy."""
        return self.kind & _PROFILES in _COPIES

    @property
    def stripe_length(self) -> int:
        """Bytes that it takes of a device for each stripe."""
        return self.length if self.is_copied else self.length // self._columns

    def starts_on(self, device: int) -> list[int]:
        """Give the physical starts of its stripes on a device."""
        return [offset for on, offset, _ in self.stripes if on == device]

    @property
    def _columns(self) -> int:
        count = len(self.stripes)
        lost = {_RAID5: 1, _RAID6: 2}.get(self.kind & _PROFILES, 0)
        return count // self.substripes if self.kind & _RAID10 else count - lost

    def check(self) -> None:
        """Raise ``KeepAll`` where it makes no sense."""
        profile, count = self.kind & _PROFILES, len(self.stripes)
        if self.is_copied:
            sensible = count == _COPIES[profile]
        elif profile == _RAID10:
            sensible = self.substripes == 2 and count >= 2 and count % 2 == 0
        else:
            least = {_RAID0: 1, _RAID5: 2, _RAID6: 3}.get(profile)
            sensible = least is not None and count >= least
        sensible = (
            sensible
            and not self.kind & ~(_PROFILES | _CONTENTS)
            and bool(self.kind & _CONTENTS)
            and 0 < self.length <= _LIMIT
            and self.start <= _LIMIT
            and all(offset <= _LIMIT for _, offset, _ in self.stripes)
        )
        if not sensible or (not self.is_copied and self.length % self._columns):
            raise KeepAll("one of its chunks makes no sense")


def parse_chunk(start: int, item: bytes) -> Chunk:
    """Read a chunk item.

    Raises:
        KeepAll: it makes no sense.
    """
    if len(item) < _HEADER.size:
        raise KeepAll("one of its chunks makes no sense")
    length, _, _, kind, _, _, _, count, substripes = _HEADER.unpack_from(item)
    if len(item) != _HEADER.size + count * _STRIPE.size:
        raise KeepAll("one of its chunks makes no sense")
    stripes = tuple(_STRIPE.iter_unpack(item[_HEADER.size :]))
    chunk = Chunk(start, length, kind, stripes, substripes)
    chunk.check()
    return chunk


def parse_system_chunks(array: bytes) -> list[Chunk]:
    """Read the chunks in the superblock.

    Raises:
        KeepAll: they make no sense.
    """
    chunks = []
    at = 0
    while at < len(array):
        if at + _KEY.size + _HEADER.size > len(array):
            raise KeepAll("its system chunks make no sense")
        owner, kind, start = _KEY.unpack_from(array, at)
        at += _KEY.size
        size = _HEADER.size + _HEADER.unpack_from(array, at)[7] * _STRIPE.size
        chunks.append(parse_chunk(start, array[at : at + size]))
        if (owner, kind) != (_CHUNK_TREE_OBJECT, _CHUNK_ITEM) or not chunks[-1].is_system:
            raise KeepAll("its system chunks make no sense")
        at += size
    return chunks


class ChunkMap:
    """Translates logical addresses to places on one device."""

    def __init__(self, chunks: list[Chunk], device: int) -> None:
        self.chunks = sorted(chunks, key=lambda chunk: chunk.start)
        self.device = device
        self._starts = [chunk.start for chunk in self.chunks]
        if any(one.end > other.start for one, other in pairwise(self.chunks)):
            raise KeepAll("its chunks overlap")

    def copies(self, logical: int, length: int) -> list[int]:
        """Give the places of a run of bytes on the device, one for each copy there.

        Raises:
            KeepAll: there is no such address, or it is striped over devices.
        """
        at = bisect_right(self._starts, logical) - 1
        if at < 0 or logical + length > self.chunks[at].end:
            raise KeepAll("one of its trees points to an address that no chunk has")
        chunk = self.chunks[at]
        if not chunk.is_copied:
            raise KeepAll("its metadata is striped over devices")
        return [start + logical - chunk.start for start in chunk.starts_on(self.device)]
