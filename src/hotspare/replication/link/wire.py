"""What goes over a connection between agents. No input or output here.

The caller sends a call, the other side answers it, and so on:

    length of header (4) | length of body (4) | header: JSON | body
"""

import struct
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import msgspec

from hotspare import errors
from hotspare.errors import HotspareError, PlatformUnavailable
from hotspare.units import MIB

HEADER_MAX = 4 * MIB
BODY_MAX = 16 * MIB
LENGTHS = struct.Struct(">II")

Arguments = TypeVar("Arguments")
Result = TypeVar("Result")


Who = Literal["local", "peer", "stranger"]
"""The command line of the same host; an agent that we were paired with; anybody who comes to the port."""


LOCAL: frozenset[Who] = frozenset({"local"})
PEER: frozenset[Who] = frozenset({"peer"})
LOCAL_AND_PEER: frozenset[Who] = LOCAL | PEER
STRANGER: frozenset[Who] = frozenset({"stranger", "peer"})


class Nothing(msgspec.Struct, frozen=True):
    """No arguments, or no result."""


NOTHING = Nothing()


@dataclass(frozen=True, slots=True)
class Verb(Generic[Arguments, Result]):
    """Something that one agent can ask of another; both the call and the answer may carry a body of bytes."""

    name: str
    """``replica.points``: the part of the program that answers, and what it is asked."""
    arguments: type[Arguments]
    result: type[Result]
    audience: frozenset[Who] = LOCAL_AND_PEER
    """Who may ask it."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """The header of a call."""

    verb: str
    arguments: msgspec.Raw


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An error of ours, on its way."""

    code: str
    what: str
    meaning: str
    hint: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The header of an answer."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    """Null when there is a failure. (Not optional: msgspec cannot tell raw JSON from null.)"""
    failure: Failure | None = None


class LinkProtocolError(Exception):
    """The other side does not speak this protocol."""


def encode_frame(header: msgspec.Struct, body_length: int) -> bytes:
    """Give all of a frame but its body. Raises ``ValueError`` for what is too long."""
    encoded = msgspec.json.encode(header)
    if len(encoded) > HEADER_MAX or body_length > BODY_MAX:
        raise ValueError(f"a frame of {len(encoded)} and {body_length} bytes")
    return LENGTHS.pack(len(encoded), body_length) + encoded


def decode_lengths(data: bytes) -> tuple[int, int]:
    """Read the beginning of a frame. Raises ``LinkProtocolError``."""
    header, body = LENGTHS.unpack(data)
    if header > HEADER_MAX or body > BODY_MAX:
        raise LinkProtocolError(f"a frame of {header} and {body} bytes")
    return header, body


def failure_of(error: HotspareError) -> Failure:
    """Put an error into words that travel."""
    return Failure(code=error.code, what=error.what, meaning=error.meaning, hint=error.hint)


def error_of(failure: Failure) -> HotspareError:
    """Make the error again, of the class that it had."""
    kind = _KINDS.get(failure.code, HotspareError)
    return kind(failure.what, meaning=failure.meaning, hint=failure.hint)


_KINDS = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, HotspareError)
}


class PeerUnavailable(PlatformUnavailable):
    """The other host's agent does not answer."""
