"""Restoring files to a folder of this host, straight from the repository.

Folders first, then files, then symbolic links, and last of all what is noted of folders: so nothing is
written through a link, and the times of folders are those of the guest.
"""

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hotspare.cancellation import Cancellation
from hotspare.errors import FileSystemUnreadable, NoSpace, PathNotFound, TargetExists
from hotspare.guest.files.file_system import FileEntry, FileSystem
from hotspare.guest.files.listing import is_safe_name, listing
from hotspare.restore.files.attributes import Attributes
from hotspare.restore.files.content import stored_pieces
from hotspare.restore.files.outcome import Restored
from hotspare.restore.files.selection import Chosen, Parts, Selection
from hotspare.restore.files.target_folder import TargetFolder

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NODES = {
    "block-device": stat.S_IFBLK,
    "character-device": stat.S_IFCHR,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
}


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """What the user may choose."""

    overwrite: bool = False
    """Replace what is there, but for files of the same size and time, which are taken for the same."""
    streams: bool = True
    """Restore further contents (alternate data streams) beside the file, as ``NAME:STREAM``."""


def restore_to_folder(
    selection: Selection,
    folder: Path,
    options: FolderOptions,
    report: Callable[[int], None],
    cancellation: Cancellation,
) -> Restored:
    """Restore what was chosen below a folder, which is made if need be; give what became of it.

    Args:
        selection: what.
        folder: where.
        options: how.
        report: called with the bytes of content that were handled so far.
        cancellation: looked at before each piece.

    Raises:
        PathNotFound, UsageError: as ``Selection.roots``; nothing was written.
        TargetExists: something is in the way, and is not to be overwritten; nothing was written.
        NoSpace: the file system is full. What was restored stays.
        PermissionRefused, StorageError: the folder cannot be used.
        RepositoryDamaged, StorageError: the repository cannot be read.
        Interrupted: ``cancellation`` was requested. What was restored stays.
    """
    roots = selection.roots()
    with TargetFolder.open(folder) as target:
        _refuse_overwriting(target, selection.files, roots, options)
        writing = _Writing(selection.files, target, options, report, cancellation)
        for root in roots:
            _make_parents(target, root.parts)
        for chosen in selection.walk(cancellation):
            writing.add(chosen)
        writing.finish()
    for sentence in selection.damage:
        writing.restored.fail(*sentence.split(": ", 1))
    return writing.restored


def _refuse_overwriting(
    target: TargetFolder, files: FileSystem, roots: list[Chosen], options: FolderOptions
) -> None:
    """Raise ``TargetExists`` when anything is in the way; below what is not there, nothing can be."""
    if options.overwrite:
        return
    for root in roots:
        places = [root.parts] if root.parts else [(one.name,) for one in listing(files, root.entry.path, [])]
        for place in places:
            if _is_there(target, place):
                raise TargetExists(
                    f"{target.path / '/'.join(place)} exists already",
                    meaning="It was left alone and nothing was restored",
                    hint="Choose another folder, or give --overwrite",
                )


def _make_parents(target: TargetFolder, parts: Parts) -> None:
    try:
        target.make_parents(parts)
    except OSError as error:
        raise TargetExists(
            f"{target.path / '/'.join(parts[:-1])} cannot be made a folder: {error.strerror}",
            meaning="Nothing was restored",
            hint="Choose another folder",
        ) from error


def _is_there(target: TargetFolder, parts: Parts) -> bool:
    try:
        return target.look(parts) is not None
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno in {errno.ENOTDIR, errno.ELOOP}  # something else than a folder is above it


class _Later(NamedTuple):
    """What is done when all files are there."""

    entry: FileEntry
    parts: Parts


@dataclass(slots=True)
class _Writing:
    files: FileSystem
    target: TargetFolder
    options: FolderOptions
    report: Callable[[int], None]
    cancellation: Cancellation
    restored: Restored = field(default_factory=Restored)
    attributes: Attributes = field(default_factory=Attributes)
    handled: int = 0
    _made: dict[tuple[str, int], Parts] = field(default_factory=dict)
    """By volume and inode: the first name of what has several."""
    _links: list[_Later] = field(default_factory=list)
    _folders: list[_Later] = field(default_factory=list)

    def add(self, chosen: Chosen) -> None:
        """Restore one thing, or put it off until everything else is there."""
        entry, parts = chosen
        if not parts:
            return
        if entry.kind == "link":
            self._links.append(_Later(entry, parts))
        else:
            self._try(entry, parts, self._add_now)

    def finish(self) -> None:
        """Make links, and give folders what is noted of them, the innermost first."""
        for entry, parts in self._links:
            self.cancellation.check()
            self._try(entry, parts, self._add_link)
        for entry, parts in reversed(self._folders):
            self._try(entry, parts, self._finish_folder)
        self.restored.warnings.extend(self.attributes.warnings)

    def _try(self, entry: FileEntry, parts: Parts, act: Callable[[FileEntry, Parts], None]) -> None:
        try:
            act(entry, parts)
        except (FileSystemUnreadable, PathNotFound) as error:
            self.restored.fail(entry.path, error.what)
        except OSError as error:
            if error.errno in _FULL:
                raise NoSpace(
                    f"The file system of {self.target.path} is full",
                    meaning=f"{self.restored.entries} files and folders are restored, {entry.path} is not",
                    hint="Free space, and run it again with --overwrite: what is there is not read again",
                ) from error
            self.restored.fail(entry.path, error.strerror or str(error))

    def _add_now(self, entry: FileEntry, parts: Parts) -> None:
        if entry.kind == "folder":
            made = self.target.make_folder(parts, replace=self.options.overwrite)
            if made or self.options.overwrite:
                self._folders.append(_Later(entry, parts))
            self.restored.entries += 1
            return
        there = self._refuse_unless_replaced(parts)
        first = self._made.get((entry.volume, entry.inode)) if entry.links > 1 else None
        if first is not None and self._add_name(first, parts, there):
            return
        if entry.kind == "file":
            self._add_file(entry, parts, there)
        else:
            self._add_node(entry, parts)
        if entry.links > 1:
            self._made.setdefault((entry.volume, entry.inode), parts)
        self.restored.entries += 1

    def _refuse_unless_replaced(self, parts: Parts) -> os.stat_result | None:
        """Look at what is at a place. Raises ``FileExistsError`` when it has to stay."""
        there = self.target.look(parts)
        if there is None:
            return None
        if not self.options.overwrite:
            raise FileExistsError(errno.EEXIST, "something of that name is there already")
        if stat.S_ISDIR(there.st_mode):
            raise FileExistsError(errno.EEXIST, "a folder is in its place")
        return there

    def _add_name(self, first: Parts, parts: Parts, there: os.stat_result | None) -> bool:
        try:
            self.target.link_file(first, parts, replace=there is not None)
        except OSError as error:
            if error.errno in _FULL:
                raise
            return False  # too many names, or a file system without hard links: it becomes a copy
        self.restored.entries += 1
        return True

    def _add_file(self, entry: FileEntry, parts: Parts, there: os.stat_result | None) -> None:
        extended = self.files.attributes(entry.path)
        if there is not None and _is_same(there, entry):
            descriptor = self.target.open_existing(parts)
            try:
                self.attributes.set_open(descriptor, entry, extended)
            finally:
                os.close(descriptor)
            self.restored.skipped += 1
            self._count(entry.size)
        else:
            with self.target.new_file(parts, replace=there is not None) as descriptor:
                self._write(descriptor, entry, "")
                self.attributes.set_open(descriptor, entry, extended)
        for stream in entry.streams if self.options.streams else ():
            self._add_stream(entry, parts, stream)

    def _add_stream(self, entry: FileEntry, parts: Parts, stream: str) -> None:
        """Restore a further content of a file as one of its own, beside it."""
        name = f"{parts[-1]}:{stream}"
        if not is_safe_name(name):
            self.restored.fail(entry.path, f"its stream {stream!r} has no name that a file can have")
            return
        place = (*parts[:-1], name)
        replace = self._refuse_unless_replaced(place) is not None
        with self.target.new_file(place, replace=replace) as descriptor:
            self._write(descriptor, entry, stream)
            self.attributes.set_open(descriptor, entry, {})

    def _write(self, descriptor: int, entry: FileEntry, stream: str) -> None:
        content = self.files.open(entry.path, stream)
        try:
            done = 0
            for offset, piece in stored_pieces(content):
                self.cancellation.check()
                _write_all(descriptor, piece, offset)
                self.restored.bytes += len(piece)
                self._count(offset + len(piece) - done)
                done = offset + len(piece)
            os.ftruncate(descriptor, content.size)
            self._count(content.size - done)
        finally:
            content.close()

    def _add_node(self, entry: FileEntry, parts: Parts) -> None:
        device = os.makedev(*entry.device) if entry.device else 0
        self.target.make_node(parts, _NODES[entry.kind], device, replace=self.options.overwrite)
        self._set_named(entry, parts)

    def _add_link(self, entry: FileEntry, parts: Parts) -> None:
        there = self._refuse_unless_replaced(parts)
        self.target.make_link(parts, entry.target, replace=there is not None)
        self._set_named(entry, parts)
        self.restored.entries += 1

    def _set_named(self, entry: FileEntry, parts: Parts) -> None:
        extended = self.files.attributes(entry.path)
        self.attributes.set_named(self.target.folder(parts[:-1]), parts[-1], entry, extended)

    def _finish_folder(self, entry: FileEntry, parts: Parts) -> None:
        self.attributes.set_open(self.target.folder(parts), entry, self.files.attributes(entry.path))

    def _count(self, more: int) -> None:
        self.handled += more
        self.report(self.handled)


def _is_same(there: os.stat_result, entry: FileEntry) -> bool:
    return stat.S_ISREG(there.st_mode) and there.st_size == entry.size and there.st_mtime_ns == entry.modified


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
