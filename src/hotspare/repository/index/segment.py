"""Index segments as they are stored.

    magic (8) | epoch (4) | seed (32) | sealed: header length (4) | header (msgpack) | rows | bases

A row is 28 bytes: the first 16 bytes of the chunk id, pack number, offset, and sealed length and
codec in one word. 16 bytes are enough to tell 10^9 chunks apart (a clash has odds of about 10^-21), and the
entry's authentication, which covers the whole id, would uncover one. Rows are sorted by id. For each
row of a delta, ``bases`` has the number of the row and the whole id of the base.
"""

import secrets
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from blake3 import blake3
from cryptography.exceptions import InvalidTag

from hotspare.errors import RepositoryDamaged
from hotspare.repository.codec import DELTA
from hotspare.repository.decode import decode_msgpack
from hotspare.repository.format import CHUNK_ID_SIZE, INDEX, SEGMENT_SIZE_MAX, pack_name
from hotspare.repository.keys import SEED_SIZE, Keyring
from hotspare.repository.pack import Entry, nonce_at

MAGIC = b"HSINDX\x00\x01"
HEAD = struct.Struct(">8sI32s")
LENGTH = struct.Struct(">I")
ROW = np.dtype([("id", "V16"), ("pack", ">u4"), ("offset", ">u4"), ("place", ">u4")])
BASE = np.dtype([("row", ">u4"), ("id", f"V{CHUNK_ID_SIZE}")])
CODEC_BITS = 8
PREFIX = 16
SEGMENT_ROWS_MAX = 1 << 16
"""A writer publishes a segment once it has this many new rows (16 GiB of new data at 256 KiB)."""
_PURPOSE = b"index"


class PackRecord(msgspec.Struct, frozen=True, array_like=True):
    """What a reader must know of a pack to open an entry with a single range read."""

    kind: str
    digest: bytes
    size: int
    epoch: int
    seed: bytes

    @property
    def name(self) -> str:
        """The pack's object name."""
        return pack_name(self.kind, self.digest)


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The msgpack header of a segment; ``pack`` in a row counts in ``packs``."""

    packs: tuple[PackRecord, ...]
    rows: int
    replaces: tuple[str, ...] = ()
    """Object names of segments whose rows are all in this one, or are of packs that are gone."""
    deltas: int = 0
    """How many rows are of deltas."""
    session: str = ""
    """Id of the session that wrote it."""


def _no_bases() -> npt.NDArray[Any]:
    return np.empty(0, dtype=BASE)


@dataclass(frozen=True)
class Segment:
    """An index segment in memory, as stored but for the sealing."""

    packs: tuple[PackRecord, ...]
    rows: npt.NDArray[Any]
    """Of ``ROW``, sorted by id."""
    replaces: tuple[str, ...] = ()
    bases: npt.NDArray[Any] = field(default_factory=_no_bases)
    """Of ``BASE``, sorted by row: one for each row of a delta."""
    session: str = ""

    @classmethod
    def of(
        cls, packs: Sequence[PackRecord], entries: Iterable[tuple[int, Entry]], replaces: tuple[str, ...] = ()
    ) -> "Segment":
        """Make a segment of entries, each with its pack's number in ``packs``."""
        found = sorted(entries, key=lambda item: item[1].id[:PREFIX])
        rows = np.empty(len(found), dtype=ROW)
        bases = []
        for at, (number, entry) in enumerate(found):
            place = entry.length << CODEC_BITS | entry.codec
            rows[at] = (entry.id[:PREFIX], number, entry.offset, place)
            if entry.base:
                bases.append((at, entry.base))
        return cls(tuple(packs), rows, replaces, np.array(bases, dtype=BASE))

    def seal(self, keyring: Keyring) -> tuple[str, bytes]:
        """Give the object name and the sealed bytes."""
        seed = secrets.token_bytes(SEED_SIZE)
        header = msgspec.msgpack.encode(
            SegmentHeader(
                packs=self.packs,
                rows=len(self.rows),
                replaces=self.replaces,
                deltas=len(self.bases),
                session=self.session,
            )
        )
        plain = b"".join((LENGTH.pack(len(header)), header, self.rows.tobytes(), self.bases.tobytes()))
        sealed = keyring.sealer(keyring.epoch, seed, _PURPOSE).encrypt(
            nonce_at(HEAD.size), plain, _context(keyring)
        )
        data = HEAD.pack(MAGIC, keyring.epoch, seed) + sealed
        return INDEX + blake3(data).hexdigest(), data

    @classmethod
    def open(cls, keyring: Keyring, name: str, data: bytes) -> "Segment":
        """Read a segment. Raises ``RepositoryDamaged``."""
        damaged = f"The index segment {name} cannot be used"
        if len(data) < HEAD.size or data[:8] != MAGIC or len(data) > SEGMENT_SIZE_MAX:
            raise _segment_damage(f"{damaged}: it is no segment of a version that is known here")
        _, epoch, seed = HEAD.unpack_from(data)
        try:
            plain = keyring.sealer(epoch, seed, _PURPOSE).decrypt(
                nonce_at(HEAD.size), memoryview(data)[HEAD.size :], _context(keyring)
            )
            return cls._parse(plain)
        except (InvalidTag, msgspec.DecodeError, struct.error, ValueError) as error:
            raise _segment_damage(f"{damaged}: it is not what was written") from error

    @classmethod
    def _parse(cls, plain: bytes) -> "Segment":
        """Read what was sealed. Raises ``ValueError``, ``struct.error``, ``msgspec.DecodeError``."""
        (length,) = LENGTH.unpack_from(plain)
        start = LENGTH.size + length
        header = decode_msgpack(plain[LENGTH.size : start], SegmentHeader)
        middle = start + header.rows * ROW.itemsize
        if not header.rows >= 0 <= header.deltas or middle + header.deltas * BASE.itemsize != len(plain):
            raise ValueError("rows do not fit the header")
        rows = np.frombuffer(plain[start:middle], dtype=ROW)
        bases = np.frombuffer(plain[middle:], dtype=BASE)
        if header.rows and int(rows["pack"].max()) >= len(header.packs):
            raise ValueError("a row of no pack")
        if not np.array_equal(bases["row"], np.flatnonzero(rows["place"] & 0xFF == DELTA)):
            raise ValueError("deltas without bases")
        return cls(header.packs, rows, header.replaces, bases, header.session)


def _segment_damage(what: str) -> RepositoryDamaged:
    return RepositoryDamaged(
        what,
        meaning="The chunks it lists cannot be found until it is back; the packs themselves are untouched",
        hint="Run 'hotspare repo reindex' to make the index again from the packs",
    )


def _context(keyring: Keyring) -> bytes:
    return keyring.repository_id + b"index segment"
