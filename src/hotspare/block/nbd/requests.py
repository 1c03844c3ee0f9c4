"""Requests as a server receives them and the replies it sends, without I/O.

Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, sections "Transmission phase"
and "Request types".
"""

from dataclasses import dataclass

from hotspare.block.nbd import protocol
from hotspare.block.nbd.protocol import (
    Chunk,
    Command,
    CommandFlag,
    Errno,
    Exchange,
    NbdProtocolError,
    TransmissionFlag,
    receive,
)
from hotspare.block.nbd.status import Run

_ALLOWED_FLAGS = {
    Command.READ: CommandFlag.FUA | CommandFlag.DF,
    Command.WRITE: CommandFlag.FUA,
    Command.DISC: CommandFlag.FUA,
    Command.FLUSH: CommandFlag.FUA,
    Command.TRIM: CommandFlag.FUA,
    Command.WRITE_ZEROES: CommandFlag.FUA | CommandFlag.NO_HOLE,
    Command.BLOCK_STATUS: CommandFlag.FUA | CommandFlag.REQ_ONE,
}
_NEEDED = {
    Command.FLUSH: TransmissionFlag.SEND_FLUSH,
    Command.TRIM: TransmissionFlag.SEND_TRIM,
    Command.WRITE_ZEROES: TransmissionFlag.SEND_WRITE_ZEROES,
}
_WRITING = (Command.WRITE, Command.TRIM, Command.WRITE_ZEROES)


@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """One request of a client. ``command`` may be a number that nobody knows."""

    command: int
    flags: int
    cookie: int
    offset: int
    length: int
    payload: memoryview


def receive_request() -> Exchange[IncomingRequest]:
    """Receive one request, with its payload if it is a write.

    Raises:
        NbdProtocolError: what comes is no request, or carries more than we take; hang up.
    """
    header = yield from receive(protocol.REQUEST.size)
    magic, flags, command, cookie, offset, length = protocol.REQUEST.unpack(header)
    if magic != protocol.REQUEST_MAGIC:
        raise NbdProtocolError(f"no request where one was due ({magic:#x})")
    payload = memoryview(b"")
    if command == Command.WRITE and length:
        if length > protocol.MAX_PAYLOAD:
            raise NbdProtocolError(f"a write of {length} bytes; {protocol.MAX_PAYLOAD} are allowed")
        payload = memoryview(bytearray(length))
        yield payload
    return IncomingRequest(command, flags, cookie, offset, length, payload)


def objection(
    request: IncomingRequest, size: int, offered: TransmissionFlag, *, contexts: bool
) -> Errno | None:
    """Say why a request makes no sense for an export, whatever is on its disk."""
    allowed = next((flags for known, flags in _ALLOWED_FLAGS.items() if known == request.command), None)
    if allowed is None or request.flags & ~int(allowed):
        return Errno.EINVAL
    command = Command(request.command)
    if command in _WRITING and TransmissionFlag.READ_ONLY in offered:
        return Errno.EPERM
    if command in _NEEDED and _NEEDED[command] not in offered:
        return Errno.EINVAL
    if command is Command.BLOCK_STATUS and not contexts:
        return Errno.EINVAL
    return None if command is Command.FLUSH else _range_objection(command, request, size)


def _range_objection(command: Command, request: IncomingRequest, size: int) -> Errno | None:
    if request.offset + request.length > size:
        return Errno.ENOSPC if command in _WRITING else Errno.EINVAL
    too_long = command is Command.READ and request.length > protocol.MAX_PAYLOAD
    empty = command is Command.BLOCK_STATUS and not request.length
    return Errno.EINVAL if too_long or empty else None


def pack_done(cookie: int, *, structured: bool) -> bytes:
    """Make the reply that a request without data has succeeded."""
    if structured:
        return _chunk(cookie, Chunk.NONE, 0, done=True)
    return protocol.SIMPLE_REPLY.pack(protocol.SIMPLE_REPLY_MAGIC, 0, cookie)


def pack_error(cookie: int, errno: Errno, text: str, *, structured: bool) -> bytes:
    """Make the reply that a request has failed."""
    if not structured:
        return protocol.SIMPLE_REPLY.pack(protocol.SIMPLE_REPLY_MAGIC, errno, cookie)
    raw = text.encode()[: protocol.MAX_STRING]
    body = protocol.U32.pack(errno) + protocol.U16.pack(len(raw)) + raw
    return _chunk(cookie, Chunk.ERROR, len(body), done=True) + body


def pack_data_header(cookie: int, offset: int, length: int, *, structured: bool) -> bytes:
    """Make what comes before the ``length`` bytes (at least one) of a read."""
    if not structured:
        return protocol.SIMPLE_REPLY.pack(protocol.SIMPLE_REPLY_MAGIC, 0, cookie)
    return _chunk(cookie, Chunk.OFFSET_DATA, 8 + length, done=True) + protocol.U64.pack(offset)


def pack_status(cookie: int, context: int, runs: list[Run], *, done: bool) -> bytes:
    """Make the answer about block status in one meta context; ``runs`` has at least one."""
    body = protocol.U32.pack(context) + b"".join(protocol.STATUS_DESCRIPTOR.pack(*run) for run in runs)
    return _chunk(cookie, Chunk.BLOCK_STATUS, len(body), done=done) + body


def _chunk(cookie: int, kind: Chunk, length: int, *, done: bool) -> bytes:
    flags = protocol.CHUNK_DONE if done else 0
    return protocol.STRUCTURED_REPLY.pack(protocol.STRUCTURED_REPLY_MAGIC, flags, kind, cookie, length)
