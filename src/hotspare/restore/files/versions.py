"""All versions of one file over the restore points of a machine."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hotspare.cancellation import Cancellation
from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.files.file_system import FileEntry, FileSystem
from hotspare.repository.point import RestorePoint
from hotspare.restore.files.content import pieces
from hotspare.restore.files.find import OpenFiles


class Version(NamedTuple):
    """One path in one restore point."""

    point: RestorePoint
    entry: FileEntry | None
    """None when it is not there, or cannot be read."""
    same: bool
    """It is as in the point before it: by its content when that was read, else by size, time and inode."""
    sha256: str | None
    problem: str | None
    """Why it cannot be read; None also when it is just not there."""


def versions_of(
    points: Sequence[RestorePoint],
    path: str,
    open_files: OpenFiles,
    cancellation: Cancellation,
    *,
    with_content: bool = False,
) -> Iterator[Version]:
    """Yield a version for each point, in the order of the points.

    Args:
        points: of one machine.
        path: of the file.
        open_files: opens a point's files.
        cancellation: looked at between pieces.
        with_content: read the content of what is not the same by size, time and inode, for its hash.

    Raises:
        RepositoryDamaged, StorageError: the repository cannot be read.
        Interrupted: ``cancellation`` was requested.
    """
    before: Version | None = None
    for point in points:
        cancellation.check()
        before = _version(point, path, open_files, cancellation, before, with_content=with_content)
        yield before


def _version(
    point: RestorePoint,
    path: str,
    open_files: OpenFiles,
    cancellation: Cancellation,
    before: Version | None,
    *,
    with_content: bool,
) -> Version:
    try:
        with open_files(point) as files:
            entry = files.entry(path)
            same = before is not None and before.entry is not None and _is_same(before.entry, entry)
            digest = before.sha256 if before and same else None
            if with_content and digest is None and entry.kind == "file":
                digest = sha256_of(files, entry.path, cancellation)
                same = before is not None and before.sha256 == digest
    except PathNotFound:
        return Version(
            point, None, same=before is not None and before.entry is None, sha256=None, problem=None
        )
    except FileSystemUnreadable as error:
        return Version(point, None, same=False, sha256=None, problem=error.what)
    return Version(point, entry, same, digest, None)


def sha256_of(files: FileSystem, path: str, cancellation: Cancellation) -> str:
    """Read a file's content. Raises ``FileSystemUnreadable``, ``PathNotFound``, ``Interrupted``."""
    digest = hashlib.sha256()
    content = files.open(path)
    try:
        for _, piece in pieces(content, 0, content.size):
            cancellation.check()
            digest.update(piece)
    finally:
        content.close()
    return digest.hexdigest()


def _is_same(before: FileEntry, now: FileEntry) -> bool:
    facts = [(one.kind, one.size, one.modified, one.inode, one.target, one.volume) for one in (before, now)]
    return facts[0] == facts[1]
