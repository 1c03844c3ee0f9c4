"""Reading the file index of a restore point: ``file_index.py`` writes it.

What is read was sealed by us; nevertheless every number is checked before anything is made of it.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from hotspare.errors import RepositoryDamaged
from hotspare.repository.decode import decode_msgpack
from hotspare.repository.disk import RepositoryDisk
from hotspare.repository.file_index import (
    COLUMNS,
    EXTRA,
    HEAD,
    KINDS,
    MAGIC,
    NO_MODE,
    NO_OWNER,
    SEGMENT_HEAD,
    Head,
    IndexedName,
    IndexedRoot,
)
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.units import GIB, MIB

_INDEX_MAX = 4 * GIB
_HEAD_MAX = 64 * MIB
_SEGMENT_MAX = 256 * MIB


@dataclass(frozen=True)
class Segment:
    """Some thousands of names of one root, as columns."""

    folders: list[str]
    firsts: NDArray[np.int64]
    """For each folder, the number of its first name; then the number of names."""
    text: str
    """The names, with a zero character before, between and after them."""
    columns: dict[str, NDArray[np.generic]]
    """By name, see ``COLUMNS``; the differences of inodes are added up."""

    def __len__(self) -> int:
        return int(self.firsts[-1])

    @cached_property
    def names(self) -> list[str]:
        """The names one by one."""
        return self.text[1:-1].split("\0")

    def folder_of(self, number: int) -> str:
        """Give the folder that a name is in."""
        return self.folders[bisect_right(self._first_numbers, number) - 1]

    def row(self, number: int) -> IndexedName:
        """Give one name with what is kept of it."""
        kind, size, seconds, nanoseconds, mode, uid, gid, inode = (one[number] for one in self._values)
        return IndexedName(
            folder=self.folder_of(number),
            name=self.names[number],
            kind=KINDS[kind],
            size=size,
            modified=seconds * 10**9 + nanoseconds,
            mode=None if mode == NO_MODE else mode,
            uid=None if uid == NO_OWNER else uid,
            gid=None if gid == NO_OWNER else gid,
            inode=inode,
        )

    @cached_property
    def _first_numbers(self) -> list[int]:
        numbers: list[int] = self.firsts.tolist()
        return numbers

    @cached_property
    def _values(self) -> list[list[int]]:
        """The columns in their order, as Python's numbers: getting them one by one from arrays is slow."""
        return [self.columns[name].tolist() for name, _ in COLUMNS]


class FileIndex:
    """The index of one restore point."""

    def __init__(self, disk: RepositoryDisk, chunk_size: int) -> None:
        """Read what it begins with. Raises ``RepositoryDamaged``, ``StorageError``."""
        self._disk = disk
        self._chunk_size = chunk_size
        self._head = self._read_head()

    @classmethod
    def of(cls, repository: Repository, point: RestorePoint) -> "FileIndex | None":
        """Open the index of a point; None when it has none. Raises as the class."""
        extra = point.find_extra(EXTRA)
        return None if extra is None else cls(repository.disk(extra), repository.config.chunk_size)

    @property
    def roots(self) -> tuple[IndexedRoot, ...]:
        """Where the names are counted from."""
        return self._head.roots

    def segments(self) -> Iterator[tuple[int, bytes, "SegmentSource"]]:
        """Yield of each segment its root's number, what only the same content has, and its source."""
        for place in self._head.segments:
            first = place.offset // self._chunk_size
            last = -(-(place.offset + place.length) // self._chunk_size)
            aligned = place.offset % self._chunk_size == 0
            ids = b"".join(self._disk.map[chunk] for chunk in range(first, last)) if aligned else b""
            yield place.root, ids, SegmentSource(self._disk, place.offset, place.length)

    def _read_head(self) -> Head:
        if not HEAD.size <= self._disk.size <= _INDEX_MAX:
            raise _damaged(f"it has {self._disk.size} bytes")
        magic, length = HEAD.unpack(_read(self._disk, 0, HEAD.size))
        if magic != MAGIC or length > min(_HEAD_MAX, self._disk.size - HEAD.size):
            raise _damaged("it does not begin as one")
        try:
            head = decode_msgpack(_read(self._disk, HEAD.size, length), Head)
        except msgspec.DecodeError as error:
            raise _damaged("its table cannot be read") from error
        for place in head.segments:
            inside = 0 <= place.offset <= place.offset + place.length <= self._disk.size
            if not inside or place.length > _SEGMENT_MAX or not 0 <= place.root < len(head.roots):
                raise _damaged("its table makes no sense")
        if sum(place.length for place in head.segments) > self._disk.size:
            raise _damaged("its segments overlap")
        return head


@dataclass(frozen=True, slots=True)
class SegmentSource:
    """A segment that is not read yet."""

    disk: RepositoryDisk
    offset: int
    length: int

    def read(self) -> Segment:
        """Read it. Raises ``RepositoryDamaged``, ``StorageError``."""
        return decode_segment(_read(self.disk, self.offset, self.length))


def decode_segment(data: bytes) -> Segment:
    """Read one segment. Raises ``RepositoryDamaged`` when it makes no sense."""
    if len(data) < SEGMENT_HEAD.size:
        raise _damaged("a segment is too short")
    folder_count, count, path_bytes, name_bytes = SEGMENT_HEAD.unpack_from(data)
    widths = [(name, np.dtype(kind)) for name, kind in COLUMNS]
    per_name = sum(kind.itemsize for _, kind in widths)
    expected = SEGMENT_HEAD.size + path_bytes + name_bytes + 4 * folder_count + per_name * count
    if len(data) != expected:
        raise _damaged("a segment has another length than its columns")
    at = SEGMENT_HEAD.size
    folders = data[at : at + path_bytes].decode("utf-8", "surrogateescape").split("\0")
    at += path_bytes
    text = data[at : at + name_bytes].decode("utf-8", "surrogateescape")
    at += name_bytes
    counts = _from_planes(data, at, np.dtype("<u4"), folder_count).astype(np.int64)
    at += 4 * folder_count
    columns: dict[str, NDArray[np.generic]] = {}
    for name, kind in widths:
        columns[name] = _from_planes(data, at, kind, count)
        at += kind.itemsize * count
    columns["inodes"] = np.cumsum(columns["inodes"], dtype=np.uint64)
    firsts = np.concatenate(([0], np.cumsum(counts)))
    good = len(folders) == folder_count + 1 and folders[-1] == "" and int(firsts[-1]) == count
    good = good and text.count("\0") == count + 1 and text[:1] == "\0" and text[-1:] == "\0"
    good = good and bool((columns["kinds"] < np.uint8(len(KINDS))).all())
    if not good:
        raise _damaged("the columns of a segment do not fit together")
    return Segment(folders[:-1], firsts, text, columns)


def _from_planes(data: bytes, at: int, kind: np.dtype[np.generic], count: int) -> NDArray[np.generic]:
    planes = np.frombuffer(data, dtype=np.uint8, count=kind.itemsize * count, offset=at)
    return np.ascontiguousarray(planes.reshape(kind.itemsize, count).T).view(kind).reshape(count)


def _read(disk: RepositoryDisk, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    disk.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def _damaged(what: str) -> RepositoryDamaged:
    return RepositoryDamaged(
        f"The file index of a restore point is not what was written: {what}",
        meaning="The restore point itself does not need it",
        hint="Look for files in the disks themselves, with --no-index",
    )
