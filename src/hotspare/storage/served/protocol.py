"""What goes over the wire between the program that serves a folder and its client. No input or output here.

Messages travel with their bodies in the frames of ``frames.py``. The client speaks first (``Hello``), the
server answers ``Welcome`` or ``Failed``. After that requests carry a number, and answers come in any order,
so many can be under way. Bytes of objects travel in ``Piece`` frames of at most ``PIECE_MAX``, so that a
large object does not hold up small ones.

    Put, Piece ... (until all of its bytes are there)  -> Done | Failed
    Get                                                -> Sending, Piece ..., Done | Failed
    Size                                               -> Done
    List                                               -> Listed ..., Done | Failed
    Delete                                             -> Done | Failed
    AskSpace                                           -> SpaceLeft | Failed
"""

from collections.abc import Sequence

import msgspec

from hotspare.errors import HotspareError
from hotspare.storage.backend import Access, Durability, ObjectInfo
from hotspare.storage.served.frames import BODY_MAX, FrameDecoder, ProtocolError

MAGIC = b"HSSERV\x00\x01"
VERSION = 1
PIECE_MAX = BODY_MAX
LISTED_MAX = 2000
"""Objects in one ``Listed``: names have at most 512 bytes."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """The client's first words."""

    version: int
    program: str
    """Version of the program, for messages."""
    folder: str
    """The folder it wants, as the user wrote it."""


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="welcome"):
    """The server's first words."""

    version: int
    program: str
    access: Access
    durability: Durability
    own_prefix: str
    """What is below can be replaced and removed only by who names the digest of what is there; or empty."""
    offers: tuple[str, ...] = ()
    """What the server knows beyond the first servers of this version: ``space`` for ``AskSpace``."""


class Put(msgspec.Struct, frozen=True, array_like=True, tag="put"):
    """Store an object of ``size`` bytes, which follow."""

    id: int
    name: str
    size: int
    known: tuple[bytes, ...] = ()
    """BLAKE3-256 digests, one of which is that of the object that is replaced."""


class Get(msgspec.Struct, frozen=True, array_like=True, tag="get"):
    """Give ``length`` bytes from ``offset``; None for all that follow."""

    id: int
    name: str
    offset: int
    length: int | None


class Size(msgspec.Struct, frozen=True, array_like=True, tag="size"):
    """Give an object's size."""

    id: int
    name: str


class List(msgspec.Struct, frozen=True, array_like=True, tag="list"):
    """Give all objects whose names begin with ``prefix``."""

    id: int
    prefix: str


class Delete(msgspec.Struct, frozen=True, array_like=True, tag="delete"):
    """Remove an object; ``known`` as in ``Put``."""

    id: int
    name: str
    known: tuple[bytes, ...] = ()


class AskSpace(msgspec.Struct, frozen=True, array_like=True, tag="ask-space"):
    """Say how full the file system is; only to a server that offers ``space``."""

    id: int


class SpaceLeft(msgspec.Struct, frozen=True, array_like=True, tag="space-left"):
    """The answer to ``AskSpace``. Bytes."""

    id: int
    free: int
    total: int


class Piece(msgspec.Struct, frozen=True, array_like=True, tag="piece"):
    """The body is the next bytes of the object of request ``id``."""

    id: int


class Sending(msgspec.Struct, frozen=True, array_like=True, tag="sending"):
    """``size`` bytes follow in pieces."""

    id: int
    size: int


class Listed(msgspec.Struct, frozen=True, array_like=True, tag="listed"):
    """The body is the next objects of a listing, by name: msgpack of [name, size] pairs."""

    id: int


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """The request has been fulfilled; ``value`` is the answer to ``Size``."""

    id: int
    value: int = 0


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """The request has failed: an error of ours. ``id`` is 0 when the client was not let in."""

    id: int
    code: str
    what: str
    meaning: str
    hint: str
    may_pass: bool


SPACE = "space"
Request = Put | Get | Size | List | Delete | AskSpace | Piece
Answer = Sending | Piece | Listed | SpaceLeft | Done | Failed
Message = Hello | Welcome | Request | Answer

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)
_listing_decoder = msgspec.msgpack.Decoder(list[ObjectInfo])


def encode_listing(objects: Sequence[ObjectInfo]) -> bytes:
    """Give the body of a ``Listed``."""
    return _encoder.encode(objects)


def decode_listing(body: bytes) -> list[ObjectInfo]:
    """Read the body of a ``Listed``. Raises ``ProtocolError``."""
    try:
        return _listing_decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"a listing that cannot be read: {error}") from error


def failure(request: int, error: HotspareError) -> Failed:
    """Put an error into a message; what does not fit is cut off."""
    may_pass = bool(getattr(error, "may_pass", False))
    what, meaning, hint = (text[:2000] for text in (error.what, error.meaning, error.hint))
    return Failed(request, error.code, what, meaning, hint, may_pass)


def frame_decoder() -> FrameDecoder[Message]:
    """Give a decoder for one direction of a conversation."""
    return FrameDecoder(MAGIC, _decoder)
