"""One client of an NBD server: its connection, and the threads that do its requests."""

import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol, runtime_checkable

from hotspare.block.device import BlockReader, BlockWriter
from hotspare.block.extent import ExtentKind
from hotspare.block.nbd.connection import Connection
from hotspare.block.nbd.negotiation_server import Agreement, Offer, ServerNegotiation
from hotspare.block.nbd.protocol import (
    BASE_ALLOCATION,
    Allocation,
    Command,
    CommandFlag,
    Errno,
    NbdProtocolError,
    TransmissionFlag,
)
from hotspare.block.nbd.requests import (
    IncomingRequest,
    objection,
    pack_data_header,
    pack_done,
    pack_error,
    pack_status,
    receive_request,
)
from hotspare.block.nbd.status import Run
from hotspare.errors import HotspareError, NoSpace, PermissionRefused
from hotspare.units import MIB

NEGOTIATION_TIMEOUT = 60.0
"""Seconds that a client may be silent before it has chosen an export; afterwards it may idle."""
MAX_STATUS_RUNS = 65536
"""Most runs in one answer about block status: 512 KiB; the client asks again for the rest."""

_READING = TransmissionFlag.HAS_FLAGS | TransmissionFlag.CAN_MULTI_CONN | TransmissionFlag.SEND_DF
_WRITING = (
    TransmissionFlag.SEND_FLUSH
    | TransmissionFlag.SEND_FUA
    | TransmissionFlag.SEND_TRIM
    | TransmissionFlag.SEND_WRITE_ZEROES
)
_ZEROES = memoryview(bytes(1 * MIB))

StatusSource = Callable[[int, int], Iterable[Run]]
"""Gives the runs (length, flags) of a range (offset, length); may stop early but not before one byte."""


@runtime_checkable
class PromptReader(Protocol):
    """A ``BlockReader`` that knows what it can read without waiting for anything."""

    def is_at_hand(self, offset: int, length: int) -> bool:
        """Tell whether ``read_into`` would not wait for a disk or a network."""
        ...


@dataclass(slots=True)
class Export:
    """One disk of a server.

    Attributes:
        reader: what is served; cloned for each thread, stays with the caller.
        writer: where writes go, whose completed writes ``reader`` sees; None makes the export read-only.
        contexts: further meta contexts by name. They are called from several threads.
    """

    reader: BlockReader
    writer: BlockWriter | None = None
    contexts: Mapping[str, StatusSource] = field(default_factory=dict)
    clone_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """Reader and writer belong to one thread at a time, and sessions come from several."""

    def offer(self) -> Offer:
        """Say what clients are told about it. We hold for all clones what multi-conn promises."""
        flags = _READING | (TransmissionFlag.READ_ONLY if self.writer is None else _WRITING)
        return Offer(self.reader.size, flags, (BASE_ALLOCATION, *self.contexts))


class Session:
    """Serves one connection until the client leaves or ``hang_up`` is called."""

    def __init__(self, connection: Connection, exports: Mapping[str, Export], workers: int) -> None:
        self._connection = connection
        self._exports = exports
        self._workers = workers
        self._send_lock = threading.Lock()
        # Bounded, so that a client cannot make us hold more than a few payloads.
        self._waiting: queue.Queue[IncomingRequest | None] = queue.Queue(maxsize=workers)

    def hang_up(self) -> None:
        """End the session from another thread."""
        self._connection.hang_up()

    def serve(self) -> None:
        """Negotiate, then do requests. Errors of the connection or the client just end it."""
        try:
            self._connection.limit_waits(NEGOTIATION_TIMEOUT)
            offers = {name: export.offer() for name, export in self._exports.items()}
            agreement = self._connection.perform(ServerNegotiation(offers).run())
            if agreement is not None:
                self._connection.limit_waits(None)
                self._transmit(agreement)
        except (OSError, NbdProtocolError):
            return
        finally:
            self._connection.hang_up()
            self._connection.close()

    def _transmit(self, agreement: Agreement) -> None:
        export = self._exports[agreement.export]
        threads = [
            threading.Thread(target=self._work, args=(export, agreement), name=f"nbd-worker-{n}", daemon=True)
            for n in range(self._workers)
        ]
        for thread in threads:
            thread.start()
        try:
            with ExitStack() as stack:
                prompt = _Disk.open_prompt(export, agreement, stack)
                while True:
                    request = self._connection.perform(receive_request())
                    if request.command == Command.DISC:
                        return
                    if prompt is None or not self._answer_at_once(prompt, request, agreement):
                        self._waiting.put(request)
        finally:
            for _ in threads:
                self._waiting.put(None)
            for thread in threads:
                thread.join()

    def _answer_at_once(self, disk: "_Disk", request: IncomingRequest, agreement: Agreement) -> bool:
        """Do a read here that waits for nothing: giving it to a thread would take longer than doing it."""
        if not disk.has_at_hand(request):
            return False
        self._send_answer(disk, request, agreement)
        return True

    def _send_answer(self, disk: "_Disk", request: IncomingRequest, agreement: Agreement) -> None:
        try:
            reply = disk.answer(request)
        except HotspareError as error:
            reply = [_failed(request, _errno(error), str(error), agreement)]
        with self._send_lock:
            self._connection.send(reply)

    def _work(self, export: Export, agreement: Agreement) -> None:
        try:
            self._do_requests(export, agreement)
        except OSError:
            self._abandon()  # the client has left, and nobody is there to be told
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        self._connection.hang_up()
        while self._waiting.get() is not None:
            pass  # the receiver has to find room in the queue until it notices

    def _do_requests(self, export: Export, agreement: Agreement) -> None:
        with ExitStack() as stack:
            disk: _Disk | None = None
            for request in iter(self._waiting.get, None):
                try:
                    disk = disk or _Disk.open(export, agreement, stack)
                except HotspareError as error:
                    with self._send_lock:
                        self._connection.send([_failed(request, _errno(error), str(error), agreement)])
                    continue
                self._send_answer(disk, request, agreement)


class _Disk:
    """One thread's view of an export."""

    def __init__(
        self, export: Export, agreement: Agreement, reader: BlockReader, writer: BlockWriter | None
    ) -> None:
        self._agreement = agreement
        self._reader = reader
        self._prompt = reader if isinstance(reader, PromptReader) else None
        self._writer = writer
        self._offer = export.offer()
        self._sources = {BASE_ALLOCATION: self._allocation, **export.contexts}

    @classmethod
    def open(cls, export: Export, agreement: Agreement, stack: ExitStack) -> "_Disk":
        with export.clone_lock:
            reader = stack.enter_context(closing(export.reader.clone()))
            writer = None if export.writer is None else stack.enter_context(closing(export.writer.clone()))
        return cls(export, agreement, reader, writer)

    @classmethod
    def open_prompt(cls, export: Export, agreement: Agreement, stack: ExitStack) -> "_Disk | None":
        """Open an export for reads that wait for nothing; None where it does not know which these are."""
        if not isinstance(export.reader, PromptReader):
            return None
        with suppress(HotspareError):
            return cls.open(export, agreement, stack)
        return None

    def has_at_hand(self, request: IncomingRequest) -> bool:
        """Tell whether a request is a read that waits for nothing."""
        return (
            request.command == Command.READ
            and request.length > 0
            and self._prompt is not None
            and request.offset + request.length <= self._offer.size
            and self._prompt.is_at_hand(request.offset, request.length)
        )

    def answer(self, request: IncomingRequest) -> list[bytes | memoryview]:
        """Do one request; return its reply in parts.

        Raises:
            HotspareError: the disk could not do it.
        """
        contexts = bool(self._agreement.contexts)
        errno = objection(request, self._offer.size, self._offer.flags, contexts=contexts)
        if errno is not None:
            text = "the request makes no sense for this export"
            return [_failed(request, errno, text, self._agreement)]
        structured = self._agreement.structured
        if request.command == Command.BLOCK_STATUS:
            return self._status(request)
        if request.command == Command.READ and request.length:
            buffer = memoryview(bytearray(request.length))
            self._reader.read_into(request.offset, buffer)
            header = pack_data_header(request.cookie, request.offset, request.length, structured=structured)
            return [header, buffer]
        if self._writer is not None:
            self._write(request, self._writer)
        return [pack_done(request.cookie, structured=structured)]

    def _write(self, request: IncomingRequest, writer: BlockWriter) -> None:
        offset, end = request.offset, request.offset + request.length
        if request.command == Command.WRITE:
            writer.write(offset, request.payload)
        elif request.command == Command.WRITE_ZEROES and request.flags & CommandFlag.NO_HOLE:
            for at in range(offset, end, len(_ZEROES)):
                writer.write(at, _ZEROES[: min(len(_ZEROES), end - at)])
        elif request.command in (Command.WRITE_ZEROES, Command.TRIM):
            writer.write_zeroes(offset, request.length)
        if request.command == Command.FLUSH or request.flags & CommandFlag.FUA:
            writer.flush()

    def _status(self, request: IncomingRequest) -> list[bytes | memoryview]:
        limit = 1 if request.flags & CommandFlag.REQ_ONE else MAX_STATUS_RUNS
        last = max(self._agreement.contexts)
        parts: list[bytes | memoryview] = []
        for number, name in self._agreement.contexts.items():
            runs = list(islice(self._sources[name](request.offset, request.length), limit))
            parts.append(pack_status(request.cookie, number, runs, done=number == last))
        return parts

    def _allocation(self, offset: int, length: int) -> Iterable[Run]:
        for extent in self._reader.extents(offset, length):
            zero = extent.kind is ExtentKind.ZERO
            yield extent.length, int(Allocation.HOLE | Allocation.ZERO) if zero else 0


def _failed(request: IncomingRequest, errno: Errno, text: str, agreement: Agreement) -> bytes:
    return pack_error(request.cookie, errno, text, structured=agreement.structured)


def _errno(error: HotspareError) -> Errno:
    if isinstance(error, NoSpace):
        return Errno.ENOSPC
    if isinstance(error, PermissionRefused):
        return Errno.EPERM
    return Errno.EIO
