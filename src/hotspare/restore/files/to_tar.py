"""Restoring files as a tar stream, in the pax format, with all that tar can keep.

Extended attributes are ``SCHILY.xattr.NAME`` and access control lists ``SCHILY.acl.access`` and
``.default``, as GNU tar, bsdtar and star write and read them. Times have nanoseconds. Sparse files are
whole: a stream cannot know its end.
"""

import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

from hotspare.cancellation import Cancellation
from hotspare.errors import FileSystemUnreadable, NoSpace, PathNotFound, StorageError
from hotspare.guest.files.file_system import FileContent, FileEntry, FileSystem
from hotspare.restore.files.acl import acl_text
from hotspare.restore.files.content import PIECE
from hotspare.restore.files.outcome import Restored
from hotspare.restore.files.selection import Chosen, Parts, Selection

_TYPES = {
    "file": tarfile.REGTYPE,
    "folder": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "block-device": tarfile.BLKTYPE,
    "character-device": tarfile.CHRTYPE,
    "fifo": tarfile.FIFOTYPE,
}


def restore_to_tar(
    selection: Selection,
    stream: IO[bytes],
    report: Callable[[int], None],
    cancellation: Cancellation,
    *,
    streams: bool = True,
) -> Restored:
    """Write what was chosen as a tar archive; give what became of it.

    Of a file that cannot be read to its end the rest is zeroes, and it counts as not restored.

    Args:
        selection: what.
        stream: where; it is neither sought nor closed.
        report: called with the bytes of content that were handled so far.
        cancellation: looked at before each piece.
        streams: with further contents of files (alternate data streams), as ``NAME:STREAM``.

    Raises:
        PathNotFound, UsageError: as ``Selection.roots``; nothing was written.
        NoSpace, StorageError: it cannot be written.
        RepositoryDamaged, StorageError: the repository cannot be read.
        Interrupted: ``cancellation`` was requested; the archive has no end.
    """
    selection.roots()
    try:
        with tarfile.open(
            fileobj=stream,
            mode="w|",
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
            bufsize=PIECE,
        ) as archive:
            writing = _Writing(selection.files, archive, report, cancellation, streams)
            for chosen in selection.walk(cancellation):
                writing.add(chosen)
    except BrokenPipeError as error:
        raise StorageError(
            "Whoever reads the archive has stopped reading", meaning="It is not whole"
        ) from error
    except OSError as error:
        kind = NoSpace if error.errno == 28 else StorageError
        raise kind(f"The archive cannot be written: {error.strerror}", meaning="It is not whole") from error
    for sentence in selection.damage:
        writing.restored.fail(*sentence.split(": ", 1))
    return writing.restored


@dataclass(slots=True)
class _Writing:
    files: FileSystem
    archive: tarfile.TarFile
    report: Callable[[int], None]
    cancellation: Cancellation
    streams: bool
    restored: Restored = field(default_factory=Restored)
    handled: int = 0
    _written: dict[tuple[str, int], str] = field(default_factory=dict)
    """By volume and inode: the first name of what has several."""

    def add(self, chosen: Chosen) -> None:
        entry, parts = chosen
        if not parts:
            return
        if entry.kind not in _TYPES:
            self.restored.warnings.append(f"{entry.path} is a {entry.kind}, which tar cannot hold")
            return
        try:
            self._add(entry, parts)
        except (FileSystemUnreadable, PathNotFound) as error:
            self.restored.fail(entry.path, error.what)
            return
        self.restored.entries += 1

    def _add(self, entry: FileEntry, parts: Parts) -> None:
        member = self._member(entry, parts)
        first = self._written.get((entry.volume, entry.inode)) if entry.links > 1 else None
        if first is not None and entry.kind != "folder":
            member.type, member.linkname, member.size = tarfile.LNKTYPE, first, 0
            self.archive.addfile(member)
            return
        if entry.kind == "file":
            self._add_content(member, entry, "")
            for stream in entry.streams if self.streams else ():
                beside = tarfile.TarInfo(f"{member.name}:{stream}")
                beside.mode, beside.uid, beside.gid, beside.pax_headers = (
                    member.mode,
                    member.uid,
                    member.gid,
                    {"mtime": member.pax_headers["mtime"]},
                )
                self._add_content(beside, entry, stream)
        else:
            self.archive.addfile(member)
        if entry.links > 1 and entry.kind != "folder":
            self._written[entry.volume, entry.inode] = member.name

    def _add_content(self, member: tarfile.TarInfo, entry: FileEntry, stream: str) -> None:
        content = self.files.open(entry.path, stream)
        reading = _Reading(content, self._advance)
        try:
            member.size = content.size
            self.archive.addfile(member, reading)
        finally:
            content.close()
        if reading.failure is not None:
            raise reading.failure

    def _member(self, entry: FileEntry, parts: Parts) -> tarfile.TarInfo:
        member = tarfile.TarInfo("/".join(parts))
        member.type = _TYPES[entry.kind]
        default = 0o755 if entry.kind == "folder" else 0o644
        member.mode = default if entry.mode is None else entry.mode & 0o7777
        member.uid, member.gid = entry.uid or 0, entry.gid or 0
        seconds, nanoseconds = divmod(entry.modified, 10**9)
        member.mtime = seconds
        headers = {"mtime": _decimal(seconds, nanoseconds)}
        if entry.kind == "link":
            member.linkname = entry.target
        if entry.device is not None:
            member.devmajor, member.devminor = entry.device
        for name, value in self.files.attributes(entry.path).items():
            text = acl_text(name, value)
            if text is not None:
                headers[f"SCHILY.acl.{text[0]}"] = text[1]
            else:
                headers[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
        member.pax_headers = headers
        return member

    def _advance(self, count: int) -> None:
        self.cancellation.check()
        self.restored.bytes += count
        self.handled += count
        self.report(self.handled)


def _decimal(seconds: int, nanoseconds: int) -> str:
    """Write a time as pax does; before 1970 it is negative."""
    if seconds < 0 and nanoseconds:
        seconds, nanoseconds = seconds + 1, 10**9 - nanoseconds
        return f"{'-' if seconds == 0 else ''}{seconds}.{nanoseconds:09d}"
    return f"{seconds}.{nanoseconds:09d}" if nanoseconds else str(seconds)


class _Reading:
    """A file's content as tarfile reads it: as long as was promised, or the archive would be lost."""

    def __init__(self, content: FileContent, advance: Callable[[int], None]) -> None:
        self.failure: FileSystemUnreadable | None = None
        self._content = content
        self._advance = advance
        self._at = 0

    def read(self, length: int = PIECE, /) -> bytes:
        wanted = min(length, self._content.size - self._at)
        piece = b""
        if self.failure is None:
            try:
                piece = self._content.read(self._at, wanted)
            except FileSystemUnreadable as error:
                self.failure = error
            if self.failure is None and len(piece) < wanted:
                self.failure = FileSystemUnreadable(f"The file ends after {self._at + len(piece)} bytes")
        self._at += wanted
        self._advance(wanted)
        return piece + bytes(wanted - len(piece))
