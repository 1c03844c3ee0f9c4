"""NTFS as a file system of the contract, over libfsntfs. Runs in the worker only."""

import io
import itertools
import struct
from collections.abc import Iterator
from os import fsdecode
from types import TracebackType
from typing import NoReturn

import pyfsntfs

from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.files.file_system import FileContent, FileEntry, Kind, NeedsAppliance
from hotspare.guest.files.nodes import ENTRIES_MAX, NodeFileSystem, damaged
from hotspare.guest.files.ntfs.compact import STREAM, CompactContent, chunk_of
from hotspare.guest.files.ntfs.record import (
    NUMBER,
    Attribute,
    AttributeFlags,
    Record,
    Sort,
    Tag,
    link_target,
    listed_records,
    names_of,
    parse_record,
)
from hotspare.guest.files.runs import Run, RunContent

_ROOT = 5
_VOLUME, _LOG, _METADATA_MAX = 3, 2, 24
"""Records below are the file system's own."""
_EPOCH = 116_444_736_000_000_000
"""1970 in units of 100 ns since 1601."""
_TIME_MIN, _TIME_MAX = -(1 << 63), (1 << 64) - 1
"""Nanoseconds: what fits into 64 bits, from 1677 to 2554."""
_ENTRY_BYTES = 80
"""At least, of a name in an index."""
_STREAMS_MAX = 1024
_NO_NAMES = {None, "", ".", ".."}
_TABLE_RUNS_MAX = 1_000_000
_WINDOW = 64 * 1024
"""Bytes of the table read at once: records of one folder lie together mostly."""
_LIST_MAX = 256 * 1024
"""Bytes of a list of attributes, as in Windows."""
_FOLDER, _REPARSE_POINT, _COMPRESSED, _ENCRYPTED = 0x10, 0x400, 0x800, 0x4000
_KINDS: dict[int, Kind] = {Tag.LINUX_SOCKET: "socket", Tag.LINUX_FIFO: "fifo"}
_DIRTY = "it was in use when the point was taken: changes of its last seconds may be missing"
_HIBERNATED = "Windows is hibernated (or shut down with Fast Startup): its last changes may be missing"


class VolumeFile(io.RawIOBase):
    """The volume as the file object that libyal reads."""

    def __init__(self, reader: CachedReader) -> None:
        self._reader = reader
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        """Read from the current place."""
        found = self._reader.read(self._at, self._reader.size if size < 0 else size)
        self._at += len(found)
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the current place."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._reader.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """Give the current place."""
        return self._at

    def get_size(self) -> int:
        """Give the bytes of the volume; libyal asks for it by this name."""
        return self._reader.size


class NtfsFileSystem(NodeFileSystem[int]):
    """Reads NTFS. Nodes are numbers of records in the master file table.

    Raises:
        NeedsAppliance: it is of a version that is not known to be read right.
        FileSystemUnreadable: it makes no sense.
    """

    kind = "ntfs"
    ignores_case = True

    def __init__(self, reader: CachedReader) -> None:
        super().__init__(reader.size)
        self._reader = reader
        self._volume = pyfsntfs.volume()
        with _DAMAGE:
            self._volume.open_file_object(VolumeFile(reader))
            self._record_size = self._volume.mft_entry_size
            self._cluster_size = self._volume.cluster_block_size
            index_size = self._volume.index_entry_size
            self._table = _table_content(reader, self._volume.get_file_entry(0))
        if self._cluster_size > index_size:
            # libfsntfs says nothing, and leaves out most of the names in larger folders.
            raise NeedsAppliance(self.kind, "its clusters are larger than 4 KiB, which its reader gets wrong")
        self._window = (-1, b"")
        self._last: tuple[int, pyfsntfs.file_entry] | None = None
        self._check_version()
        self.remarks = tuple(self._doubts())

    def root(self) -> int:
        """Give the record of ``/``."""
        return _ROOT

    def children(self, folder: int) -> Iterator[tuple[str, int]]:
        """Yield names and records of a folder, without the file system's own files."""
        entry = self._entry(folder)
        with _DAMAGE:
            count = entry.number_of_sub_file_entries
        if count > ENTRIES_MAX:
            raise damaged(self.kind, f"the folder of record {folder} has too many names")
        self.account(folder, count * _ENTRY_BYTES)
        failure: FileSystemUnreadable | None = None
        for index in range(count):
            try:
                with _DAMAGE:
                    child = entry.get_sub_file_entry(index)
                    name, number = child.name, child.file_reference & NUMBER
                    if number < _METADATA_MAX:
                        continue
                    if not child.is_allocated() or name in _NO_NAMES or "/" in name or "\0" in name:
                        self._wrong(f"the folder of record {folder} has a name that leads nowhere")
            except FileSystemUnreadable as error:
                failure = failure or error
                continue
            self._last = (number, child)
            yield _as_path(name), number
        if failure is not None:
            raise failure

    def describe(self, path: str, node: int) -> FileEntry:
        """Describe a record."""
        entry = self._entry(node)
        with _DAMAGE:
            modified = (entry.get_modification_time_as_integer() - _EPOCH) * 100
            is_folder = entry.has_directory_entries_index()
            size = 0 if is_folder else entry.size
            streams = [] if is_folder and node == _ROOT else self._streams(entry)
            marks = entry.file_attribute_flags
        kind: Kind = "folder" if is_folder else "file"
        links, target = 1, None
        if marks & _REPARSE_POINT or (not is_folder and self._count_names(node) > 1):
            record = self._record(node)
            links = 1 if is_folder else record.links
            tag, target = _reparse_point(record)
            kind = _KINDS.get(tag, kind) if target is None else "link"
            if tag == Tag.COMPRESSED_BY_WOF:
                streams = [name for name in streams if name != STREAM]
        if target is not None:
            size = len(target.encode(errors="surrogateescape"))
        return FileEntry(
            path=path,
            kind=kind,
            size=size if kind in {"file", "link"} else 0,
            modified=max(_TIME_MIN, min(modified, _TIME_MAX)),
            inode=node,
            links=links,
            target=target or "",
            streams=tuple(streams),
        )

    def content(self, entry: FileEntry, node: int, stream: str) -> FileContent:
        """Open a file's content, or one of its alternate streams."""
        record = self._record(node)
        file = self._entry(node)
        with _DAMAGE:
            marks = int(file.file_attribute_flags)
        self._check_readable(entry.path, record, marks, stream)
        chunk = _compact_chunk(record)
        if chunk and not stream:
            return CompactContent(self._stream(file, STREAM), entry.size, chunk)
        plain = not marks & (_COMPRESSED | _REPARSE_POINT)
        return self._stream(file, stream) if stream else _Content(file, entry.size, plain=plain)

    def attributes_of(self, node: int) -> dict[str, bytes]:
        """Give what ``ntfs-3g`` has as ``system.ntfs_acl`` and ``system.ntfs_attrib_be``."""
        entry = self._entry(node)
        with _DAMAGE:
            marks = entry.file_attribute_flags | (_FOLDER if entry.has_directory_entries_index() else 0)
            found = {"system.ntfs_attrib_be": struct.pack(">I", marks)}
            descriptor = entry.get_security_descriptor_data()
        if descriptor:
            found["system.ntfs_acl"] = descriptor
        return found

    def close(self) -> None:
        """Let go of the volume."""
        super().close()
        self._last = None

    def _entry(self, number: int) -> "pyfsntfs.file_entry":
        if self._last is None or self._last[0] != number:
            with _DAMAGE:
                self._last = (number, self._volume.get_file_entry(number))
        return self._last[1]

    def _record(self, number: int) -> Record:
        """Read a record, together with those that it goes on in."""
        try:
            first = self._one_record(number)
            listed = first.list_of_attributes
            if listed is None:
                return first
            others = set(listed_records(self._value(listed))) - {number}
            more = [self._one_record(other).attributes for other in sorted(others)]
        except ValueError as error:
            raise damaged(self.kind, f"record {number} has {error}") from None
        return first._replace(attributes=first.attributes + tuple(itertools.chain(*more)))

    def _value(self, listed: Attribute) -> bytes:
        """Read a list of attributes, wherever it lies."""
        if listed.value is not None:
            return listed.value
        if listed.size > _LIST_MAX:
            raise ValueError("a list of attributes that is too long")
        found = b""
        for first, count in listed.runs:
            wanted = int(min(count * self._cluster_size, listed.size - len(found)))
            found += self._reader.read(first * self._cluster_size, wanted)
        return found

    def _count_names(self, number: int) -> int:
        """Give how many names a record has, by its head alone: most have one, and nothing else to tell."""
        start = number * self._record_size // _WINDOW * _WINDOW
        if self._window[0] != start:
            self._window = (start, self._table.read(start, _WINDOW))
        at = number * self._record_size - start
        return names_of(self._window[1][at : at + 24])

    def _one_record(self, number: int) -> Record:
        return parse_record(self._table.read(number * self._record_size, self._record_size))

    def _stream(self, file: "pyfsntfs.file_entry", name: str) -> FileContent:
        with _DAMAGE:
            for index in range(min(file.number_of_alternate_data_streams, _STREAMS_MAX)):
                found = file.get_alternate_data_stream(index)
                if _as_path(found.name) == name:
                    return _Content(found, found.get_size(), plain=False)
        raise damaged(self.kind, f"the stream {name!r} is gone")

    def _streams(self, entry: "pyfsntfs.file_entry") -> list[str]:
        count = min(entry.number_of_alternate_data_streams, _STREAMS_MAX)
        return [_as_path(entry.get_alternate_data_stream(index).name) for index in range(count)]

    def _check_readable(self, path: str, record: Record, marks: int, stream: str) -> None:
        """Refuse what would be read wrong: what is encrypted, and what only Windows' drivers make a file."""
        encrypted = any(
            one.sort == Sort.DATA and one.flags & AttributeFlags.ENCRYPTED for one in record.attributes
        )
        if encrypted or marks & _ENCRYPTED:
            raise FileSystemUnreadable(
                f"{path} is encrypted (EFS), and its key is not known here",
                meaning="It is in the restore point, but can be read only in the running machine",
                hint="Restore the machine or its disk",
            )
        tag, _ = _reparse_point(record)
        if stream or _compact_chunk(record):
            return
        if tag == Tag.COMPRESSED_BY_WOF:
            raise FileSystemUnreadable(
                f"{path} was compacted by Windows in a way that cannot be read here (LZX)",
                meaning="It is in the restore point, as it was",
                hint="Restore the machine or its disk, and read it there",
            )
        if marks & _REPARSE_POINT or tag:
            raise FileSystemUnreadable(
                f"{path} has its content elsewhere: it is a reparse point of kind {tag:#x}",
                meaning="Only the driver that made it (deduplication, a cloud's files) can read it",
                hint="Restore the machine or its disk, and read it there",
            )

    def _check_version(self) -> None:
        for value in self._record(_VOLUME).values(Sort.VOLUME_INFORMATION):
            if len(value) >= 12 and value[8] == 3:
                return
        raise NeedsAppliance(self.kind, "it is of a version that is not proven to be read right")

    def _doubts(self) -> Iterator[str]:
        flags = [value[10] for value in self._record(_VOLUME).values(Sort.VOLUME_INFORMATION)]
        if any(flag & 1 for flag in flags) or not self._log_is_clean():
            yield _DIRTY
        try:
            if self.open("/hiberfil.sys").read(0, 4).lower() == b"hibr":
                yield _HIBERNATED
        except (PathNotFound, FileSystemUnreadable):
            pass

    def _log_is_clean(self) -> bool:
        """Tell whether the journal's restart area says that everything was written."""
        with _DAMAGE:
            page = self._volume.get_file_entry(_LOG).read_buffer_at_offset(4096, 0)
        if page[:4] != b"RSTR":
            return bool(page[:4] == b"\xff" * 4)
        (area,) = struct.unpack_from("<H", page, 24)
        if area + 16 > len(page):
            return False
        in_use, flags = struct.unpack_from("<HH", page, area + 12)
        return bool(in_use == 0xFFFF or flags & 2)

    def _wrong(self, what: str) -> NoReturn:
        raise damaged(self.kind, what)


class _Content:
    """A file or a stream of libfsntfs."""

    def __init__(
        self, source: "pyfsntfs.file_entry | pyfsntfs.data_stream", size: int, *, plain: bool
    ) -> None:
        self.size = size
        self._source = source
        self._plain = plain

    def read(self, offset: int, length: int) -> bytes:
        """Give the bytes from ``offset``; see the contract."""
        wanted = min(length, self.size - offset)
        if offset < 0 or wanted <= 0:
            return b""
        with _DAMAGE:
            found = self._source.read_buffer_at_offset(wanted, offset)
        if len(found) < wanted:
            raise damaged("ntfs", "a file ends before its size")
        return bytes(found)

    def holes(self) -> Iterator[tuple[int, int]]:
        """Yield runs that are sparse; in compressed files the same mark means something else."""
        count = self._source.number_of_extents if self._plain else 0
        at = 0
        for index in range(count):
            with _DAMAGE:
                _, length, flags = self._source.get_extent(index)
            end = min(at + length, self.size)
            if flags & 1 and at < end:
                yield at, end
            at += length

    def close(self) -> None:
        """Let go of it."""


def _table_content(reader: CachedReader, table: "pyfsntfs.file_entry") -> RunContent:
    """Give the master file table as content that is read without a way through libfsntfs."""
    runs: list[Run] = []
    at = 0
    for index in range(min(table.number_of_extents, _TABLE_RUNS_MAX)):
        place, length, _ = table.get_extent(index)
        runs.append(Run(at, length, place))
        at += length
    return RunContent(reader, min(at, table.size), runs)


def _reparse_point(record: Record) -> tuple[int, str | None]:
    for value in record.values(Sort.REPARSE_POINT):
        if len(value) >= 8:
            return struct.unpack_from("<I", value)[0], link_target(value)
    return 0, None


def _compact_chunk(record: Record) -> int | None:
    found = (chunk_of(value) for value in record.values(Sort.REPARSE_POINT))
    return next((chunk for chunk in found if chunk), None)


def _as_path(name: str) -> str:
    """Turn a name with lone surrogates into one whose bytes are those of their code points."""
    if name.isascii():
        return name
    return fsdecode(name.encode(errors="surrogatepass"))


class _Damage:
    """Turns libfsntfs's errors into ours."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, _LIBRARY_ERRORS):
            reason = str(error).rsplit(". ", 1)[-1][:200]
            raise damaged("ntfs", reason or type(error).__name__) from None


_LIBRARY_ERRORS = (OSError, ValueError, TypeError, OverflowError, MemoryError, SystemError)
_DAMAGE = _Damage()
