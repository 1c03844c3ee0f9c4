"""The published index, as tables: read from the store once, then from files on this host.

A file is the table of one segment, named by the segment, in the clear, for its owner only; it is mapped
into memory, so an index larger than memory works. Anything odd about a file has it made again: it begins
with a hash of the rest, which is compared when the file is mapped. Of very large files it is so only for
collectors of garbage: they delete by what is in there, while a lookup that goes wrong stores a chunk twice or
fails.
"""

import mmap
import os
import secrets
import struct
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
import numpy as np
from blake3 import blake3
from typing_extensions import Buffer

from hotspare.errors import ObjectNotFound, RepositoryDamaged
from hotspare.repository.decode import decode_msgpack
from hotspare.repository.format import CHUNK_ID_SIZE, INDEX
from hotspare.repository.index.segment import PackRecord, Segment
from hotspare.repository.index.table import Table
from hotspare.repository.keys import Keyring
from hotspare.storage.backend import Backend
from hotspare.units import GIB, MIB

_MAGIC = b"HSTABL\x00\x02"
_HEAD = struct.Struct("<8s32s")
_LENGTH = struct.Struct("<I")
_ALWAYS_CHECKED = GIB
"""Bytes of a file up to which hashing it costs no more than a second or so: some 30 million chunks."""
_BLOCK = 4 * MIB
_COLUMNS = ("high", "low", "filter", "pack", "offset", "place", "delta_rows", "delta_bases")
_TRIES = 5
"""How often the list is read again because a segment went away between listing and reading it."""


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    byte_order: str
    columns: tuple[tuple[str, int], ...]
    """Type and number of items of each column."""
    packs: tuple[PackRecord, ...]
    replaces: tuple[str, ...]
    session: str = ""


class ListedSegment(NamedTuple):
    """A segment as a table, with what its header says besides."""

    table: Table
    replaces: tuple[str, ...]
    session: str


class SegmentListing(NamedTuple):
    """The segments of a repository."""

    in_force: dict[str, ListedSegment]
    """By object name."""
    replaced: tuple[str, ...]
    """Those that another one replaces and that are still there, in a safe order to delete them."""
    superseded: dict[str, ListedSegment]
    """Those of them that can be read."""
    doubtful: frozenset[str] = frozenset()
    """Those in force that another one wrongly says it replaces: readers miss them."""

    def trusted(self, expelled: Container[str]) -> dict[str, Table]:
        """Give the tables of sessions that were not given up."""
        return {name: one.table for name, one in self.in_force.items() if one.session not in expelled}


class SegmentSource:
    """Gives the tables of a repository's published segments."""

    def __init__(
        self, backend: Backend, keyring: Keyring, folder: Path | None, *, check_all: bool = False
    ) -> None:
        """``check_all``: compare the hash of files on this host however large they are."""
        self._checked_max = sys.maxsize if check_all else _ALWAYS_CHECKED
        self._backend = backend
        self._keyring = keyring
        self._folder = folder / keyring.repository_id.hex() if folder else None

    def tables(self) -> dict[str, Table]:
        """Give the tables by their segments' object names; those that another segment replaces are left out.

        Raises as ``listing``.
        """
        return {name: one.table for name, one in self.listing().in_force.items()}

    def listing(self, expelled: Container[str] = frozenset()) -> SegmentListing:
        """Read all segments.

        What a segment of an expelled session says it replaces stays in force: nobody has checked it.

        Raises:
            RepositoryDamaged: a segment that is needed cannot be used.
        """
        for _ in range(_TRIES - 1):
            with suppress(ObjectNotFound):
                return self._load(expelled)
        return self._load(expelled)

    def _load(self, expelled: Container[str]) -> SegmentListing:
        opened: dict[str, ListedSegment] = {}
        damaged: dict[str, RepositoryDamaged] = {}
        replaced: set[str] = set()
        names = [item.name for item in self._backend.list(INDEX)]
        for name in names:
            try:
                one = self._open(name)
            except RepositoryDamaged as error:
                damaged[name] = error
                continue
            opened[name] = one
            if one.session not in expelled:
                replaced.update(one.replaces)
        for name, damage in damaged.items():
            if name not in replaced:
                raise damage
        self._drop_files(set(names))
        in_force = {name: one for name, one in opened.items() if name not in replaced}
        superseded = {name: one for name, one in opened.items() if name in replaced}
        order = in_order_of_deletion(opened, [name for name in names if name in replaced])
        return SegmentListing(in_force, order, superseded)

    def _open(self, name: str) -> ListedSegment:
        path = self._path(name)
        if path is not None:
            with suppress(OSError, ValueError, struct.error, msgspec.DecodeError):
                return _map(path, self._checked_max)
        segment = Segment.open(self._keyring, name, self._backend.get(name))
        table = Table.of(segment)
        listed = ListedSegment(table, segment.replaces, segment.session)
        if path is None:
            return listed
        # A full or read-only file system must not keep anyone from their data: the index fits in memory.
        with suppress(OSError, ValueError, struct.error, msgspec.DecodeError):
            _write(path, listed)
            return _map(path, checked_max=0)
        return listed

    def _path(self, name: str) -> Path | None:
        return self._folder / name.removeprefix(INDEX) if self._folder else None

    def _drop_files(self, live: set[str]) -> None:
        if self._folder is None:
            return
        with suppress(OSError):  # what stays takes space, no more
            for path in self._folder.iterdir():
                if INDEX + path.name not in live:
                    path.unlink(missing_ok=True)


def in_order_of_deletion(opened: Mapping[str, ListedSegment], replaced: list[str]) -> tuple[str, ...]:
    """Put segments in an order in which none is deleted before what it replaces, which would return else."""
    order: dict[str, None] = {}

    def add(name: str) -> None:
        if name not in order and name in replaced:
            for older in opened[name].replaces if name in opened else ():
                add(older)
            order[name] = None

    for name in replaced:
        add(name)
    return tuple(order)


def _write(path: Path, listed: ListedSegment) -> None:
    table = listed.table
    columns: list[np.ndarray[Any, Any]] = [getattr(table, name) for name in _COLUMNS]
    header = msgspec.msgpack.encode(
        _Header(
            byte_order=sys.byteorder,
            columns=tuple((column.dtype.str, len(column)) for column in columns),
            packs=table.packs,
            replaces=listed.replaces,
            session=listed.session,
        )
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    file = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(bytes(_HEAD.size))
            digest = blake3(max_threads=blake3.AUTO)
            for part in _parts(header, columns):
                stream.write(part)
                digest.update(part)
            stream.seek(0)
            stream.write(_HEAD.pack(_MAGIC, digest.digest()))
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _parts(header: bytes, columns: Sequence[np.ndarray[Any, Any]]) -> Iterator[Buffer]:
    """Yield all of a file but its head; columns begin at multiples of 8."""
    at = _HEAD.size + _LENGTH.size + len(header)
    yield _LENGTH.pack(len(header)) + header
    for column in columns:
        yield bytes(-at % 8)
        at += -at % 8 + column.nbytes
        yield column.view(np.uint8).data


def _map(path: Path, checked_max: int) -> ListedSegment:
    """Map a file, and compare the hash of one of at most ``checked_max`` bytes.

    Raises ``OSError``, ``ValueError``, ``struct.error`` or ``msgspec.DecodeError``.
    """
    with path.open("rb") as stream:
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        magic, digest = _HEAD.unpack_from(data)
        if magic != _MAGIC or (len(data) <= checked_max and _hash(stream) != digest):
            raise ValueError("another layout, or damaged")
    at = _HEAD.size + _LENGTH.size
    (length,) = _LENGTH.unpack_from(data, _HEAD.size)
    header = decode_msgpack(data[at : at + length], _Header)
    at += length
    if header.byte_order != sys.byteorder or len(header.columns) != len(_COLUMNS):
        raise ValueError("another layout")
    columns = dict(zip(_COLUMNS, _views(data, at, header), strict=True))
    return ListedSegment(Table(packs=header.packs, **columns), header.replaces, header.session)


def _hash(stream: BinaryIO) -> bytes:
    """Hash all but the head: read, not mapped, as what was mapped would count as memory in use."""
    stream.seek(_HEAD.size)
    digest = blake3(max_threads=blake3.AUTO)
    while block := stream.read(_BLOCK):
        digest.update(block)
    return digest.digest()


def _views(data: mmap.mmap, at: int, header: _Header) -> Iterator[np.ndarray[Any, Any]]:
    types = ("u8", "u8", "u8", "u4", "u4", "u4", "u4", f"V{CHUNK_ID_SIZE}")
    for (found, count), wanted in zip(header.columns, types, strict=True):
        kind = np.dtype(wanted)
        if found != kind.str:
            raise ValueError("another type of column")
        at += -at % 8
        yield np.frombuffer(data, dtype=kind, count=count, offset=at)
        at += count * kind.itemsize
    if at != len(data):
        raise ValueError("another length")
