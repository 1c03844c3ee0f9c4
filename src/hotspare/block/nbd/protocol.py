"""The numbers and fixed layouts of NBD, and the shape that all its code without I/O has.

Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, sections "Protocol phases",
"Values" and "Transmission phase". All integers are big-endian.

A conversation is written as a generator, an ``Exchange``. It yields ``bytes`` that have to be sent, or a
writable ``memoryview`` that has to be filled completely with what the peer sends, and returns its result.
So the code reads from top to bottom like the specification, can be tested without sockets, and the payload
of a read goes straight from the socket into the buffer of whoever asked for it.
"""

import struct
from collections.abc import Generator
from enum import IntEnum, IntFlag
from typing import TypeVar

T = TypeVar("T")

Exchange = Generator[bytes | memoryview, None, T]

GREETING_MAGIC = 0x4E42444D41474943
OPTION_MAGIC = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF

GREETING = struct.Struct(">QQH")
CLIENT_FLAGS = struct.Struct(">I")
OPTION = struct.Struct(">QII")
OPTION_REPLY = struct.Struct(">QIII")
INFO_EXPORT = struct.Struct(">HQH")
INFO_BLOCK_SIZE = struct.Struct(">HIII")
EXPORT_NAME_REPLY = struct.Struct(">QH")
REQUEST = struct.Struct(">IHHQQI")
SIMPLE_REPLY = struct.Struct(">IIQ")
STRUCTURED_REPLY = struct.Struct(">IHHQI")
STATUS_DESCRIPTOR = struct.Struct(">II")
HOLE = struct.Struct(">QI")
U16 = struct.Struct(">H")
U32 = struct.Struct(">I")
U64 = struct.Struct(">Q")

EXPORT_NAME_PADDING = 124
"""Zeroes after the answer to NBD_OPT_EXPORT_NAME unless both sides agreed on leaving them out."""

MAX_STRING = 4096
"""Longest string of the protocol (section "String values")."""
MAX_OPTION_PAYLOAD = 64 * 1024
"""Most that we take for one option or one reply to it."""
MAX_OPTION_REPLIES = 4096
"""Most replies that we take to one option: as many exports can be listed."""
MAX_QUERIES = 64
"""Most meta contexts that we negotiate at once."""
MAX_PAYLOAD = 32 * 1024 * 1024
"""Largest read or write; what the specification lets a client assume where nothing was negotiated."""
MAX_STATUS_DESCRIPTORS = 2 * 1024 * 1024
"""Most runs in one answer about block status; nbdkit sends up to 1 Mi, QEMU up to 128 Ki."""
MAX_ERROR_CHUNKS = 64
"""Most error chunks in one structured reply."""


class NbdProtocolError(Exception):
    """The peer sent something that the protocol does not allow, or more than we are ready to take."""


class NbdRefusedError(Exception):
    """The server answered an option with an error reply.

    Attributes:
        error: the ``OptionReply`` number.
        text: what the server says about it, possibly empty.
    """

    def __init__(self, option: int, error: int, text: str) -> None:
        super().__init__(f"option {option} was refused with {error:#x}: {text}")
        self.error = error
        self.text = text


class HandshakeFlag(IntFlag):
    """What server and client can do, before any option (section "Handshake phase")."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class Option(IntEnum):
    """What a client can ask for while negotiating (section "Option types")."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


REPLY_ERROR_BIT = 1 << 31


class OptionReply(IntEnum):
    """How a server answers an option (section "Option reply types")."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = REPLY_ERROR_BIT + 1
    ERR_POLICY = REPLY_ERROR_BIT + 2
    ERR_INVALID = REPLY_ERROR_BIT + 3
    ERR_PLATFORM = REPLY_ERROR_BIT + 4
    ERR_TLS_REQD = REPLY_ERROR_BIT + 5
    ERR_UNKNOWN = REPLY_ERROR_BIT + 6
    ERR_SHUTDOWN = REPLY_ERROR_BIT + 7
    ERR_BLOCK_SIZE_REQD = REPLY_ERROR_BIT + 8
    ERR_TOO_BIG = REPLY_ERROR_BIT + 9


class Info(IntEnum):
    """What NBD_OPT_INFO and NBD_OPT_GO tell about an export."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class TransmissionFlag(IntFlag):
    """What an export can do (section "Transmission flags")."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8


class Command(IntEnum):
    """What a client can ask for in the transmission phase (section "Request types")."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class CommandFlag(IntFlag):
    """Modifiers of one request (section "Command flags")."""

    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2
    REQ_ONE = 1 << 3


class Chunk(IntEnum):
    """Kinds of chunks of a structured reply (section "Structured reply types")."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = (1 << 15) + 1
    ERROR_OFFSET = (1 << 15) + 2


CHUNK_DONE = 1 << 0
CHUNK_ERROR_BIT = 1 << 15

BASE_ALLOCATION = "base:allocation"
"""The one meta context that the specification itself defines (section "Metadata querying")."""


class Allocation(IntFlag):
    """Flags of ``base:allocation``."""

    HOLE = 1 << 0
    ZERO = 1 << 1


class Errno(IntEnum):
    """Errors of requests as numbers on the wire (section "Error values")."""

    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


def receive(length: int, limit: int = MAX_OPTION_PAYLOAD) -> Exchange[bytes]:
    """Receive ``length`` bytes; a length above ``limit`` is refused before memory is taken.

    Raises:
        NbdProtocolError: the peer announces more than ``limit``.
    """
    if length > limit:
        raise NbdProtocolError(f"{length} bytes announced where at most {limit} are sensible")
    buffer = bytearray(length)
    if length:
        yield memoryview(buffer)
    return bytes(buffer)


def decode_text(raw: bytes) -> str:
    """Read a string of the protocol.

    Raises:
        NbdProtocolError: it is too long or not UTF-8.
    """
    if len(raw) > MAX_STRING:
        raise NbdProtocolError(f"a string of {len(raw)} bytes; {MAX_STRING} are allowed")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise NbdProtocolError("a string that is not UTF-8") from None


def encode_text(text: str) -> bytes:
    """Give a string its 32-bit length."""
    raw = text.encode()
    return U32.pack(len(raw)) + raw


def pack_option(option: int, payload: bytes = b"") -> bytes:
    """Make the message that carries one option."""
    return OPTION.pack(OPTION_MAGIC, option, len(payload)) + payload


def pack_option_reply(option: int, reply: int, payload: bytes = b"") -> bytes:
    """Make one reply to an option."""
    return OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, reply, len(payload)) + payload


def pack_contexts(export: str, queries: list[str]) -> bytes:
    """Make the payload of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT."""
    return encode_text(export) + U32.pack(len(queries)) + b"".join(map(encode_text, queries))
