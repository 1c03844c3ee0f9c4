"""Messages on a stream of bytes. No input or output here.

Each side begins with eight bytes that name the protocol, and goes on with frames:

    length of header (2) | length of body (4) | header: msgpack array, a message | body
"""

import struct
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

import msgspec

from hotspare.units import MIB

HEADER_MAX = 60 * 1024
BODY_MAX = MIB
_LENGTHS = struct.Struct(">HI")
_encoder = msgspec.msgpack.Encoder()

Spoken = TypeVar("Spoken")


class ProtocolError(Exception):
    """The other side does not speak this protocol, or breaks its rules."""


class Frame(NamedTuple, Generic[Spoken]):
    """One message with its body."""

    message: Spoken
    body: bytes = b""


def encode_head(message: msgspec.Struct, body_length: int = 0) -> bytes:
    """Give all of a frame but its body. Raises ``ValueError`` for a message that is too long."""
    header = _encoder.encode(message)
    if len(header) > HEADER_MAX or body_length > BODY_MAX:
        raise ValueError(f"a message of {len(header)} and {body_length} bytes")
    return _LENGTHS.pack(len(header), body_length) + header


class FrameDecoder(Generic[Spoken]):
    """Turns bytes, as they arrive, into frames; holds no more than one frame and what was fed last."""

    def __init__(self, magic: bytes, decoder: msgspec.msgpack.Decoder[Spoken]) -> None:
        self._magic = magic
        self._decoder = decoder
        self._buffer = bytearray()
        self._greeted = False

    @property
    def in_frame(self) -> bool:
        """Whether part of a frame has arrived."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> Iterator[Frame[Spoken]]:
        """Take in bytes and yield the frames that are complete. Raises ``ProtocolError``."""
        self._buffer += data
        if not self._greeted:
            greeting = bytes(self._buffer[: len(self._magic)])
            if not self._magic.startswith(greeting):
                raise ProtocolError("what came is not of this protocol")
            if len(greeting) < len(self._magic):
                return
            self._greeted = True
            del self._buffer[: len(self._magic)]
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame[Spoken] | None:
        if len(self._buffer) < _LENGTHS.size:
            return None
        header_length, body_length = _LENGTHS.unpack_from(self._buffer)
        if header_length > HEADER_MAX or body_length > BODY_MAX:
            raise ProtocolError(f"a frame of {header_length} and {body_length} bytes")
        body_at = _LENGTHS.size + header_length
        end = body_at + body_length
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            header, body = bytes(view[_LENGTHS.size : body_at]), bytes(view[body_at:end])
        del self._buffer[:end]
        try:
            return Frame(self._decoder.decode(header), body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolError(f"a message that cannot be read: {error}") from error
