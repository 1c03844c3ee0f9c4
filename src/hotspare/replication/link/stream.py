"""Frames on a socket."""

import socket
from typing import TypeVar

import msgspec
from typing_extensions import Buffer

from hotspare.replication.link.wire import LENGTHS, LinkProtocolError, decode_lengths

Header = TypeVar("Header", bound=msgspec.Struct)


def write_frame(connection: socket.socket, head: bytes, body: Buffer) -> None:
    """Send a frame. Raises ``OSError``."""
    connection.sendall(head)
    if memoryview(body).nbytes:
        connection.sendall(body)


def read_frame(connection: socket.socket, kind: type[Header]) -> tuple[Header, bytes] | None:
    """Give the next frame; None when the other side has ended the connection between two.

    Raises:
        LinkProtocolError: what came is no frame.
        OSError: the connection is lost, or nothing came within its timeout.
    """
    lengths = _read(connection, LENGTHS.size, may_end=True)
    if not lengths:
        return None
    header_length, body_length = decode_lengths(bytes(lengths))
    header = _read(connection, header_length)
    body = _read(connection, body_length)
    try:
        return msgspec.json.decode(header, type=kind), bytes(body)
    except msgspec.DecodeError as error:
        raise LinkProtocolError(f"a header that cannot be read: {error}") from error


def _read(connection: socket.socket, length: int, *, may_end: bool = False) -> bytearray:
    buffer = bytearray(length)
    view = memoryview(buffer)
    got = 0
    while got < length:
        count = connection.recv_into(view[got:])
        if not count:
            if may_end and not got:
                return bytearray()
            raise ConnectionResetError("the other side has ended the connection")
        got += count
    return buffer
