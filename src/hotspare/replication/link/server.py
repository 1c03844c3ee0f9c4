"""The end of a connection that is asked: other agents over TLS, the command line over a unix socket."""

import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hotspare.errors import HotspareError, PermissionRefused, PlatformUnavailable, UsageError
from hotspare.replication.link.stream import read_frame, write_frame
from hotspare.replication.link.tls import Identity, id_in
from hotspare.replication.link.wire import (
    Answer,
    Call,
    LinkProtocolError,
    Verb,
    Who,
    encode_frame,
    failure_of,
)

Arguments = TypeVar("Arguments")
Result = TypeVar("Result")

_HANDSHAKE_SECONDS = 10.0
_BACKLOG = 64


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    who: Who
    id: str = ""
    """Of the agent; empty for the command line and for strangers."""


Handler = Callable[[Caller, Arguments, bytes], Result | tuple[Result, bytes]]
"""Answers a call; may raise a ``HotspareError``, which the caller gets. Calls may come twice."""


class Services:
    """All that an agent can be asked; each part of the program registers what it answers."""

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[Verb[Any, Any], Handler[Any, Any]]] = {}

    def register(self, verb: Verb[Arguments, Result], handler: Handler[Arguments, Result]) -> None:
        """Let ``handler`` answer a verb, in a thread of the connection that it came over."""
        self._handlers[verb.name] = (verb, handler)

    def ask(self, verb: Verb[Arguments, Result], arguments: Arguments) -> Result:
        """Ask this agent itself, as its command line does. Raises whatever the handler raises."""
        result = self._handlers[verb.name][1](Caller("local"), arguments, b"")
        given: Result = result[0] if isinstance(result, tuple) else result
        return given

    def answer(self, caller: Caller, call: Call, body: bytes) -> tuple[Answer, bytes]:
        """Answer a call, or say why not."""
        try:
            return self._answer(caller, call, body)
        except HotspareError as error:
            return Answer(failure=failure_of(error)), b""
        except Exception as error:  # noqa: BLE001 - the other side must hear of it, and the agent go on
            failed = HotspareError(
                f"The agent failed at {call.verb!r}: {type(error).__name__}: {error}",
                meaning="This is a mistake in Hotspare",
                hint="Look into the agent's log",
            )
            return Answer(failure=failure_of(failed)), b""

    def _answer(self, caller: Caller, call: Call, body: bytes) -> tuple[Answer, bytes]:
        verb, handler = self._handlers.get(call.verb, (None, None))
        if verb is None or handler is None:
            raise UsageError(
                f"The agent does not know {call.verb!r}",
                meaning="Nothing was done",
                hint="Run the same version of Hotspare on all hosts",
            )
        if caller.who not in verb.audience:
            raise PermissionRefused(f"{call.verb!r} is not for a {caller.who}", meaning="Nothing was done")
        try:
            arguments = msgspec.json.decode(call.arguments, type=verb.arguments)
        except msgspec.DecodeError as error:
            raise UsageError(f"{call.verb!r} cannot be understood: {error}") from error
        result = handler(caller, arguments, body)
        content, answer_body = result if isinstance(result, tuple) else (result, b"")
        return Answer(result=msgspec.Raw(msgspec.json.encode(content))), answer_body


class Server:
    """Answers calls, a thread for each connection, until ``close``.

    Args:
        services: what it can be asked.
        identity: who it is.
        path: of the unix socket for the command line.
        address: IP address to listen on for other agents; empty for all.
        port: for other agents; 0 lets the system choose.

    Attributes:
        port: the one that it listens on.
    """

    def __init__(self, services: Services, identity: Identity, path: Path, address: str, port: int) -> None:
        self._services = services
        self._identity = identity
        self._closed = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._local = _listen_locally(path)
        try:
            self._network = socket.create_server((address, port), backlog=_BACKLOG)
        except OSError as error:
            self._local.close()
            raise PlatformUnavailable(
                f"The agent cannot listen on port {port}: {error.strerror}",
                meaning="It was not started",
                hint="See whether another agent runs already, or choose another with --port",
            ) from error
        self.port: int = self._network.getsockname()[1]

    def start(self) -> None:
        """Begin to answer."""
        for listener, serve in ((self._local, self._serve_local), (self._network, self._serve_peer)):
            self._thread(lambda listener=listener, serve=serve: self._accept(listener, serve))  # type: ignore[misc]

    def close(self) -> None:
        """End all connections."""
        self._closed = True
        with self._lock:
            connections = list(self._open)
        for one in (self._local, self._network, *connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _thread(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name="link", daemon=True).start()

    def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        while not self._closed:
            try:
                connection, _ = listener.accept()
            except OSError:
                continue  # closed, or out of descriptors for the moment
            self._thread(lambda connection=connection: self._keep(connection, serve))  # type: ignore[misc]

    def _keep(self, connection: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with self._lock:
            self._open.add(connection)
        try:
            serve(connection)
        except (OSError, LinkProtocolError):
            pass  # the other side is gone, or none of ours
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _serve_local(self, connection: socket.socket) -> None:
        self._converse(connection, Caller("local"))

    def _serve_peer(self, connection: socket.socket) -> None:
        connection.settimeout(_HANDSHAKE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Anew each time: whom we trust may have changed.
        with self._identity.server_context().wrap_socket(connection, server_side=True) as secured:
            secured.settimeout(None)
            secured.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._converse(secured, _caller_of(secured))

    def _converse(self, connection: socket.socket, caller: Caller) -> None:
        while not self._closed:
            frame = read_frame(connection, Call)
            if frame is None:
                return
            answer, body = self._services.answer(caller, *frame)
            write_frame(connection, encode_frame(answer, len(body)), body)


def _caller_of(secured: ssl.SSLSocket) -> Caller:
    certificate = secured.getpeercert(binary_form=True)
    return Caller("peer", id_in(certificate)) if certificate else Caller("stranger")


def _listen_locally(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    path.unlink(missing_ok=True)  # who holds the state folder's lock is the only agent there
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise PlatformUnavailable(
            f"The agent cannot listen on {path}: {error}", meaning="It was not started"
        ) from error
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    return listener
