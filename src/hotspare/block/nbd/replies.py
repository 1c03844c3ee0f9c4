"""Requests of the client and the replies to them, without I/O.

Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, sections "Transmission phase",
"Simple reply message", "Structured reply chunk message" and "Structured reply types".
"""

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass, field
from struct import Struct

from hotspare.block.nbd import protocol
from hotspare.block.nbd.protocol import Chunk, Command, Exchange, NbdProtocolError, receive


@dataclass(frozen=True, slots=True)
class RequestError:
    """The server could not do one request: an errno of the protocol and what it says about it."""

    errno: int
    text: str = ""


@dataclass(slots=True, eq=False)
class Request:
    """One request of the client and what has come back for it."""

    command: Command
    offset: int
    length: int
    buffer: memoryview | None = None
    """Where the bytes of a read go; exactly ``length`` long."""
    error: RequestError | None = None
    done: bool = False
    status: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Per number of a meta context: runs of (length, flags)."""
    filled: list[tuple[int, int]] = field(default_factory=list)
    """Which parts of the buffer have arrived: ordered (start, end), neighbours merged."""
    error_chunks: int = 0


class ReplyReceiver:
    """Matches replies with requests, and checks everything the server claims.

    ``submit`` gives the header of a request to send; ``receive_one`` takes replies until one request is
    complete.
    """

    def __init__(self, *, structured: bool, contexts: frozenset[int] = frozenset()) -> None:
        self._structured = structured
        self._contexts = contexts
        self._pending: dict[int, Request] = {}
        self._cookie = 0

    def in_flight(self) -> Collection[Request]:
        """Give the requests that wait for their reply."""
        return self._pending.values()

    def submit(self, request: Request, flags: int = 0) -> bytes:
        """Expect a reply to ``request``; return its header. The payload of a write follows it."""
        self._cookie += 1
        self._pending[self._cookie] = request
        return protocol.REQUEST.pack(
            protocol.REQUEST_MAGIC, flags, request.command, self._cookie, request.offset, request.length
        )

    def receive_one(self) -> Exchange[Request]:
        """Receive until one request is complete, and return it.

        Raises:
            NbdProtocolError: the server broke the protocol; the connection is of no further use.
        """
        while True:
            magic_bytes = yield from receive(4)
            (magic,) = protocol.U32.unpack(magic_bytes)
            if magic == protocol.SIMPLE_REPLY_MAGIC:
                return (yield from self._simple())
            if magic != protocol.STRUCTURED_REPLY_MAGIC or not self._structured:
                raise NbdProtocolError(f"no reply where one was due ({magic:#x})")
            request = yield from self._chunk()
            if request.done:
                return request

    def _simple(self) -> Exchange[Request]:
        errno, cookie = (yield from _unpack_rest(protocol.SIMPLE_REPLY.size))[:2]
        request = self._find(cookie)
        if errno:
            request.error = request.error or RequestError(errno)
        elif request.command is Command.READ and request.buffer is not None:
            if self._structured:
                raise NbdProtocolError("a simple reply to a read after structured ones were agreed on")
            yield request.buffer
        elif request.command is Command.BLOCK_STATUS:
            raise NbdProtocolError("a simple reply to a question about block status")
        return self._finish(cookie, request)

    def _chunk(self) -> Exchange[Request]:
        header = yield from receive(protocol.STRUCTURED_REPLY.size - 4)
        flags, kind, cookie, length = _CHUNK_REST.unpack(header)
        request = self._find(cookie)
        done = bool(flags & protocol.CHUNK_DONE)
        if kind & protocol.CHUNK_ERROR_BIT:
            yield from _take_error(request, length)
        elif kind == Chunk.NONE:
            if length or not done:
                raise NbdProtocolError("a malformed final chunk")
        elif kind == Chunk.OFFSET_DATA:
            yield from _take_data(request, length)
        elif kind == Chunk.OFFSET_HOLE:
            yield from _take_hole(request, length)
        elif kind == Chunk.BLOCK_STATUS:
            yield from self._take_status(request, length)
        else:
            raise NbdProtocolError(f"an unknown chunk of type {kind}")
        return self._finish(cookie, request) if done else request

    def _take_status(self, request: Request, length: int) -> Exchange[None]:
        if request.command is not Command.BLOCK_STATUS or length < 12 or length % 8 != 4:
            raise NbdProtocolError("a malformed chunk of block status")
        payload = yield from receive(length, 4 + 8 * protocol.MAX_STATUS_DESCRIPTORS)
        (context,) = protocol.U32.unpack_from(payload)
        if context not in self._contexts or context in request.status:
            raise NbdProtocolError("block status of a context that was not due")
        runs = [(run, flags) for run, flags in protocol.STATUS_DESCRIPTOR.iter_unpack(payload[4:])]
        if any(not run for run, _flags in runs):
            raise NbdProtocolError("block status of no bytes")
        request.status[context] = runs

    def _find(self, cookie: int) -> Request:
        request = self._pending.get(cookie)
        if request is None:
            raise NbdProtocolError("a reply to a request that is not in flight")
        return request

    def _finish(self, cookie: int, request: Request) -> Request:
        del self._pending[cookie]
        request.done = True
        if request.error is None:
            if request.filled not in ([], [(0, request.length)]):
                raise NbdProtocolError("a reply to a read that leaves bytes out")
            if self._structured and request.command is Command.READ and not request.filled:
                raise NbdProtocolError("a reply to a read without the bytes")
            if request.command is Command.BLOCK_STATUS and set(request.status) != self._contexts:
                raise NbdProtocolError("block status without all agreed contexts")
        return request


_CHUNK_REST = Struct(">HHQI")
_SIMPLE_REST = Struct(">IQ")


def _unpack_rest(size: int) -> Exchange[tuple[int, int]]:
    errno, cookie = _SIMPLE_REST.unpack((yield from receive(size - 4)))
    return errno, cookie


def _take_data(request: Request, length: int) -> Exchange[None]:
    if length < 9:
        raise NbdProtocolError("a chunk of data without data")
    (offset,) = protocol.U64.unpack((yield from receive(8)))
    yield _claim(request, offset, length - 8)


def _take_hole(request: Request, length: int) -> Exchange[None]:
    if length != protocol.HOLE.size:
        raise NbdProtocolError("a malformed hole")
    offset, hole = protocol.HOLE.unpack((yield from receive(length)))
    _claim(request, offset, hole)[:] = bytes(hole)


def _claim(request: Request, offset: int, length: int) -> memoryview:
    """Give the part of the buffer that a chunk fills; each byte may be filled once."""
    start, end = offset - request.offset, offset - request.offset + length
    if request.buffer is None or not 0 <= start < end <= request.length:
        raise NbdProtocolError("data outside of what was asked for")
    filled = request.filled
    at = bisect_left(filled, (start, end))
    if (at > 0 and filled[at - 1][1] > start) or (at < len(filled) and filled[at][0] < end):
        raise NbdProtocolError("the same data twice")
    first, last = start, end
    joins_next = at < len(filled) and filled[at][0] == end
    joins_previous = at > 0 and filled[at - 1][1] == start
    if joins_next:
        last = filled[at][1]
    if joins_previous:
        first = filled[at - 1][0]
    filled[at - joins_previous : at + joins_next] = [(first, last)]
    return request.buffer[start:end]


def _take_error(request: Request, length: int) -> Exchange[None]:
    request.error_chunks += 1
    if length < 6 or request.error_chunks > protocol.MAX_ERROR_CHUNKS:
        raise NbdProtocolError("a malformed error chunk, or too many of them")
    payload = yield from receive(length)
    errno, text_length = protocol.U32.unpack_from(payload)[0], protocol.U16.unpack_from(payload, 4)[0]
    if not errno or text_length > length - 6:
        raise NbdProtocolError("a malformed error chunk")
    text = payload[6 : 6 + text_length].decode(errors="replace")
    request.error = request.error or RequestError(errno, text)
