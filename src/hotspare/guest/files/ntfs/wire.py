"""What the worker and its master say to each other: frames of MessagePack over pipes.

The master sends one ``Request`` at a time. The worker answers with ``Done`` or ``Failed``, and before that as
often as it needs to with ``NeedBlock``, to which the master replies with a frame of nothing but those bytes.
Names and paths are bytes: not all are UTF-8. The worker is not believed: what it says is checked while it is
decoded.
"""

import os
from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

from hotspare.errors import FileSystemUnreadable, PathNotFound
from hotspare.guest.files.file_system import FileEntry, Kind, NeedsAppliance

FRAME_MAX = 64 * 1024 * 1024
"""Bytes; neither side makes a longer one."""
BATCH = 512
"""Entries in one answer."""
READ_MAX = 1024 * 1024
"""Bytes of content in one answer."""
_PIECE = 1 << 20

T = TypeVar("T")


class Ended(Exception):
    """The other side is gone, or says what makes no sense."""


class Request(msgspec.Struct, array_like=True):
    """A question to the worker. What the fields mean depends on the verb."""

    verb: str
    path: bytes = b""
    stream: bytes = b""
    number: int = 0
    offset: int = 0
    length: int = 0


class NeedBlock(msgspec.Struct, array_like=True, tag=True):
    """The worker needs bytes of the volume."""

    offset: int
    length: int


class Done(msgspec.Struct, array_like=True, tag=True):
    """The answer."""

    value: msgspec.Raw


class Failed(msgspec.Struct, array_like=True, tag=True):
    """The question ended in an error."""

    sort: Literal["damage", "no-path", "appliance"]
    what: str
    meaning: str
    hint: str


class WireEntry(msgspec.Struct, array_like=True):
    """A ``FileEntry``, as far as NTFS has what it tells."""

    path: bytes
    kind: Kind
    size: int
    modified: int
    inode: int
    links: int
    target: bytes
    streams: list[bytes]


class Batch(msgspec.Struct, array_like=True):
    """Some of many entries: mostly as they are, all the others where one has a name that is no UTF-8."""

    entries: list[FileEntry]
    odd: list[WireEntry]
    more: bool


class Opened(msgspec.Struct, array_like=True):
    """An open content."""

    number: int
    size: int


_encoder = msgspec.msgpack.Encoder()
_answers = msgspec.msgpack.Decoder(NeedBlock | Done | Failed)
_requests = msgspec.msgpack.Decoder(Request)


def send(fd: int, message: msgspec.Struct) -> None:
    """Write a message as a frame."""
    send_bytes(fd, _encoder.encode(message))


def send_bytes(fd: int, frame: bytes | bytearray) -> None:
    """Write a frame, its length before it."""
    view = memoryview(len(frame).to_bytes(4, "big") + frame)
    try:
        while view:
            view = view[os.write(fd, view[:_PIECE]) :]
    except OSError as error:
        raise Ended("the other side is gone") from error


def receive_bytes(fd: int, wait: Callable[[], None] = lambda: None) -> bytes:
    """Read a frame; ``wait`` returns when there is something to read, or raises."""
    length = int.from_bytes(_exactly(fd, 4, wait), "big")
    if length > FRAME_MAX:
        raise Ended("a frame is too long")
    return _exactly(fd, length, wait)


def receive_request(fd: int) -> Request:
    """Read the master's next question."""
    return _requests.decode(receive_bytes(fd))


def receive_answer(fd: int, wait: Callable[[], None]) -> NeedBlock | Done | Failed:
    """Read what the worker says next."""
    try:
        found: NeedBlock | Done | Failed = _answers.decode(receive_bytes(fd, wait))
    except msgspec.MsgspecError as error:
        raise Ended("it says what makes no sense") from error
    return found


def batch(entries: list[FileEntry]) -> Done:
    """Make an answer of the next entries of a listing."""
    more = len(entries) == BATCH
    try:
        return done(Batch(entries, [], more))
    except UnicodeEncodeError:
        return done(Batch([], [to_wire(entry) for entry in entries], more))


def done(value: object) -> Done:
    """Make an answer."""
    return Done(msgspec.Raw(_encoder.encode(value)))


def value_of(answer: Done, expected: type[T]) -> T:
    """Take an answer apart."""
    try:
        return msgspec.msgpack.decode(answer.value, type=expected)
    except msgspec.MsgspecError as error:
        raise Ended("it says what makes no sense") from error


def failed(error: FileSystemUnreadable | PathNotFound) -> Failed:
    """Turn an error into an answer."""
    if isinstance(error, NeedsAppliance):
        return Failed("appliance", _plain(error.reason), error.kind, "")
    sort: Literal["damage", "no-path"] = "no-path" if isinstance(error, PathNotFound) else "damage"
    return Failed(sort, _plain(error.what), _plain(error.meaning), error.hint)


def error_of(answer: Failed) -> FileSystemUnreadable | PathNotFound:
    """Turn an answer back into an error."""
    if answer.sort == "appliance":
        return NeedsAppliance(answer.meaning, answer.what)
    sort = PathNotFound if answer.sort == "no-path" else FileSystemUnreadable
    return sort(answer.what, meaning=answer.meaning, hint=answer.hint)


def to_wire(entry: FileEntry) -> WireEntry:
    """Make an entry ready to be sent."""
    return WireEntry(
        os.fsencode(entry.path),
        entry.kind,
        entry.size,
        entry.modified,
        entry.inode,
        entry.links,
        os.fsencode(entry.target),
        [os.fsencode(name) for name in entry.streams],
    )


def from_wire(entry: WireEntry) -> FileEntry:
    """Make an entry of what was sent."""
    return FileEntry(
        path=os.fsdecode(entry.path),
        kind=entry.kind,
        size=entry.size,
        modified=entry.modified,
        inode=entry.inode,
        links=entry.links,
        target=os.fsdecode(entry.target),
        streams=tuple(os.fsdecode(name) for name in entry.streams),
    )


def _plain(text: str) -> str:
    """Replace what UTF-8 cannot carry."""
    return text.encode(errors="replace").decode()


def _exactly(fd: int, length: int, wait: Callable[[], None]) -> bytes:
    pieces = []
    while length:
        wait()
        piece = os.read(fd, min(length, _PIECE))
        if not piece:
            raise Ended("the other side is gone")
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)
