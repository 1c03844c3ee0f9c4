"""Requests and replies without I/O: what is right, what is wrong, and arbitrary bytes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.block.nbd import protocol
from hotspare.block.nbd.protocol import (
    Chunk,
    Command,
    CommandFlag,
    Errno,
    NbdProtocolError,
    TransmissionFlag,
)
from hotspare.block.nbd.replies import ReplyReceiver, Request
from hotspare.block.nbd.requests import IncomingRequest, objection, pack_status, receive_request
from tests.block.nbd.exchanges import StarvedError, feed

FLAGS = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH


def chunk(kind: int, body: bytes, *, done: bool = False, cookie: int = 1, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return protocol.STRUCTURED_REPLY.pack(protocol.STRUCTURED_REPLY_MAGIC, done, kind, cookie, size) + body


def data(offset: int, body: bytes) -> bytes:
    return chunk(Chunk.OFFSET_DATA, protocol.U64.pack(offset) + body)


def hole(offset: int, length: int) -> bytes:
    return chunk(Chunk.OFFSET_HOLE, protocol.HOLE.pack(offset, length))


def error(errno: int, text: bytes = b"", kind: int = Chunk.ERROR) -> bytes:
    return chunk(kind, struct.pack(">IH", errno, len(text)) + text + bytes(8 * (kind == Chunk.ERROR_OFFSET)))


DONE = chunk(Chunk.NONE, b"", done=True)


def receiver_of(
    command: Command, offset: int = 100, length: int = 8
) -> tuple[ReplyReceiver, bytearray, Request]:
    buffer = bytearray(b"?" * length)
    view = memoryview(buffer) if command is Command.READ else None
    request = Request(command, offset, length, view)
    receiver = ReplyReceiver(structured=True, contexts=frozenset({1, 2}))
    receiver.submit(request)
    return receiver, buffer, request


@pytest.mark.parametrize(
    "reply",
    [
        data(100, b"abcdefgh") + DONE,
        data(104, b"efgh") + data(100, b"abcd") + DONE,
        data(100, b"ab") + data(105, b"fgh") + data(102, b"cde") + DONE,
    ],
)
def test_data_may_come_in_any_order(reply: bytes) -> None:
    receiver, buffer, request = receiver_of(Command.READ)
    result, _sent = feed(receiver.receive_one(), reply)
    assert result is request
    assert buffer == b"abcdefgh"
    assert not receiver.in_flight()


def test_holes_are_filled_with_zeroes() -> None:
    receiver, buffer, _request = receiver_of(Command.READ)
    feed(receiver.receive_one(), hole(101, 6) + data(100, b"a") + data(107, b"h") + DONE)
    assert buffer == b"a\0\0\0\0\0\0h"


@pytest.mark.parametrize("kind", [Chunk.ERROR, Chunk.ERROR_OFFSET, 0x8FFF])
def test_errors_end_a_request_only_when_it_is_done(kind: int) -> None:
    receiver, _buffer, _request = receiver_of(Command.READ)
    result, _sent = feed(receiver.receive_one(), error(5, b"bad sector", kind) + hole(100, 8) + DONE)
    assert result.error is not None
    assert (result.error.errno, result.error.text) == (Errno.EIO, "bad sector")


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (DONE, "without the bytes"),
        (data(100, b"abc") + DONE, "leaves bytes out"),
        (data(100, b"abcd") + hole(103, 5) + DONE, "twice"),
        (data(100, b"abcd") + data(100, b"abcd") + DONE, "twice"),
        (data(99, b"ab"), "outside"),
        (data(107, b"ab"), "outside"),
        (hole(100, 0), "outside"),
        (hole(100, 0xFFFFFFFF), "outside"),
        (chunk(Chunk.OFFSET_DATA, protocol.U64.pack(100), length=0xFFFFFFFF), "outside"),
        (chunk(Chunk.OFFSET_DATA, b"12345678"), "without data"),
        (chunk(Chunk.NONE, b""), "final chunk"),
        (chunk(3, b""), "unknown chunk"),
        (chunk(Chunk.NONE, b"", done=True, cookie=7), "not in flight"),
        (error(0), "error chunk"),
        (error(5) * 65, "too many"),
        (chunk(Chunk.ERROR, b"\0\0\0\5\0\7abc"), "error chunk"),
        (chunk(Chunk.ERROR, b"", length=1 << 31), "announced"),
        (chunk(Chunk.BLOCK_STATUS, bytes(12)), "block status"),
        (protocol.SIMPLE_REPLY.pack(protocol.SIMPLE_REPLY_MAGIC, 0, 1), "simple reply"),
        (b"\0\0\0\0", "no reply"),
    ],
)
def test_wrong_replies_to_a_read_are_found(reply: bytes, complaint: str) -> None:
    receiver, _buffer, _request = receiver_of(Command.READ)
    with pytest.raises(NbdProtocolError, match=complaint):
        feed(receiver.receive_one(), reply)


FIRST, SECOND = (pack_status(1, number, [(8, 3)], done=False) for number in (1, 2))


def test_status_of_all_contexts_arrives() -> None:
    receiver, _buffer, request = receiver_of(Command.BLOCK_STATUS)
    feed(receiver.receive_one(), SECOND + pack_status(1, 1, [(3, 0), (9, 2)], done=True))
    assert request.status == {1: [(3, 0), (9, 2)], 2: [(8, 3)]}


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (FIRST + DONE, "without all"),
        (FIRST + FIRST, "not due"),
        (pack_status(1, 3, [(8, 0)], done=True), "not due"),
        (pack_status(1, 1, [(0, 0)], done=True), "no bytes"),
        (pack_status(1, 1, [], done=True), "malformed"),
        (chunk(Chunk.BLOCK_STATUS, b"", length=0xFFFFFFFC), "announced"),
        (data(100, b"abcdefgh"), "outside"),
        (protocol.SIMPLE_REPLY.pack(protocol.SIMPLE_REPLY_MAGIC, 0, 1), "simple reply"),
    ],
)
def test_wrong_replies_about_status_are_found(reply: bytes, complaint: str) -> None:
    receiver, _buffer, _request = receiver_of(Command.BLOCK_STATUS)
    with pytest.raises(NbdProtocolError, match=complaint):
        feed(receiver.receive_one(), reply)


PIECES = st.one_of(
    st.builds(data, st.integers(98, 109), st.binary(min_size=1, max_size=9)),
    st.builds(hole, st.integers(98, 109), st.integers(0, 9)),
    st.builds(error, st.integers(0, 200), st.binary(max_size=5)),
    st.builds(chunk, st.integers(0, 65535), st.binary(max_size=30), done=st.booleans()),
    st.just(DONE),
    st.binary(max_size=40),
)


@given(st.lists(PIECES, max_size=12).map(b"".join), st.sampled_from([Command.READ, Command.BLOCK_STATUS]))
def test_a_client_survives_any_reply(received: bytes, command: Command) -> None:
    receiver, buffer, request = receiver_of(command)
    try:
        feed(receiver.receive_one(), received)
    except (NbdProtocolError, StarvedError):
        return
    assert request.done
    if request.error is None and command is Command.READ:
        assert request.filled == [(0, len(buffer))]


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(protocol.U32.pack(0x25609513).__add__)))
def test_a_server_survives_any_request(received: bytes) -> None:
    try:
        request, _sent = feed(receive_request(), received)
    except (NbdProtocolError, StarvedError):
        return
    objection(request, 4096, FLAGS, contexts=True)


def test_writes_that_are_too_long_are_refused_before_memory_is_taken() -> None:
    header = protocol.REQUEST.pack(protocol.REQUEST_MAGIC, 0, Command.WRITE, 1, 0, protocol.MAX_PAYLOAD + 1)
    with pytest.raises(NbdProtocolError, match="a write of"):
        feed(receive_request(), header)


ALL = FLAGS | TransmissionFlag.SEND_TRIM | TransmissionFlag.SEND_WRITE_ZEROES


@pytest.mark.parametrize(
    ("command", "flags", "offset", "length", "offered", "expected"),
    [
        (Command.READ, 0, 0, 4096, ALL, None),
        (Command.READ, CommandFlag.DF, 4095, 1, ALL, None),
        (Command.READ, 0, 4095, 2, ALL, Errno.EINVAL),
        (Command.READ, 0, 2**64 - 1, 1, ALL, Errno.EINVAL),
        (Command.READ, CommandFlag.NO_HOLE, 0, 1, ALL, Errno.EINVAL),
        (Command.WRITE, 0, 4096, 1, ALL, Errno.ENOSPC),
        (Command.WRITE, 0, 0, 1, ALL | TransmissionFlag.READ_ONLY, Errno.EPERM),
        (Command.WRITE_ZEROES, CommandFlag.NO_HOLE, 0, 1, ALL, None),
        (Command.WRITE_ZEROES, 0, 0, 1, FLAGS, Errno.EINVAL),
        (Command.TRIM, 0, 0, 1, FLAGS, Errno.EINVAL),
        (Command.FLUSH, 0, 0, 0, ALL, None),
        (Command.FLUSH, 0, 0, 0, TransmissionFlag.HAS_FLAGS, Errno.EINVAL),
        (Command.BLOCK_STATUS, CommandFlag.REQ_ONE, 0, 1, ALL, None),
        (Command.BLOCK_STATUS, 0, 0, 0, ALL, Errno.EINVAL),
        (5, 0, 0, 1, ALL, Errno.EINVAL),
        (999, 0, 0, 1, ALL, Errno.EINVAL),
    ],
)
def test_requests_that_make_no_sense_are_objected_to(
    command: int, flags: int, offset: int, length: int, offered: TransmissionFlag, expected: Errno | None
) -> None:
    request = IncomingRequest(command, flags, 1, offset, length, memoryview(b""))
    assert objection(request, 4096, offered, contexts=True) is expected
