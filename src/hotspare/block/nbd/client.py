"""A disk that an NBD server serves."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from typing_extensions import Buffer

from hotspare.block.extent import Extent, ExtentKind
from hotspare.block.nbd import negotiation_client, protocol
from hotspare.block.nbd.connection import Address, Connection
from hotspare.block.nbd.failures import connect_failure, connection_failure, describe, request_failure
from hotspare.block.nbd.protocol import (
    Allocation,
    Command,
    NbdProtocolError,
    NbdRefusedError,
    TransmissionFlag,
)
from hotspare.block.nbd.replies import ReplyReceiver, Request
from hotspare.block.nbd.shared_writes import SharedWrites
from hotspare.block.nbd.status import Run, merged, next_step, trimmed
from hotspare.block.nbd.tls import Tls, secured
from hotspare.errors import HotspareError, PermissionRefused, SourceLost
from hotspare.units import MIB

REQUEST_SIZE = 1 * MIB
"""Bytes of one read or write: measured to be the fastest against qemu-nbd, with ``DEPTH`` in flight."""
DEPTH = 4
ZERO_STEP = 256 * MIB
"""Most that one request writes as zeroes: a server without hole punching has to finish it in time."""
_ZEROES = memoryview(bytes(REQUEST_SIZE))

Place = tuple[Address, str, tuple[str, ...], float, Tls | None]
"""All that it takes to connect again: address, export, contexts, timeout, TLS."""


class NbdClient:
    """One connection to one export; a ``BlockReader`` and, unless ``read_only``, a ``BlockWriter``.

    Every wait is bounded by the timeout of ``connect``. A lost, silent or misbehaving server raises
    ``SourceLost``, and so does everything after it. An error that the server reports for one request
    (``NoSpace``, ``PermissionRefused`` or ``SourceLost``) leaves the connection usable.

    Writes are pipelined: ``write``, ``write_zeroes`` and ``trim`` return before the server has answered, and
    an error may surface in a later one of them, in ``read_into``, and at the latest in ``flush``.

    Attributes:
        size: bytes.
        read_only: the server refuses writes.
        multi_conn: several connections to the export see the same data, and one flush covers all.
        contexts: names of the meta contexts that were negotiated.
        minimum_block_size: bytes; what requests to the server are aligned to (done here, callers need not).
        preferred_block_size: bytes; smaller requests are slow.
        maximum_block_size: bytes; longest read or write in one request (longer ones are split here).
    """

    def __init__(
        self,
        connection: Connection,
        agreed: negotiation_client.Negotiated,
        shared: SharedWrites,
        place: Place,
    ) -> None:
        self.size = agreed.size
        self.read_only = TransmissionFlag.READ_ONLY in agreed.flags
        self.multi_conn = TransmissionFlag.CAN_MULTI_CONN in agreed.flags
        self.contexts = tuple(agreed.contexts.values())
        self.minimum_block_size = agreed.minimum_block
        self.preferred_block_size = agreed.preferred_block
        self.maximum_block_size = agreed.maximum_block
        self._connection = connection
        self._flags = agreed.flags
        self._context_names = agreed.contexts
        self._place = place
        self._name = describe(place[0], place[1])
        self._replies = ReplyReceiver(structured=agreed.structured, contexts=frozenset(agreed.contexts))
        self._step = max(agreed.minimum_block, min(REQUEST_SIZE, agreed.maximum_block))
        # Only flush() of a clone in another thread makes this lock contended.
        self._lock = threading.RLock()
        self._unflushed = False
        self._lost: HotspareError | None = None
        self._closed = False
        self._shared = shared
        shared.join(self)

    @classmethod
    def connect(
        cls,
        address: Address,
        export: str = "",
        *,
        contexts: Sequence[str] = (protocol.BASE_ALLOCATION,),
        timeout: float = 60.0,
        tls: Tls | None = None,
    ) -> Self:
        """Connect to ``export`` of the server at ``address``.

        Args:
            address: path of a unix socket, or host and port.
            export: name of the export; empty for the server's default.
            contexts: meta contexts to ask for; those that the server has are in ``contexts`` afterwards.
            timeout: seconds that any single wait may take.
            tls: how the connection is secured; None for not at all.

        Raises:
            SourceLost: nothing answers there, or not as an NBD server, or it has no such export.
            PermissionRefused: the operating system or the server refuses us.
        """
        return cls._connect((address, export, tuple(contexts), timeout, tls), SharedWrites())

    @classmethod
    def _connect(cls, place: Place, shared: SharedWrites) -> Self:
        address, export, contexts, timeout, tls = place
        name = describe(address, export)
        try:
            connection = Connection.open(address, timeout)
        except OSError as error:
            raise connect_failure(name, error, timeout) from error
        try:
            no_zeroes = None
            if tls is not None:
                connection, no_zeroes = secured(connection, tls, timeout)
            agreed = connection.perform(negotiation_client.negotiate(export, contexts, no_zeroes))
        except (OSError, NbdProtocolError, NbdRefusedError) as error:
            connection.close()
            raise connect_failure(name, error, timeout) from error
        except BaseException:
            connection.close()
            raise
        return cls(connection, agreed, shared, place)

    def clone(self) -> Self:
        """Connect to the same export once more, for another thread."""
        return self._connect(self._place, self._shared)

    def close(self) -> None:
        """Wait for the writes in flight and disconnect; a second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._shared.leave(self)
            try:
                if self._lost is None:
                    self._drain()
                    if not self.multi_conn and self._shared.members():
                        # A flush of those who remain would not reach what this connection wrote.
                        self._flush_connection()
                    self._send(Request(Command.DISC, 0, 0))
            except HotspareError as failure:
                self._shared.fail(failure)
            finally:
                self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def block_status(self, offset: int, length: int) -> dict[str, list[Run]]:
        """Ask what a range (at most 4 GiB - 1) is like, in each negotiated context.

        Returns:
            Per name of a context: runs of (length, flags) from ``offset`` on. They never go beyond the
            range, but may cover less of it (at least one byte), and differently far in each context.
        """
        start, end = self._aligned(offset, length)
        request = Request(Command.BLOCK_STATUS, start, end - start)
        with self._lock:
            self._await([request])
        status = request.status.items()
        return {self._context_names[number]: trimmed(runs, offset - start, length) for number, runs in status}

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield data and zeroes by ``base:allocation``; all data where the server does not tell."""
        _check_range(self.size, offset, length)
        return merged(self._raw_extents(offset, offset + length))

    def _raw_extents(self, position: int, end: int) -> Iterator[Extent]:
        if protocol.BASE_ALLOCATION not in self.contexts:
            if position < end:
                yield Extent(position, end - position, ExtentKind.DATA)
            return
        while position < end:
            status = self.block_status(position, next_step(position, end))
            for run, flags in status[protocol.BASE_ALLOCATION]:
                kind = ExtentKind.ZERO if flags & Allocation.ZERO else ExtentKind.DATA
                yield Extent(position, run, kind)
                position += run

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill all of ``buffer`` from ``offset``.

        Raises:
            SourceLost: the server went away, stopped answering or could not read.
        """
        _check_range(self.size, offset, len(buffer))
        buffer = buffer.cast("B")
        start, end = self._aligned(offset, len(buffer))
        if end - start == len(buffer):
            self._read_aligned(offset, buffer)
            return
        whole = memoryview(bytearray(end - start))
        self._read_aligned(start, whole)
        buffer[:] = whole[offset - start : offset - start + len(buffer)]

    def _read_aligned(self, offset: int, buffer: memoryview) -> None:
        with self._lock:
            self._await(
                Request(Command.READ, offset + at, len(part), part)
                for at in range(0, len(buffer), self._step)
                for part in [buffer[at : at + self._step]]
            )

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of ``data``; returns before the server has answered.

        Raises:
            NoSpace, PermissionRefused, SourceLost: this write or an earlier one failed.
        """
        payload = memoryview(data).cast("B")
        _check_range(self.size, offset, len(payload))
        self._check_writable()
        with self._lock:
            start, end = self._aligned(offset, len(payload))
            if end - start != len(payload):
                whole = memoryview(bytearray(end - start))
                self._read_aligned(start, whole)
                whole[offset - start : offset - start + len(payload)] = payload
                payload = whole
            for at in range(0, len(payload), self._step):
                part = payload[at : at + self._step]
                self._write_later(Request(Command.WRITE, start + at, len(part)), part)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Make the range read as zeroes, as holes where the server can; returns before it has answered.

        Raises:
            NoSpace, PermissionRefused, SourceLost: this write or an earlier one failed.
        """
        _check_range(self.size, offset, length)
        self._check_writable()
        start, end = _inner(offset, length, self.minimum_block_size)
        if TransmissionFlag.SEND_WRITE_ZEROES not in self._flags:
            start = end = offset
        for first, last in ((offset, start), (end, offset + length)):
            for at in range(first, last, len(_ZEROES)):
                self.write(at, _ZEROES[: min(len(_ZEROES), last - at)])
        self._in_steps(Command.WRITE_ZEROES, start, end)

    def trim(self, offset: int, length: int) -> None:
        """Tell the server that nobody needs the range any more; nothing where it cannot use that.

        Raises:
            NoSpace, PermissionRefused, SourceLost: this request or an earlier one failed.
        """
        _check_range(self.size, offset, length)
        self._check_writable()
        if TransmissionFlag.SEND_TRIM in self._flags:
            self._in_steps(Command.TRIM, *_inner(offset, length, self.minimum_block_size))

    def _in_steps(self, command: Command, start: int, end: int) -> None:
        with self._lock:
            for at in range(start, end, ZERO_STEP):
                self._write_later(Request(command, at, min(ZERO_STEP, end - at)))

    def flush(self) -> None:
        """Return when all writes of this client and its clones are durable.

        Raises:
            NoSpace, PermissionRefused, SourceLost: a write or the flush failed. Every later flush fails too.
        """
        for member in self._shared.members():
            member.settle(flush=member is self or not self.multi_conn)
        self._shared.check()

    def settle(self, *, flush: bool) -> None:
        """Wait for the writes in flight, on behalf of the clone that flushes."""
        with self._lock:
            if self._closed or self._lost is not None:
                return  # what that means for the writes is in self._shared
            self._drain()
            if flush:
                self._flush_connection()

    def _flush_connection(self) -> None:
        if TransmissionFlag.SEND_FLUSH in self._flags:
            self._send(Request(Command.FLUSH, 0, 0))
            self._drain()
        self._unflushed = False

    def _check_writable(self) -> None:
        if self.read_only:
            raise PermissionRefused(f"{self._name} is read-only", meaning="Nothing was written")
        self._shared.check()

    def _aligned(self, offset: int, length: int) -> tuple[int, int]:
        """Widen a range to what the server can be asked for."""
        block = self.minimum_block_size
        end = -(-(offset + length) // block) * block
        return offset // block * block, min(end, self.size)

    def _write_later(self, request: Request, payload: bytes | memoryview = b"") -> None:
        # The server may do requests in any order, so two writes to the same place must not be in flight.
        if any(_overlap(request, other) for other in self._replies.in_flight()):
            self._drain()
        self._make_room()
        self._unflushed = True
        self._send(request, payload)

    def _await(self, requests: Iterable[Request]) -> None:
        """Do all requests, a few at a time; raise what went wrong after the last has come back.

        Nothing may stay in flight that points into the buffer of the caller. And no write may be in flight
        while reading, as the server could do the read first.
        """
        self._drain()
        sent = []
        for request in requests:
            self._make_room()
            self._send(request)
            sent.append(request)
        self._drain()
        for request in sent:
            failure = request_failure(self._name, request)
            if failure is not None:
                raise failure

    def _make_room(self) -> None:
        while len(self._replies.in_flight()) >= DEPTH:
            self._receive_reply()

    def _drain(self) -> None:
        while self._replies.in_flight():
            self._receive_reply()

    def _receive_reply(self) -> None:
        with self._broken_by_errors():
            request = self._connection.perform(self._replies.receive_one())
        if request.command not in (Command.READ, Command.BLOCK_STATUS):
            failure = request_failure(self._name, request)
            if failure is not None:
                self._shared.fail(failure)
                raise failure

    def _send(self, request: Request, payload: bytes | memoryview = b"") -> None:
        with self._broken_by_errors():
            self._connection.send([self._replies.submit(request), payload])

    @contextmanager
    def _broken_by_errors(self) -> Iterator[None]:
        """Whatever interrupts sending or receiving, the stream cannot be used any more afterwards."""
        if self._lost is not None:
            raise self._lost
        try:
            yield
        except (OSError, NbdProtocolError) as error:
            failure = connection_failure(self._name, error, self._place[3])
            self._lose(failure)
            raise failure from error
        except BaseException:
            self._lose(SourceLost(f"A request to {self._name} was interrupted"))
            raise

    def _lose(self, failure: HotspareError) -> None:
        self._lost = failure
        if self._unflushed:
            self._shared.fail(failure)
        self._connection.hang_up()


def _check_range(size: int, offset: int, length: int) -> None:
    if not 0 <= offset <= offset + length <= size:
        raise ValueError(f"{length} bytes at {offset} are not all on a disk of {size} bytes")


def _overlap(one: Request, other: Request) -> bool:
    return one.offset < other.offset + other.length and other.offset < one.offset + one.length


def _inner(offset: int, length: int, block: int) -> tuple[int, int]:
    """Give the part of a range that is made of whole blocks; empty at ``offset`` if there is none."""
    start, end = -(-offset // block) * block, (offset + length) // block * block
    return (start, end) if start < end else (offset, offset)
