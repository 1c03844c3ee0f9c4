"""A way to a server, and the requests that are under way there, from many threads."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from typing_extensions import Buffer

from hotspare import __version__, errors
from hotspare.errors import HotspareError, StorageError
from hotspare.storage.backend import ObjectInfo, Space
from hotspare.storage.served.frames import Frame, ProtocolError, encode_head
from hotspare.storage.served.protocol import (
    MAGIC,
    PIECE_MAX,
    VERSION,
    Answer,
    Done,
    Failed,
    Get,
    Hello,
    Listed,
    Message,
    Piece,
    Put,
    Request,
    Sending,
    SpaceLeft,
    Welcome,
    decode_listing,
    frame_decoder,
)
from hotspare.storage.served.transport import Transport, printable

_GREETING_PATIENCE = 60.0
"""Seconds for the way to the server, the login and the first answer."""
_END_PATIENCE = 5.0
_OBJECT_MAX = 4 << 30
"""Bytes; no object of a repository is larger."""

_KINDS: dict[str, type[HotspareError]] = {
    kind.code: kind
    for kind in (errors.ObjectNotFound, errors.PermissionRefused, errors.NoSpace, errors.StorageError)
}


class Call:
    """One request that waits for its answer."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.value = 0
        self.pieces: list[bytes] = []
        self.objects: list[ObjectInfo] = []
        self.space: Space | None = None
        self.error: HotspareError | None = None
        self._left = 0

    def take(self, message: Answer, body: bytes, url: str) -> None:
        """Take in a part of the answer. Raises ``ProtocolError``."""
        match message:
            case Sending():
                if not 0 <= message.size <= _OBJECT_MAX:
                    raise ProtocolError(f"an object of {message.size} bytes")
                self._left = message.size
            case Piece():
                self._left -= len(body)
                if self._left < 0:
                    raise ProtocolError("more bytes than were announced")
                self.pieces.append(body)
            case Listed():
                self.objects += decode_listing(body)
            case SpaceLeft():
                self.space = Space(message.free, message.total)
                self.ended.set()
            case Done():
                if self._left:
                    raise ProtocolError("fewer bytes than were announced")
                self.value = message.value
                self.ended.set()
            case Failed():
                self.fail(error_of(message, url))

    def fail(self, error: HotspareError) -> None:
        """End the wait with an error."""
        self.error = error
        self.ended.set()


class ServedConnection:
    """One conversation with a server. Thread-safe."""

    def __init__(self, url: str, transport: Transport, folder: str) -> None:
        """Have the server let us in.

        Args:
            url: where the store is, for messages.
            transport: leads to the server; is closed with this.
            folder: the folder to ask for.

        Raises:
            StorageError: there is no way to it (``may_pass``), or it is of another version.
            PermissionRefused: the server lets us not in, or not to that folder.
        """
        self._url = url
        self._transport = transport
        self._sending = threading.Lock()
        self._calls: dict[int, Call] = {}
        self._calls_lock = threading.Lock()
        self._last_id = 0
        self._lost: HotspareError | None = None
        self._welcome: Welcome | None = None
        self._greeted = threading.Event()
        self._reader = threading.Thread(target=self._read_answers, name="served-answers", daemon=True)
        self._reader.start()
        try:
            self.welcome = self._greet(folder)
        except BaseException:
            self.close()
            raise

    @property
    def is_lost(self) -> bool:
        """Whether no request can succeed any more."""
        return self._lost is not None

    def next_id(self) -> int:
        """Give a number for a request."""
        with self._calls_lock:
            self._last_id += 1
            return self._last_id

    def ask(self, request: Request, parts: Sequence[Buffer] = (), *, timeout: float) -> Call:
        """Send a request, with the bytes of the object to put, and give the whole answer.

        Raises:
            StorageError: the connection was lost, or the time is over (``may_pass``).
            ObjectNotFound, PermissionRefused, NoSpace: what the server says.
        """
        call = Call()
        deadline = time.monotonic() + timeout
        with self._calls_lock:
            if self._lost is not None:
                raise self._lost
            self._calls[request.id] = call
        try:
            self._send(request)
            if isinstance(request, Put):
                for part in parts:
                    self._send_pieces(request.id, memoryview(part).cast("B"))
            if not call.ended.wait(max(0.0, deadline - time.monotonic())):
                self._give_up(timeout)
        finally:
            with self._calls_lock:
                self._calls.pop(request.id, None)
        if call.error is not None:
            raise call.error
        if isinstance(request, Get) and request.length not in {None, sum(map(len, call.pieces))}:
            raise StorageError(f"{self._url} gave another number of bytes of {request.name} than asked for")
        return call

    def close(self) -> None:
        """Hang up, and end the program if it does not end by itself; a second call does nothing."""
        # Nobody may be about to write to what is closed.
        if not self._sending.acquire(timeout=_END_PATIENCE):
            self._transport.abort()
            self._sending.acquire()
        try:
            self._transport.close_sending()
        finally:
            self._sending.release()
        self._transport.wait()
        self._reader.join(_END_PATIENCE)
        if not self._reader.is_alive():
            self._transport.close()

    def _greet(self, folder: str) -> Welcome:
        with suppress(StorageError):  # how the program ended tells more than that it takes nothing
            self._write(MAGIC)
            self._send(Hello(VERSION, __version__, folder))
        if not self._greeted.wait(_GREETING_PATIENCE):
            self._transport.abort()
            raise StorageError(
                f"{self._url} did not answer within {_GREETING_PATIENCE:.0f} s",
                hint="See whether the server can be reached with ssh",
                may_pass=True,
            )
        if self._welcome is None:
            raise self._lost or self._unexpected("it said nothing")
        if self._welcome.version != VERSION:
            raise self._unexpected(f"it speaks version {self._welcome.version} of the protocol")
        return self._welcome

    def _send_pieces(self, request: int, view: memoryview) -> None:
        for start in range(0, len(view), PIECE_MAX):
            self._send(Piece(request), view[start : start + PIECE_MAX])

    def _send(self, message: Message, body: Buffer = b"") -> None:
        with self._sending:
            self._write(encode_head(message, memoryview(body).nbytes))
            self._write(body)

    def _write(self, data: Buffer) -> None:
        try:
            self._transport.write(data)
        except OSError as error:
            # The thread that reads finds out why.
            self._reader.join(_END_PATIENCE)
            raise self._lost or self._unexpected("it takes nothing any more") from error

    def _read_answers(self) -> None:
        decoder = frame_decoder()
        lost: HotspareError | None = None
        try:
            while data := self._transport.read():
                for frame in decoder.feed(data):
                    self._take(frame)
        except ProtocolError as error:
            lost = self._unexpected(str(error))
        except OSError:
            pass
        self._end(lost)

    def _take(self, frame: Frame[Message]) -> None:
        message = frame.message
        match message:
            case Welcome():
                self._welcome = message
                self._greeted.set()
            case Failed(id=0):
                self._end(error_of(message, self._url))
            case Sending() | Piece() | Listed() | SpaceLeft() | Done() | Failed():
                with self._calls_lock:
                    call = self._calls.get(message.id)
                if call is not None:  # else nobody waits for it any more
                    call.take(message, frame.body, self._url)
            case _:
                raise ProtocolError("a message that only a client sends")

    def _end(self, error: HotspareError | None) -> None:
        """Fail everything that waits; the first reason stays."""
        if error is None and self._lost is None:
            error = self._transport.why_ended(greeted=self._welcome is not None)
        with self._calls_lock:
            self._lost = self._lost or error
            calls, lost = list(self._calls.values()), self._lost
        for call in calls:
            if not call.ended.is_set() and lost is not None:
                call.fail(lost)
        self._greeted.set()

    def _give_up(self, timeout: float) -> None:
        error = StorageError(
            f"{self._url} did not answer within {timeout:.0f} s",
            hint="See whether the server is overloaded or the network slow",
            may_pass=True,
        )
        self._end(error)
        self._transport.abort()
        raise error

    def _unexpected(self, what: str) -> StorageError:
        return StorageError(
            f"What answers at {self._url} is not 'hotspare repo serve': {what}",
            meaning="Nothing more was read or written",
            hint="Log in there with ssh and see that the shell's start-up files print nothing and that"
            " 'hotspare --version' is the same as here",
        )


def error_of(failed: Failed, url: str) -> HotspareError:
    """Give the error that a server reports, in its words."""
    kind = _KINDS.get(failed.code, StorageError)
    what, meaning, hint = (printable(text) for text in (failed.what, failed.meaning, failed.hint))
    what = f"{url}: {what}"
    if issubclass(kind, StorageError):
        return kind(what, meaning=meaning, hint=hint, may_pass=failed.may_pass)
    return kind(what, meaning=meaning, hint=hint)
