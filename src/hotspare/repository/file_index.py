"""The names of a machine's files as the content of an extra: docs/repository-format.md, "Restore points".

Names lie in segments of some thousands, column by column, each segment at the start of a chunk. Where one
ends is decided by the names in it, so that a segment in which nothing changed has the same chunks in the
next restore point, and costs nothing there.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

EXTRA = "files"
"""Name of the extra."""
NAMES_MAX = 10_000_000
"""Of one machine: more are not indexed."""

MAGIC = b"HSFILE\0\1"
HEAD = struct.Struct("<8sI")
"""Magic, and bytes of the msgpack that follows."""
SEGMENT_HEAD = struct.Struct("<IIII")
"""Folders, names, bytes of the folders' paths, bytes of the names."""
_NAMES_PER_CUT = 2500
_NAMES_MIN, _SEGMENT_NAMES_MAX = 512, 16384
NO_MODE = 0xFFFF
NO_OWNER = 0xFFFFFFFF
KINDS = ("file", "folder", "link", "block-device", "character-device", "fifo", "socket")
COLUMNS = (
    ("kinds", "<u1"),
    ("sizes", "<u8"),
    ("seconds", "<i8"),
    ("nanoseconds", "<u4"),
    ("modes", "<u2"),
    ("uids", "<u4"),
    ("gids", "<u4"),
    ("inodes", "<u8"),
)


class IndexedName(NamedTuple):
    """What is kept of one name."""

    folder: str
    """From the root on: ``/etc``."""
    name: str
    kind: str
    """One of ``KINDS``."""
    size: int
    modified: int
    """Nanoseconds since 1970, UTC."""
    mode: int | None
    uid: int | None
    gid: int | None
    inode: int

    @property
    def path(self) -> str:
        """From the root on."""
        return f"{self.folder.rstrip('/')}/{self.name}"


class IndexedRoot(msgspec.Struct, array_like=True, frozen=True):
    """A folder, everything below which is in the index: ``/``, or a volume that is nowhere in that."""

    path: str
    """``/``, ``vdb1:/``."""
    kind: str
    """Of its file system."""
    remark: str | None
    """What is not in the index, and why; None when everything is."""

    def shown(self, path: str) -> str:
        """Give the path that people know a file or folder by, of one that counts from here."""
        return (self.path.rstrip("/") + path).rstrip("/") or "/"


class SegmentPlace(msgspec.Struct, array_like=True, frozen=True):
    """Where a segment lies."""

    root: int
    """Its number among the roots."""
    offset: int
    length: int


class Head(msgspec.Struct, array_like=True, frozen=True):
    """What an index begins with."""

    roots: tuple[IndexedRoot, ...]
    segments: tuple[SegmentPlace, ...]


class FileIndexBuilder:
    """Makes the content of an index.

    Args:
        align: the repository's chunk size.
    """

    def __init__(self, align: int) -> None:
        self.names = 0
        self._align = align
        self._roots: list[IndexedRoot] = []
        self._segments: list[tuple[int, bytes]] = []
        self._rows: list[IndexedName] = []

    def add(self, row: IndexedName) -> None:
        """Add a name of the root that is next; they come folder by folder."""
        self._rows.append(row)
        self.names += 1
        if self._is_full(row):
            self._cut()

    def end_root(self, root: IndexedRoot) -> None:
        """Say which root the names were of that came since the last one ended."""
        self._cut()
        # What a guest calls its volumes may be no text.
        path = root.path.encode(errors="replace").decode()
        remark = None if root.remark is None else root.remark.encode(errors="replace").decode()
        self._roots.append(IndexedRoot(path, root.kind, remark))

    def drop_root(self) -> None:
        """Forget the names that came since the last root ended."""
        self._segments = [segment for segment in self._segments if segment[0] < len(self._roots)]
        self._rows = []

    def finish(self) -> bytes:
        """Give the content of the extra."""
        places = self._places(0)
        head_size = HEAD.size + len(msgspec.msgpack.encode(Head(tuple(self._roots), places)))
        # Numbers of the places take a few bytes more once they count from the end of the head.
        start = self._aligned(head_size + 9 * 2 * len(places))
        head = msgspec.msgpack.encode(Head(tuple(self._roots), self._places(start)))
        pieces = [HEAD.pack(MAGIC, len(head)) + head]
        pieces[0] += bytes(start - len(pieces[0]))
        for _, segment in self._segments:
            pieces.append(segment + bytes(self._aligned(len(segment)) - len(segment)))
        return b"".join(pieces)

    def _places(self, start: int) -> tuple[SegmentPlace, ...]:
        places = []
        for root, segment in self._segments:
            places.append(SegmentPlace(root, start, len(segment)))
            start += self._aligned(len(segment))
        return tuple(places)

    def _aligned(self, size: int) -> int:
        return -(-size // self._align) * self._align

    def _is_full(self, row: IndexedName) -> bool:
        if len(self._rows) < _NAMES_MIN:
            return False
        path = row.path.encode("utf-8", "surrogateescape")
        return zlib.crc32(path) % _NAMES_PER_CUT == 0 or len(self._rows) >= _SEGMENT_NAMES_MAX

    def _cut(self) -> None:
        if self._rows:
            self._segments.append((len(self._roots), _encode_segment(self._rows)))
            self._rows = []


def _encode_segment(rows: Sequence[IndexedName]) -> bytes:
    folders: list[str] = []
    counts: list[int] = []
    for row in rows:
        if not folders or folders[-1] != row.folder:
            folders.append(row.folder)
            counts.append(0)
        counts[-1] += 1
    paths = "".join(f"{folder}\0" for folder in folders).encode("utf-8", "surrogateescape")
    names = ("\0" + "".join(f"{row.name}\0" for row in rows)).encode("utf-8", "surrogateescape")
    modified = np.array([row.modified for row in rows], dtype=np.int64)
    inodes = np.array([row.inode & 0xFFFFFFFFFFFFFFFF for row in rows], dtype=np.uint64)
    columns = {
        "kinds": [KINDS.index(row.kind) for row in rows],
        # Typed here: of a list in which some numbers need 64 bits numpy makes floats, which are not exact.
        "sizes": np.array([min(row.size, 2**63) for row in rows], dtype=np.uint64),
        "seconds": modified // 10**9,
        "nanoseconds": modified % 10**9,
        "modes": [NO_MODE if row.mode is None else row.mode & 0xFFF for row in rows],
        "uids": [NO_OWNER if row.uid is None else row.uid for row in rows],
        "gids": [NO_OWNER if row.gid is None else row.gid for row in rows],
        # Neighbours in a folder mostly have neighbouring inodes: their differences compress.
        "inodes": np.diff(inodes, prepend=np.uint64(0)),
    }
    planes = [_planes(np.asarray(columns[name]).astype(kind)) for name, kind in COLUMNS]
    head = SEGMENT_HEAD.pack(len(folders), len(rows), len(paths), len(names))
    return b"".join([head, paths, names, _planes(np.array(counts, dtype="<u4")), *planes])


def _planes(column: NDArray[np.generic]) -> bytes:
    """Give first the lowest bytes of all numbers, then the next ones: so they compress."""
    return column.view(np.uint8).reshape(len(column), -1).T.tobytes()
