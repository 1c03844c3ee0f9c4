"""FAT12, FAT16 and FAT32 as a file system of the contract."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from hotspare.errors import FileSystemUnreadable
from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.files.fat.chains import FIRST, Chains
from hotspare.guest.files.fat.entries import ENTRY, Found, parse_entries
from hotspare.guest.files.fat.times import nanoseconds
from hotspare.guest.files.file_system import FileContent, FileEntry
from hotspare.guest.files.nodes import NodeFileSystem, damaged
from hotspare.guest.files.runs import Run, RunContent, place_of

_FOLDER_MAX = 65536 * ENTRY
"""Bytes, by the specification."""
LOCAL_TIMES = "its times are local times of the machine, shown as if they were UTC"


class FatNode(NamedTuple):
    """What a directory entry says. Two entries are never one node: there are no hard links."""

    place: int
    """Offset of the entry in the volume; 0 for the root."""
    is_folder: bool
    first: int
    size: int
    modified: int


class _Geometry(NamedTuple):
    bits: int
    table: int
    root_place: int
    """Of FAT12 and FAT16: offset of the root folder, which has no clusters."""
    root_size: int
    root_cluster: int
    heap: int
    cluster_size: int
    clusters: int
    size: int


class FatFileSystem(NodeFileSystem[FatNode]):
    """Reads FAT12, FAT16 and FAT32.

    Raises:
        FileSystemUnreadable: its boot sector makes no sense.
    """

    ignores_case = True

    def __init__(self, reader: CachedReader) -> None:
        self._reader = reader
        geometry = self._geometry = _read_geometry(reader)
        super().__init__(geometry.size)
        self.kind = f"fat{geometry.bits}"
        self._chains = Chains(
            self.kind,
            reader,
            bits=geometry.bits,
            mask=(1 << min(geometry.bits, 28)) - 1,
            table=geometry.table,
            heap=geometry.heap,
            cluster_size=geometry.cluster_size,
            clusters=geometry.clusters,
        )
        self.remarks = (LOCAL_TIMES,)

    def root(self) -> FatNode:
        """Give the node of ``/``."""
        return FatNode(0, True, self._geometry.root_cluster, 0, 0)

    def children(self, folder: FatNode) -> Iterator[tuple[str, FatNode]]:
        """Yield names and nodes of a folder."""
        runs = self._folder_runs(folder)
        length = sum(run.length for run in runs)
        self.account(folder, length)
        raw = RunContent(self._reader, length, runs).read(0, length)
        failure: FileSystemUnreadable | None = None
        for found in parse_entries(raw, wide=self._geometry.bits == 32):
            if "/" in found.name or "\0" in found.name or not found.name:
                failure = damaged(self.kind, "a folder has an impossible name")
                continue
            yield found.name, self._node(found, runs)
        if failure is not None:
            raise failure

    def describe(self, path: str, node: FatNode) -> FileEntry:
        """Describe what a directory entry says."""
        return FileEntry(
            path=path,
            kind="folder" if node.is_folder else "file",
            size=node.size,
            modified=node.modified,
            inode=node.place // ENTRY,
        )

    def content(self, entry: FileEntry, node: FatNode, stream: str) -> FileContent:  # noqa: ARG002 - it has none
        """Open a file."""
        return RunContent(self._reader, node.size, self._chains.file(node.first, node.size))

    def _folder_runs(self, folder: FatNode) -> list[Run]:
        if folder.place == 0 and self._geometry.bits != 32:
            return [Run(0, self._geometry.root_size, self._geometry.root_place)]
        return self._chains.folder(folder.first, _FOLDER_MAX)

    def _node(self, found: Found, runs: list[Run]) -> FatNode:
        return FatNode(
            place=place_of(runs, found.place * ENTRY),
            is_folder=found.is_folder,
            first=found.first,
            size=0 if found.is_folder else found.size,
            modified=nanoseconds(found.day, found.time),
        )


def _read_geometry(reader: CachedReader) -> _Geometry:
    """Read the boot sector; the number of clusters alone decides between 12, 16 and 32 bits."""
    raw = reader.read(0, 512)
    if len(raw) < 512:
        raise damaged("fat", "it has no boot sector")
    sector, per_cluster, reserved, tables, root_entries, small_size = struct.unpack_from("<HBHBHH", raw, 11)
    (table_size,) = struct.unpack_from("<H", raw, 22)
    (large_size,) = struct.unpack_from("<I", raw, 32)
    wide_table_size, _, version, root_cluster = struct.unpack_from("<IHHI", raw, 36)
    if sector not in {512, 1024, 2048, 4096} or not per_cluster or per_cluster & (per_cluster - 1):
        raise damaged("fat", "the sizes of its sectors and clusters make no sense")
    sectors = small_size or large_size
    length = table_size or wide_table_size
    root_sectors = -(-root_entries * ENTRY // sector)
    first_data = reserved + tables * length + root_sectors
    clusters = (sectors - first_data) // per_cluster
    if not reserved or not 1 <= tables <= 4 or not length or clusters < 1:
        raise damaged("fat", "the numbers in its boot sector contradict each other")
    bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32
    if (bits == 32) != (table_size == 0) or (bits == 32) != (root_entries == 0) or (bits == 32 and version):
        raise damaged("fat", "its boot sector is neither one of FAT16 nor of FAT32")
    if (clusters + FIRST) * bits > length * sector * 8:
        raise damaged("fat", "its table is too small for its clusters")
    if sectors * sector > reader.size:
        raise damaged("fat", "it is larger than its volume")
    return _Geometry(
        bits=bits,
        table=(reserved + _active_table(raw, bits, tables) * length) * sector,
        root_place=(reserved + tables * length) * sector,
        root_size=root_entries * ENTRY,
        root_cluster=root_cluster if bits == 32 else 0,
        heap=first_data * sector,
        cluster_size=per_cluster * sector,
        clusters=clusters,
        size=sectors * sector,
    )


def _active_table(raw: bytes, bits: int, tables: int) -> int:
    """Give which copy of the table is valid: FAT32 can tell that only one is."""
    flags = raw[40]
    if bits != 32 or not flags & 0x80:
        return 0
    if flags & 0xF >= tables:
        raise damaged("fat", "the table that it calls valid does not exist")
    return flags & 0xF
