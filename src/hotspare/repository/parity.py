"""Parity: what flipped or lost sectors of a pack are made good from, without any key.

    head | parity sectors | head | length of the head (4)

The head lists a hash of every sector of the pack and of the parity, so damage is located first and
Reed-Solomon has to fill in known gaps only. Sectors are dealt out to groups in turn, so that a run of
neighbours that are lost (a bad track, a torn write) is shared by all groups. The head is there twice. See
docs/repository-format.md, "Parity".
"""

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Self

import zfec
from blake3 import blake3
from typing_extensions import Buffer

from hotspare.errors import RepositoryDamaged
from hotspare.repository.format import DATA, META, PARITY, PARITY_MAX
from hotspare.storage.backend import Backend
from hotspare.units import KIB

MAGIC = b"HSPRTY\x00\x01"
HEAD = struct.Struct(">8s32sQII")
LENGTH = struct.Struct(">I")
SECTOR_MAX = 64 * KIB
SECTOR_MIN = 512
GROUP_MAX = 100
"""Data sectors in a group; with at most ``PARITY_MAX`` for parity that stays within GF(256)."""
_FEW = 50
"""A pack of fewer sectors gets smaller ones: parity of a small pack must not be larger than the pack."""
_HASH = 8
_DIGEST = 32


class Layout(NamedTuple):
    """How a pack is cut up."""

    pack_size: int
    sector_size: int
    parity: int
    """Parity sectors of each group."""

    @classmethod
    def of(cls, pack_size: int, parity: int) -> Self:
        """Give the layout that a writer chooses."""
        sector_size = SECTOR_MAX
        while sector_size > SECTOR_MIN and pack_size < _FEW * sector_size:
            sector_size //= 2
        return cls(pack_size, sector_size, parity)

    @property
    def sectors(self) -> int:
        """Sectors of the pack, the last of which may be short."""
        return -(-self.pack_size // self.sector_size)

    @property
    def groups(self) -> int:
        """Groups that the sectors are dealt out to in turn."""
        return -(-self.sectors // GROUP_MAX)

    def members(self, group: int) -> range:
        """Give the sectors of a group."""
        return range(group, self.sectors, self.groups)

    def cut(self, data: memoryview) -> list[memoryview]:
        """Cut a pack into sectors; what is missing at its end is filled with zeroes."""
        found = []
        for start in range(0, self.sectors * self.sector_size, self.sector_size):
            sector = data[start : min(start + self.sector_size, self.pack_size)]
            if len(sector) < self.sector_size:
                sector = memoryview(bytes(sector) + bytes(self.sector_size - len(sector)))
            found.append(sector)
        return found


class Parity(NamedTuple):
    """A parity object that was read."""

    digest: bytes
    """BLAKE3 of the pack."""
    layout: Layout
    hashes: list[bytes]
    """Of the pack's sectors, then of the parity sectors."""
    sectors: list[memoryview]


def parity_name(pack_name: str) -> str:
    """Give the name of a pack's parity object: ``parity/data/4f/4f0c...``."""
    return PARITY + pack_name


def build_parity(data: memoryview, digest: bytes, parity: int) -> list[Buffer]:
    """Give the parts of the parity object of a pack, ``parity`` sectors to every hundred."""
    layout = Layout.of(len(data), parity)
    sectors = layout.cut(data)
    made: list[Buffer] = []
    for group in range(layout.groups):
        made += _encode([sectors[number] for number in layout.members(group)], parity)
    hashes = b"".join(_sector_hash(sector) for sector in (*sectors, *made))
    head = HEAD.pack(MAGIC, digest, layout.pack_size, layout.sector_size, parity) + hashes
    head += blake3(head).digest()
    return [head, *made, head, LENGTH.pack(len(head))]


def read_parity(name: str, data: bytes) -> Parity:
    """Read a parity object, by whichever of its heads is whole.

    Raises:
        RepositoryDamaged: neither is.
    """
    view = memoryview(data)
    candidates = [view]
    if len(data) > LENGTH.size:
        (length,) = LENGTH.unpack_from(data, len(data) - LENGTH.size)
        candidates.append(view[max(0, len(data) - LENGTH.size - length) : -LENGTH.size])
    for candidate in candidates:
        head = _read_head(candidate)
        if head is None:
            continue
        digest, layout, hashes = head
        start = _head_size(layout)
        count = layout.groups * layout.parity
        ends = [start + number * layout.sector_size for number in range(count + 1)]
        return Parity(digest, layout, hashes, [view[low:high] for low, high in pairwise(ends)])
    raise RepositoryDamaged(
        f"The parity object {name} is not what was written",
        meaning="Its pack can still be read, but not be repaired if it is damaged as well",
        hint="Run 'hotspare repo repair', which makes it anew from the pack",
    )


def lost_sectors(parity: Parity, data: memoryview) -> list[int]:
    """Give the numbers of the sectors of a pack that are not what they were."""
    sectors = parity.layout.cut(data)
    return [number for number, sector in enumerate(sectors) if _sector_hash(sector) != parity.hashes[number]]


def damaged_parity(parity: Parity) -> int:
    """Count the parity sectors that are not what they were."""
    hashes = parity.hashes[parity.layout.sectors :]
    return sum(_sector_hash(sector) != known for sector, known in zip(parity.sectors, hashes, strict=True))


def rebuild(parity: Parity, data: memoryview) -> bytes | None:
    """Give the whole pack from what is left of it, or None when more is lost than the parity can give."""
    layout = parity.layout
    sectors: list[Buffer] = list(layout.cut(data))
    lost = set(lost_sectors(parity, data))
    for group in range(layout.groups):
        members = layout.members(group)
        if lost.isdisjoint(members):
            continue
        good = [(place, sectors[number]) for place, number in enumerate(members) if number not in lost]
        first = group * layout.parity
        for place in range(layout.parity):
            sector = parity.sectors[first + place]
            if _sector_hash(sector) == parity.hashes[layout.sectors + first + place]:
                good.append((len(members) + place, sector))
        if len(good) < len(members):
            return None
        for number, given in zip(members, _decode(good, len(members), layout.parity), strict=True):
            sectors[number] = given
    whole = b"".join(sectors)[: layout.pack_size]
    return whole if blake3(whole).digest() == parity.digest else None


def _encode(sectors: Sequence[Buffer], parity: int) -> list[Buffer]:
    count = len(sectors)
    encoder = zfec.Encoder(count, count + parity)
    made: list[Buffer] = encoder.encode(sectors, list(range(count, count + parity)))
    return made


def _decode(good: Sequence[tuple[int, Buffer]], count: int, parity: int) -> list[Buffer]:
    chosen = good[:count]
    decoder = zfec.Decoder(count, count + parity)
    found: list[Buffer] = decoder.decode([sector for _, sector in chosen], [place for place, _ in chosen])
    return found


def _sector_hash(sector: Buffer) -> bytes:
    return blake3(sector).digest(_HASH)


def _head_size(layout: Layout) -> int:
    return HEAD.size + (layout.sectors + layout.groups * layout.parity) * _HASH + _DIGEST


def _read_head(data: memoryview) -> tuple[bytes, Layout, list[bytes]] | None:
    if len(data) < HEAD.size:
        return None
    magic, digest, pack_size, sector_size, parity = HEAD.unpack_from(data)
    layout = Layout(pack_size, sector_size, parity)
    sane = (
        magic == MAGIC
        and 0 < pack_size < 1 << 32
        and SECTOR_MIN <= sector_size <= SECTOR_MAX
        and 0 < parity <= PARITY_MAX
    )
    if not sane or _head_size(layout) > len(data):
        return None
    end = _head_size(layout) - _DIGEST
    if blake3(data[:end]).digest() != data[end : end + _DIGEST]:
        return None
    hashes = bytes(data[HEAD.size : end])
    return digest, layout, [hashes[at : at + _HASH] for at in range(0, len(hashes), _HASH)]


def delete_orphaned_parity(backend: Backend) -> None:
    """Remove the parity of packs that are gone: a writer that died late, or was late, may have left it.

    A pack is stored before its parity, so parity that is in a listing and its pack not in a later one has
    lost its pack.
    """
    listed = [item.name for item in backend.list(PARITY)]
    if not listed:
        return
    there = {parity_name(item.name) for kind in (DATA, META) for item in backend.list(kind + "/")}
    for name in listed:
        if name not in there:
            backend.delete(name)
