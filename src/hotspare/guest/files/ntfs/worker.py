"""The process that reads NTFS with libfsntfs: it has nothing but two pipes, and little memory.

Started by ``isolated.py`` with the volume's size as its only argument. Whatever a hostile disk makes of it,
it can neither open files nor start programs nor reach a network, and it ends with its master.
"""

import codecs
import contextlib
import ctypes
import itertools
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from typing import Self, TypeVar

from hotspare.block.extent import Extent, ExtentKind
from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.files.file_system import FileContent, FileEntry
from hotspare.guest.files.ntfs import wire
from hotspare.guest.files.ntfs.reader import NtfsFileSystem
from hotspare.units import GIB

_LIMITS = {
    resource.RLIMIT_AS: 1 * GIB,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NOFILE: 3,
    resource.RLIMIT_NPROC: 0,
}
_OPEN_MAX = 1024
"""Contents and listings that are open at once."""
_NOBODY = 65534
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SIGKILL = 9
T = TypeVar("T")
_CLONE_NEWNET, _CLONE_NEWIPC = 0x40000000, 0x08000000


class _MasterVolume:
    """The volume, read through the master."""

    def __init__(self, size: int, source: int, sink: int) -> None:
        self.size = size
        self._source = source
        self._sink = sink

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length, ExtentKind.DATA)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        wire.send(self._sink, wire.NeedBlock(offset, len(buffer)))
        buffer[:] = wire.receive_bytes(self._source)

    def clone(self) -> Self:
        return self

    def close(self) -> None:
        pass


class _Worker:
    def __init__(self, reader: CachedReader) -> None:
        self._file_system = NtfsFileSystem(reader)
        self._numbers = itertools.count(1)
        self._listings: dict[int, Iterator[FileEntry]] = {}
        self._contents: dict[int, FileContent] = {}

    def answer(self, request: wire.Request) -> object:
        if request.number:
            return self._go_on(request)
        if not request.path:
            return list(self._file_system.remarks)
        return self._find(request.verb, os.fsdecode(request.path), os.fsdecode(request.stream))

    def _find(self, verb: str, path: str, stream: str) -> object:
        match verb:
            case "entry":
                return wire.to_wire(self._file_system.entry(path))
            case "entries":
                return self._keep(self._listings, self._file_system.entries(path))
            case "walk":
                return self._keep(self._listings, self._file_system.walk(path))
            case "open":
                content = self._file_system.open(path, stream)
                return wire.Opened(self._keep(self._contents, content), content.size)
        return self._file_system.attributes(path)

    def _go_on(self, request: wire.Request) -> object:
        """Go on with a listing or content that is open."""
        match request.verb:
            case "more":
                return wire.batch(list(itertools.islice(self._listings[request.number], wire.BATCH)))
            case "read":
                return self._contents[request.number].read(request.offset, min(request.length, wire.READ_MAX))
            case "holes":
                holes = self._contents[request.number].holes()
                wanted = ((start, end) for start, end in holes if start >= request.offset)
                return list(itertools.islice(wanted, wire.BATCH))
        self._listings.pop(request.number, None)
        self._contents.pop(request.number, None)
        return None

    def _keep(self, kept: dict[int, T], one: T) -> int:
        number = next(self._numbers)
        kept[number] = one
        while len(kept) > _OPEN_MAX:
            kept.pop(next(iter(kept)))
        return number


def main() -> None:
    """Answer questions until the master is gone."""
    source, sink = 0, 1
    reader = CachedReader(_MasterVolume(int(sys.argv[1]), source, sink))
    confine()
    worker: _Worker | None = None
    with contextlib.suppress(wire.Ended):
        while True:
            request = wire.receive_request(source)
            try:
                worker = worker or _Worker(reader)
                found = worker.answer(request)
                answer: wire.Done | wire.Failed = found if isinstance(found, wire.Done) else wire.done(found)
            except (FileSystemUnreadable, PathNotFound) as error:
                answer = wire.failed(error)
            wire.send(sink, answer)


def confine() -> None:
    """Give up everything that is not needed, for good."""
    for name in ("utf-16-le", "unicode_escape", "ascii", "idna"):
        codecs.lookup(name)  # nothing can be imported any more later
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC)
        _leave_file_system()
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    for limit, value in _LIMITS.items():
        resource.setrlimit(limit, (value, value))


def _leave_file_system() -> None:
    """Make an empty folder, which does not even exist any more, the root of all paths."""
    empty = tempfile.mkdtemp(prefix="hotspare-empty-")
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.chroot(empty)
        os.chdir("/")
        os.rmdir(empty.lstrip("/"), dir_fd=root)
    finally:
        os.close(root)


if __name__ == "__main__":
    main()
