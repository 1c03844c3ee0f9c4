"""exFAT as a file system of the contract."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from hotspare.errors import FileSystemUnreadable
from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.files.fat.chains import FIRST, Chains
from hotspare.guest.files.fat.entries import ENTRY, join_units
from hotspare.guest.files.fat.times import nanoseconds
from hotspare.guest.files.file_system import FileContent, FileEntry, NeedsAppliance
from hotspare.guest.files.nodes import NodeFileSystem, damaged
from hotspare.guest.files.runs import Run, RunContent, place_of
from hotspare.units import MIB

_FOLDER_MAX = 256 * MIB
"""By the specification."""
_IN_USE = 0x80
_FILE, _STREAM, _NAME = 0x85, 0xC0, 0xC1
_FOLDER = 0x10
_NO_CHAIN = 0x02
_NAME_UNITS = 15
"""UTF-16 units of a name in one entry."""
_QUARTER_HOUR = 15 * 60 * 1_000_000_000
_REMARK = "times without a zone are shown as if they were UTC"


class ExfatNode(NamedTuple):
    """What the entries of a file say."""

    place: int
    """Offset of its first entry in the volume; 0 for the root."""
    is_folder: bool
    first: int
    size: int
    valid: int
    """Bytes that were ever written; the others read as zeroes, whatever lies there."""
    chained: bool
    modified: int


class ExfatFileSystem(NodeFileSystem[ExfatNode]):
    """Reads exFAT.

    Raises:
        NeedsAppliance: it is TexFAT, with two tables.
        FileSystemUnreadable: its boot sector makes no sense.
    """

    kind = "exfat"
    ignores_case = True
    remarks: tuple[str, ...] = (_REMARK,)

    def __init__(self, reader: CachedReader) -> None:
        self._reader = reader
        raw = reader.read(0, 512)
        if len(raw) < 512 or raw[3:11] != b"EXFAT   " or any(raw[11:64]):
            raise damaged(self.kind, "it has no boot sector")
        volume, table, table_size, heap, clusters, self._root_cluster = struct.unpack_from("<QIIIII", raw, 72)
        revision, _, sector_bits, cluster_bits, tables = struct.unpack_from("<HHBBB", raw, 104)
        if tables != 1 or revision >> 8 != 1:
            raise NeedsAppliance(self.kind, "it is TexFAT or of a newer revision")
        if not 9 <= sector_bits <= 12 or cluster_bits > 25 - sector_bits:
            raise damaged(self.kind, "the sizes of its sectors and clusters make no sense")
        _check_boot_checksum(reader, 1 << sector_bits)
        cluster_sectors = 1 << cluster_bits
        if (
            not 24 <= table <= heap - table_size
            or (clusters + FIRST) * 4 > table_size << sector_bits
            or not 0 < clusters * cluster_sectors <= volume - heap
            or volume << sector_bits > reader.size
        ):
            raise damaged(self.kind, "the numbers in its boot sector contradict each other")
        super().__init__(volume << sector_bits)
        self._chains = Chains(
            self.kind,
            reader,
            bits=32,
            mask=0xFFFFFFFF,
            table=table << sector_bits,
            heap=heap << sector_bits,
            cluster_size=cluster_sectors << sector_bits,
            clusters=clusters,
        )

    def root(self) -> ExfatNode:
        """Give the node of ``/``."""
        return ExfatNode(0, True, self._root_cluster, 0, 0, True, 0)

    def children(self, folder: ExfatNode) -> Iterator[tuple[str, ExfatNode]]:
        """Yield names and nodes of a folder."""
        runs = self._folder_runs(folder)
        length = sum(run.length for run in runs)
        if length > _FOLDER_MAX:
            raise damaged(self.kind, "a folder is larger than can be")
        self.account(folder, length)
        raw = RunContent(self._reader, length, runs).read(0, length)
        failure: FileSystemUnreadable | None = None
        at = 0
        while at + ENTRY <= length and raw[at]:
            count = raw[at + 1] + 1 if raw[at] == _FILE else 1
            if raw[at] == _FILE:
                try:
                    yield self._file(raw[at : at + count * ENTRY], place_of(runs, at))
                except FileSystemUnreadable as error:
                    failure, count = failure or error, 1
            at += count * ENTRY
        if failure is not None:
            raise failure

    def describe(self, path: str, node: ExfatNode) -> FileEntry:
        """Describe what the entries of a file say."""
        return FileEntry(
            path=path,
            kind="folder" if node.is_folder else "file",
            size=0 if node.is_folder else node.size,
            modified=node.modified,
            inode=node.place // ENTRY,
        )

    def content(self, entry: FileEntry, node: ExfatNode, stream: str) -> FileContent:  # noqa: ARG002 - it has none
        """Open a file; what was never written of it is a hole."""
        runs = [
            Run(run.offset, min(run.length, node.valid - run.offset), run.place)
            for run in self._runs(node)
            if run.offset < node.valid
        ]
        return RunContent(self._reader, node.size, runs)

    def _folder_runs(self, folder: ExfatNode) -> list[Run]:
        if folder.place == 0:
            return self._chains.folder(folder.first, _FOLDER_MAX)
        return self._runs(folder)

    def _runs(self, node: ExfatNode) -> list[Run]:
        find = self._chains.file if node.chained else self._chains.contiguous
        return find(node.first, node.size)

    def _file(self, entries: bytes, place: int) -> tuple[str, ExfatNode]:
        """Parse the entries of one file: itself, where its content is, its name, and what others may add."""
        count = entries[1]
        if len(entries) != (count + 1) * ENTRY or count < 2 or entries[ENTRY] != _STREAM:
            raise damaged(self.kind, "the entries of a file are not complete")
        (checksum,) = struct.unpack_from("<H", entries, 2)
        if _set_checksum(entries) != checksum:
            raise damaged(self.kind, "the checksum of a file's entries is wrong")
        flags, units = entries[ENTRY + 1], entries[ENTRY + 3]
        (valid,) = struct.unpack_from("<Q", entries, ENTRY + 8)
        first, size = struct.unpack_from("<IQ", entries, ENTRY + 20)
        name_entries = -(-units // _NAME_UNITS)
        names = [entries[at : at + ENTRY] for at in range(2 * ENTRY, (2 + name_entries) * ENTRY, ENTRY)]
        if not units or any(len(part) < ENTRY or part[0] != _NAME for part in names):
            raise damaged(self.kind, "the name of a file is not complete")
        name = join_units(b"".join(part[2:] for part in names)[: units * 2])
        if "\0" in name or "/" in name or name in {".", ".."}:
            raise damaged(self.kind, "the name of a file is impossible")
        if valid > size or size > self._chains.clusters * self._chains.cluster_size:
            raise damaged(self.kind, f"the file {name!r} has an impossible size")
        return name, ExfatNode(
            place=place,
            is_folder=bool(entries[4] & _FOLDER),
            first=first,
            size=size,
            valid=valid,
            chained=not flags & _NO_CHAIN,
            modified=_modified(entries),
        )


def _modified(entries: bytes) -> int:
    time, day = struct.unpack_from("<HH", entries, 12)
    local = nanoseconds(day, time, entries[21])
    zone = entries[23]
    if not zone & 0x80:
        return local
    quarters = zone & 0x7F
    return local - (quarters - 0x80 if quarters & 0x40 else quarters) * _QUARTER_HOUR


def _set_checksum(entries: bytes) -> int:
    total = 0
    for byte in entries[:2] + entries[4:]:
        total = (total >> 1 | (total & 1) << 15) + byte & 0xFFFF
    return total


def _check_boot_checksum(reader: CachedReader, sector: int) -> None:
    """Check the first eleven sectors against the twelfth; flags and the degree of use do not count."""
    raw = reader.read(0, 12 * sector)
    total = 0
    for index, byte in enumerate(raw[: 11 * sector]):
        if index not in {106, 107, 112}:
            total = ((total >> 1 | total << 31) + byte) & 0xFFFFFFFF
    if len(raw) < 12 * sector or struct.unpack_from("<I", raw, 11 * sector)[0] != total:
        raise damaged("exfat", "the checksum of its boot sectors is wrong")
