"""NTFS as a file system of the contract, read by a worker that may die, hang or lie."""

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TypeVar

from hotspare.block.device import BlockReader
from hotspare.errors import FileSystemUnreadable
from hotspare.guest.files.file_system import FileContent, FileEntry
from hotspare.guest.files.ntfs import wire, worker

_SECONDS_MAX = 30.0
"""Of the worker's own work for one question; what reading the disk takes does not count."""
_BLOCKS_MAX = 400_000
"""Pieces of the volume for one question: a worker that runs in circles ends here."""
_STARTS_MAX = 8

T = TypeVar("T")


class IsolatedNtfs:
    """Asks a worker, which it starts, and starts again when a damaged folder or file was its end.

    Args:
        disk: the volume; closed by whoever opened it.

    Raises:
        NeedsAppliance: it is of a version that is not known to be read right.
        FileSystemUnreadable: it makes no sense.
    """

    kind = "ntfs"

    def __init__(self, disk: BlockReader, *, seconds_max: float = _SECONDS_MAX) -> None:
        self._disk = disk
        self._seconds_max = seconds_max
        self._worker: _Worker | None = None
        self.generation = 1
        """Which worker it is, the first, second…: numbers of open files are those of one worker."""
        try:
            self.remarks = tuple(self.ask(wire.Request("remarks"), list[str]))
        except BaseException:
            self.close()
            raise

    def entry(self, path: str) -> FileEntry:
        """Describe one path; see the contract."""
        found = wire.from_wire(self.ask(wire.Request("entry", os.fsencode(path)), wire.WireEntry))
        return found if found.path == "/" else self._believed(found, "/")

    def entries(self, folder: str) -> Iterator[FileEntry]:
        """Yield what is in a folder; see the contract."""
        return self._listing("entries", folder)

    def walk(self, folder: str = "/") -> Iterator[FileEntry]:
        """Yield everything below a folder; see the contract."""
        return self._listing("walk", folder)

    def open(self, path: str, stream: str = "") -> FileContent:
        """Open a file's content or a stream; see the contract."""
        return _IsolatedContent(self, path, stream)

    def attributes(self, path: str) -> dict[str, bytes]:
        """Give extended attributes; see the contract."""
        return self.ask(wire.Request("attributes", os.fsencode(path)), dict[str, bytes])

    def close(self) -> None:
        """End the worker."""
        process, self._worker = self._worker, None
        if process is not None:
            self.generation += 1
            process.end()

    def ask(self, request: wire.Request, expected: type[T]) -> T:
        """Ask the worker, serve what it reads, and give its answer.

        Raises:
            PathNotFound, FileSystemUnreadable: the worker said so, or failed to answer.
            SourceLost, StorageError, RepositoryDamaged: the disk cannot be read.
        """
        try:
            answer = self._converse(request)
            if isinstance(answer, wire.Done):
                return wire.value_of(answer, expected)
        except wire.Ended as error:
            self.close()
            raise FileSystemUnreadable(
                f"The reader of NTFS was stopped, because {error}",
                meaning="The file system is damaged in a way that the reader cannot cope with",
                hint="Other files may be readable; for this one, restore the whole disk",
            ) from None
        except BaseException:
            self.close()  # what was being said would be taken for the answer to the next question
            raise
        raise wire.error_of(answer)

    def _converse(self, request: wire.Request) -> wire.Done | wire.Failed:
        process = self._started()
        patience = _Patience(process.source, self._seconds_max)
        wire.send(process.sink, request)
        for _ in range(_BLOCKS_MAX):
            answer = wire.receive_answer(process.source, patience.wait)
            if not isinstance(answer, wire.NeedBlock):
                return answer
            wire.send_bytes(process.sink, self._block(answer))
        raise wire.Ended("it reads without end")

    def _listing(self, verb: str, folder: str) -> Iterator[FileEntry]:
        number = self.ask(wire.Request(verb, os.fsencode(folder)), int)
        return self._batches(number, self.generation, folder)

    def _batches(self, number: int, generation: int, folder: str) -> Iterator[FileEntry]:
        within = "/" + "".join(f"{name}/" for name in folder.split("/") if name)
        more = True
        try:
            while more:
                if generation != self.generation or self._worker is None:
                    raise FileSystemUnreadable("The reader of NTFS was stopped within a listing")
                batch = self.ask(wire.Request("more", number=number), wire.Batch)
                for entry in batch.entries or map(wire.from_wire, batch.odd):
                    yield self._believed(entry, within)
                more = batch.more
        finally:
            self.drop(number, generation)

    def drop(self, number: int, generation: int) -> None:
        """Tell the worker that something is not needed any more."""
        if generation == self.generation and self._worker is not None:
            with contextlib.suppress(FileSystemUnreadable):
                self.ask(wire.Request("drop", number=number), type(None))

    def _believed(self, entry: FileEntry, within: str) -> FileEntry:
        """Check a path before somebody writes a file there: it is below a folder, and leads nowhere else.

        Case does not count: the worker gives a folder's name as it is on the disk.
        """
        path = f"{entry.path}/"
        if (
            path[: len(within)].upper() != within.upper()
            or len(path) <= len(within)
            or "//" in path
            or "/../" in path
            or "/./" in path
            or "\0" in path
        ):
            self.close()
            raise FileSystemUnreadable("The reader of NTFS was stopped, because it gave an impossible path")
        return entry

    def _block(self, wanted: wire.NeedBlock) -> bytearray:
        offset, length = wanted.offset, wanted.length
        if not 0 < length <= wire.FRAME_MAX or not 0 <= offset <= self._disk.size - length:
            raise wire.Ended("it reads what is not there")
        buffer = bytearray(length)
        self._disk.read_into(offset, memoryview(buffer))
        return buffer

    def _started(self) -> "_Worker":
        if self._worker is None:
            if self.generation > _STARTS_MAX:
                raise FileSystemUnreadable(
                    "The reader of NTFS had to be stopped too often",
                    meaning="The file system is badly damaged",
                    hint="Restore the disk, and repair it with chkdsk",
                )
            self._worker = _Worker(self._disk.size)
        return self._worker


class _Worker:
    """The process, and our ends of its pipes."""

    def __init__(self, size: int) -> None:
        theirs_in, self.sink = os.pipe()
        self.source, theirs_out = os.pipe()
        command = [sys.executable, "-P", "-m", worker.__name__, str(size)]
        try:
            self._process = subprocess.Popen(
                command, stdin=theirs_in, stdout=theirs_out, stderr=subprocess.DEVNULL
            )
        except BaseException:
            self._close_pipes()
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        os.close(self.sink)
        os.close(self.source)


class _IsolatedContent:
    """A file or stream, opened again where the worker was started again."""

    def __init__(self, file_system: IsolatedNtfs, path: str, stream: str) -> None:
        self._file_system = file_system
        self._path = path
        self._stream = stream
        self._generation = 0
        self._number = 0
        self.size = 0
        self._reopen()

    def read(self, offset: int, length: int) -> bytes:
        """Give the bytes from ``offset``; see the contract."""
        pieces: list[bytes] = []
        end = min(offset + length, self.size)
        while 0 <= offset < end:
            self._reopen()
            wanted = min(end - offset, wire.READ_MAX)
            request = wire.Request("read", number=self._number, offset=offset, length=wanted)
            piece = self._file_system.ask(request, bytes)
            if len(piece) != wanted:
                raise FileSystemUnreadable(f"{self._path} ends before its size")
            pieces.append(piece)
            offset += wanted
        return b"".join(pieces)

    def holes(self) -> Iterator[tuple[int, int]]:
        """Yield runs that are sparse; see the contract."""
        at = 0
        while True:
            self._reopen()
            request = wire.Request("holes", number=self._number, offset=at)
            found = self._file_system.ask(request, list[tuple[int, int]])
            yield from found
            if len(found) < wire.BATCH:
                return
            at = found[-1][1]

    def close(self) -> None:
        """Let go of it."""
        self._file_system.drop(self._number, self._generation)

    def _reopen(self) -> None:
        if self._generation and self._generation == self._file_system.generation:
            return
        request = wire.Request("open", os.fsencode(self._path), os.fsencode(self._stream))
        opened = self._file_system.ask(request, wire.Opened)
        self._number, self.size = opened.number, opened.size
        self._generation = self._file_system.generation


class _Patience:
    """Waits for the worker, but not longer than it may work in all."""

    def __init__(self, source: int, seconds: float) -> None:
        self._left = seconds
        self._poll = select.poll()
        self._poll.register(source, select.POLLIN)

    def wait(self) -> None:
        """Return when there is something to read."""
        began = time.monotonic()
        ready = self._poll.poll(max(0.0, self._left) * 1000)
        self._left -= time.monotonic() - began
        if not ready:
            raise wire.Ended("it took too long")
