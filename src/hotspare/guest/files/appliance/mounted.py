"""One volume that the micro-VM has mounted, behind the contract of ``file_system.py``."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from hotspare.errors import FileSystemUnreadable, HotspareError, PathNotFound
from hotspare.guest.files.appliance.channel import Channel, QuestionFailed
from hotspare.guest.files.appliance.inside.wire import MORE, READ_MAX, RECORD
from hotspare.guest.files.file_system import KINDS, FileEntry

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG}
_SIZED = frozenset(("file", "link"))
_DEVICES = frozenset(("block-device", "character-device"))
_SIZE_MAX = (1 << 63) - 1
_NEVER_NAMES = frozenset(("", ".", ".."))

T = TypeVar("T")


class MountedFiles:
    """The files of one volume. An instance belongs to one thread at a time.

    Args:
        channel: to the micro-VM.
        number: the volume's, by which the agent knows it.
        kind: of file system.
        name: of the volume, for messages.
        cause: gives what went wrong with a disk since it was called last, if anything did.
    """

    def __init__(
        self, channel: Channel, number: int, kind: str, name: str, cause: Callable[[], HotspareError | None]
    ) -> None:
        self.kind = kind
        self.remarks: tuple[str, ...] = ()
        self._channel = channel
        self._number = number
        self._name = name
        self._cause = cause
        self._closed = False

    def entry(self, path: str) -> FileEntry:
        """Describe one path; see the contract."""
        for entry in self._records(path, self._ask(path, "entry", self._number, path)):
            if isinstance(entry, FileEntry):
                return entry
        raise self._nonsense(path)

    def entries(self, folder: str) -> Iterator[FileEntry]:
        """Yield what is in a folder; see the contract."""
        return self._listing(folder, whole_tree=False)

    def walk(self, folder: str = "/") -> Iterator[FileEntry]:
        """Yield everything below a folder; see the contract."""
        return self._listing(folder, whole_tree=True)

    def open(self, path: str, stream: str = "") -> "MountedFile":
        """Open a file's content; see the contract. There are no further streams."""
        entry = self.entry(path)
        if stream:
            raise PathNotFound(f"{path} has no stream {stream!r}")
        if entry.kind != "file":
            raise FileSystemUnreadable(f"{path} is no file, but a {entry.kind}: it has no content")
        return MountedFile(self, path, entry.size)

    def attributes(self, path: str) -> dict[str, bytes]:
        """Give the extended attributes; see the contract."""
        parts = self._ask_for(list[bytes], path, "attributes", path)
        if len(parts) % 2:
            raise self._nonsense(path)
        return {os.fsdecode(name): value for name, value in zip(parts[::2], parts[1::2], strict=True)}

    def close(self) -> None:
        """Let go of the volume; a second call does nothing."""
        if not self._closed:
            self._closed = True
            with suppress(QuestionFailed, FileSystemUnreadable):
                self._channel.ask("unmount", self._number)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read a part of a file: fewer bytes than ``length`` only where it ends before."""
        parts = []
        while length > 0:
            try:
                part = self._channel.ask("read", self._number, path, offset, min(length, READ_MAX))
            except QuestionFailed as failed:
                raise self._failure(path, failed) from failed
            if not part:
                break
            parts.append(part[:length])
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    def holes(self, path: str) -> Iterator[tuple[int, int]]:
        """Yield the runs of a file that are not stored."""
        start: int | None = 0
        while start is not None:
            *bounds, following = self._ask_for(list[int | None], path, "holes", path, start)
            known = [bound for bound in bounds if bound is not None]
            for begin, end in zip(known[::2], known[1::2], strict=False):
                if not start <= begin < end:
                    raise self._nonsense(path)
                yield begin, end
                start = end
            if following is not None and following <= start and not known:
                raise self._nonsense(path)
            start = following

    def _listing(self, folder: str, *, whole_tree: bool) -> Iterator[FileEntry]:
        first = self._ask(folder, "list", self._number, folder, int(whole_tree))
        return self._batches(folder, first, whole_tree=whole_tree)

    def _batches(self, folder: str, batch: bytes, *, whole_tree: bool) -> Iterator[FileEntry]:
        failure: HotspareError | None = None
        prefix = folder.rstrip("/") + "/"
        more = self._more(folder, batch)
        try:
            while True:
                for entry in self._records(folder, batch[MORE.size :]):
                    if not isinstance(entry, FileEntry):
                        failure = failure or entry
                        continue
                    names = entry.path.removeprefix(prefix).split("/")
                    safe = entry.path.startswith(prefix) and not _NEVER_NAMES.intersection(names)
                    if not safe or (len(names) > 1 and not whole_tree):
                        raise self._nonsense(entry.path)
                    yield entry
                if not more:
                    break
                batch = self._ask(folder, "more", more)
                more = self._more(folder, batch)
        finally:
            if more:
                with suppress(QuestionFailed, FileSystemUnreadable):
                    self._channel.ask("drop", more)
        if failure is not None:
            raise failure

    def _more(self, folder: str, batch: bytes) -> int:
        if len(batch) < MORE.size:
            raise self._nonsense(folder)
        (more,) = MORE.unpack_from(batch)
        return int(more)

    def _records(self, about: str, content: bytes) -> Iterator[FileEntry | HotspareError]:
        """Decode records; what could not be read is an error in its place."""
        at = 0
        while at < len(content):
            start = at + RECORD.size
            if start > len(content):
                raise self._nonsense(about)
            mode, uid, gid, links, inode, size, modified, device, *lengths = RECORD.unpack_from(content, at)
            at = start + sum(lengths)
            if at > len(content):
                raise self._nonsense(about)
            path = os.fsdecode(content[start : start + lengths[0]])
            target = content[start + lengths[0] : at]
            if not mode:
                yield self._failure(path, QuestionFailed(uid, target.decode(errors="replace")))
                continue
            kind = KINDS.get(stat.S_IFMT(mode))
            if kind is None or size > _SIZE_MAX:
                raise self._nonsense(path)
            yield FileEntry(
                path=path,
                kind=kind,
                size=size if kind in _SIZED else 0,
                modified=modified,
                mode=stat.S_IMODE(mode),
                uid=uid,
                gid=gid,
                inode=inode,
                links=links,
                target=os.fsdecode(target),
                device=(os.major(device), os.minor(device)) if kind in _DEVICES else None,
            )

    def _ask(self, path: str, question: str, *fields: str | int) -> bytes:
        if "\0" in path:
            raise PathNotFound(f"There is no {path!r} on {self._name}")
        try:
            return self._channel.ask(question, *fields)
        except QuestionFailed as failed:
            raise self._failure(path, failed) from failed

    def _ask_for(self, kind: type[T], path: str, question: str, *fields: str | int) -> T:
        return self._channel.decoded(self._ask(path, question, self._number, *fields), kind)

    def _failure(self, path: str, failed: QuestionFailed) -> HotspareError:
        cause = self._cause()
        if cause is not None:
            return cause
        if failed.number in _NOT_THERE:
            return PathNotFound(
                f"There is no {path} on {self._name}: {failed.text}",
                hint="Look at what there is with: hotspare files ls",
            )
        return FileSystemUnreadable(
            f"{path} on {self._name} cannot be read: {failed.text}",
            meaning="The Linux kernel could not read it either; the restore point holds the disk as it was",
            hint="Repair the file system with its own tools after a restore, or take an older restore point",
        )

    def _nonsense(self, path: str) -> FileSystemUnreadable:
        return FileSystemUnreadable(
            f"{path!r} on {self._name}: what the micro-VM says of it makes no sense",
            meaning="The file system may have been made to attack who reads it",
            hint="Take an older restore point",
        )


class MountedFile:
    """The content of one file in the micro-VM."""

    def __init__(self, files: MountedFiles, path: str, size: int) -> None:
        self.size = size
        self._files = files
        self._path = path

    def read(self, offset: int, length: int) -> bytes:
        """Give the bytes from ``offset``; see the contract."""
        return self._files.read(self._path, offset, min(length, max(0, self.size - offset)))

    def holes(self) -> Iterator[tuple[int, int]]:
        """Yield runs that are not stored; see the contract."""
        return self._files.holes(self._path)

    def close(self) -> None:
        """Let go of it; a second call does nothing. The agent closes it when another file is read."""
