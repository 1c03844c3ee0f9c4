"""Packs: many sealed chunks in one immutable object, named by the BLAKE3 of its bytes.

    magic (8) | epoch (4) | seed (32) | entry | entry | ... | sealed table | table length (4) | magic (8)

An entry is AES-256-GCM ciphertext with its tag, its nonce the entry's offset in the pack. The table
lists id, offset, sealed length and codec of each entry, and the base of a delta, so that an index can
always be rebuilt. All numbers are big-endian. See docs/repository-format.md.
"""

import mmap
import secrets
import struct
from collections.abc import Iterator
from typing import NamedTuple

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hotspare.errors import RepositoryDamaged
from hotspare.repository.codec import DELTA
from hotspare.repository.format import CHUNK_ID_SIZE, pack_name
from hotspare.repository.keys import SEED_SIZE, TAG_SIZE, Keyring
from hotspare.units import MIB

HEAD_MAGIC = b"HSPACK\x00\x01"
FOOT_MAGIC = b"HSPTOC\x00\x01"
HEAD = struct.Struct(">8sI32s")
TABLE_ROW = struct.Struct(">32sIIB")
FOOT = struct.Struct(">I8s")

PACK_TARGET = 32 * MIB
"""A pack is closed once it is this large. Larger ones mean fewer fsyncs and requests, and more memory."""
_BUFFER_SIZE = PACK_TARGET + 1 * MIB
"""Room for the entry that fills a pack, and for its table; a larger one makes the buffer grow."""
_PURPOSE = b"pack"


class Entry(NamedTuple):
    """One row of a pack's table."""

    id: bytes
    offset: int
    length: int
    """Sealed bytes, the tag included."""
    codec: int
    base: bytes = b""
    """Of a delta: the id of the chunk that it is to be put upon."""


class SealedPack(NamedTuple):
    """A finished pack, ready to be stored."""

    name: str
    digest: bytes
    kind: str
    epoch: int
    seed: bytes
    size: int
    entries: list[Entry]


def nonce_at(offset: int) -> bytes:
    """Give the nonce of what is sealed at an offset of its object."""
    return offset.to_bytes(12, "big")


def entry_context(keyring: Keyring, chunk_id: bytes, codec: int, base: bytes) -> bytes:
    """Give the associated data that binds an entry to its repository, its id, its codec and its base."""
    return keyring.repository_id + chunk_id + bytes((codec,)) + base


def new_buffer() -> mmap.mmap:
    """Give room for a pack. It begins at a page, as writes past the page cache need it."""
    return mmap.mmap(-1, _BUFFER_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class PackBuilder:
    """A pack being filled, in one buffer that entries are sealed straight into.

    Attributes:
        buffer: may be used for the next pack once this one is stored.
    """

    def __init__(
        self, keyring: Keyring, kind: str, target: int = PACK_TARGET, buffer: mmap.mmap | None = None
    ) -> None:
        self._keyring = keyring
        self._kind = kind
        self._target = target
        self._seed = secrets.token_bytes(SEED_SIZE)
        self._cipher = keyring.sealer(keyring.epoch, self._seed, _PURPOSE)
        self.buffer = new_buffer() if buffer is None else buffer
        HEAD.pack_into(self.buffer, 0, HEAD_MAGIC, keyring.epoch, self._seed)
        self._end = HEAD.size
        self._entries: list[Entry] = []

    @property
    def full(self) -> bool:
        """Whether the pack has reached its target size."""
        return self._end >= self._target

    @property
    def empty(self) -> bool:
        """Whether nothing was added yet."""
        return not self._entries

    def add(self, chunk_id: bytes, codec: int, payload: bytes, base: bytes = b"") -> int:
        """Seal one chunk into the pack and give the bytes it takes there; a delta names its base."""
        length = len(payload) + TAG_SIZE
        self._seal(payload, entry_context(self._keyring, chunk_id, codec, base))
        self._entries.append(Entry(chunk_id, self._end - length, length, codec, base))
        return length

    @property
    def data(self) -> memoryview:
        """The bytes of the pack so far."""
        return memoryview(self.buffer)[: self._end].toreadonly()

    def finish(self) -> SealedPack:
        """Close the pack: seal its table, and name it by the hash of its bytes."""
        table = b"".join(TABLE_ROW.pack(*entry[:4]) + entry.base for entry in self._entries)
        self._seal(table, _table_context(self._keyring))
        foot = FOOT.pack(len(table) + TAG_SIZE, FOOT_MAGIC)
        self._reserve(FOOT.size)
        self.buffer[self._end : self._end + FOOT.size] = foot
        self._end += FOOT.size
        digest = blake3(self.data).digest()
        return SealedPack(
            pack_name(self._kind, digest),
            digest,
            self._kind,
            self._keyring.epoch,
            self._seed,
            self._end,
            self._entries,
        )

    def _seal(self, payload: bytes, context: bytes) -> None:
        length = len(payload) + TAG_SIZE
        self._reserve(length)
        with memoryview(self.buffer) as view, view[self._end : self._end + length] as place:
            self._cipher.encrypt_into(nonce_at(self._end), payload, context, place)
        self._end += length

    def _reserve(self, length: int) -> None:
        if self._end + length > len(self.buffer):
            self.buffer.resize(self._end + length)


def open_entry(cipher: AESGCM, keyring: Keyring, entry: Entry, sealed: memoryview) -> bytes:
    """Give the payload of an entry. Raises ``InvalidTag`` when it is not what was sealed."""
    context = entry_context(keyring, entry.id, entry.codec, entry.base)
    return cipher.decrypt(nonce_at(entry.offset), sealed, context)


def read_head(data: bytes, name: str) -> tuple[int, bytes]:
    """Give epoch and seed from the first ``HEAD.size`` bytes. Raises ``RepositoryDamaged``."""
    if len(data) < HEAD.size or data[:8] != HEAD_MAGIC:
        raise RepositoryDamaged(f"{name} is no pack of a version that is known here")
    _, epoch, seed = HEAD.unpack_from(data)
    return epoch, seed


def read_table(keyring: Keyring, name: str, data: bytes) -> Iterator[Entry]:
    """Yield the entries of a whole pack, from its sealed table.

    Raises:
        RepositoryDamaged: the pack is truncated, altered, or of another repository.
    """
    epoch, seed = read_head(data, name)
    start, length = table_place(data[-FOOT.size :], len(data), name)
    return open_table(keyring, name, epoch, seed, start, data[start : start + length])


def table_place(foot: bytes, size: int, name: str) -> tuple[int, int]:
    """Give offset and sealed length of the table, from a pack's last ``FOOT.size`` bytes and its size.

    Raises:
        RepositoryDamaged: the pack is truncated.
    """
    if size < HEAD.size + FOOT.size + TAG_SIZE:
        raise RepositoryDamaged(f"{name} is truncated")
    length, magic = FOOT.unpack(foot)
    start = size - FOOT.size - length
    if magic != FOOT_MAGIC or start < HEAD.size or length < TAG_SIZE:
        raise RepositoryDamaged(f"{name} is truncated or has lost its table")
    return start, length


def open_table(
    keyring: Keyring, name: str, epoch: int, seed: bytes, start: int, sealed: bytes
) -> Iterator[Entry]:
    """Yield the entries of a table that was sealed at byte ``start``. Raises ``RepositoryDamaged``."""
    try:
        table = keyring.sealer(epoch, seed, _PURPOSE).decrypt(
            nonce_at(start), sealed, _table_context(keyring)
        )
    except InvalidTag as error:
        raise RepositoryDamaged(f"The table of {name} is not what was written") from error
    return _rows(table, name)


def _rows(table: bytes, name: str) -> Iterator[Entry]:
    at = 0
    while at < len(table):
        end = at + TABLE_ROW.size
        if end > len(table):
            raise RepositoryDamaged(f"The table of {name} has a broken row")
        row: tuple[bytes, int, int, int] = TABLE_ROW.unpack_from(table, at)
        at = end + CHUNK_ID_SIZE if row[3] == DELTA else end
        base = table[end:at]
        if at > len(table):
            raise RepositoryDamaged(f"The table of {name} has a broken row")
        chunk_id, offset, length, codec = row
        yield Entry(chunk_id, offset, length, codec, base)


def pack_cipher(keyring: Keyring, epoch: int, seed: bytes) -> AESGCM:
    """Give the cipher of a pack's entries."""
    return keyring.sealer(epoch, seed, _PURPOSE)


def _table_context(keyring: Keyring) -> bytes:
    return keyring.repository_id + b"table"


assert TABLE_ROW.size == CHUNK_ID_SIZE + 9, "the row is part of the format"  # noqa: S101 - checked at import
