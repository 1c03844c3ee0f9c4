"""The end of a connection that asks."""

import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

import msgspec
from typing_extensions import Buffer

from hotspare.errors import HotspareError, PermissionRefused, PlatformUnavailable
from hotspare.replication.link.stream import read_frame, write_frame
from hotspare.replication.link.tls import Identity
from hotspare.replication.link.wire import (
    Answer,
    Call,
    LinkProtocolError,
    PeerUnavailable,
    Verb,
    encode_frame,
    error_of,
)
from hotspare.replication.model import Peer

Arguments = TypeVar("Arguments")
Result = TypeVar("Result")

CALL_SECONDS = 30.0
CONNECT_SECONDS = 5.0


class Client:
    """Asks one agent, one call at a time; connects when it is first needed and again when that was lost.

    A call may reach the other side twice, when the connection breaks in its midst. Thread-safe.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def _connect(self, timeout: float) -> socket.socket:
        raise NotImplementedError

    def call(
        self,
        verb: Verb[Arguments, Result],
        arguments: Arguments,
        body: Buffer = b"",
        *,
        timeout: float = CALL_SECONDS,
    ) -> Result:
        """Ask, and give the answer. Raises as ``exchange``."""
        return self.exchange(verb, arguments, body, timeout=timeout)[0]

    def exchange(
        self,
        verb: Verb[Arguments, Result],
        arguments: Arguments,
        body: Buffer = b"",
        *,
        timeout: float = CALL_SECONDS,
    ) -> tuple[Result, bytes]:
        """Ask, and give the answer with its body.

        Args:
            verb: what to ask.
            arguments: what with.
            body: bytes that go with them.
            timeout: seconds for all of it.

        Raises:
            PeerUnavailable: the other agent does not answer in time.
            PermissionRefused: it does not trust us.
            HotspareError: whatever the other agent raised.
        """
        call = Call(verb=verb.name, arguments=msgspec.Raw(msgspec.json.encode(arguments)))
        head = encode_frame(call, memoryview(body).nbytes)
        deadline = time.monotonic() + timeout
        with self._lock:
            answer, answer_body = self._ask(head, body, deadline)
        if answer.failure is not None:
            raise error_of(answer.failure)
        try:
            return msgspec.json.decode(answer.result, type=verb.result), answer_body
        except msgspec.DecodeError as error:
            raise self._lost(f"its answer cannot be understood: {error}") from error

    def _ask(self, head: bytes, body: Buffer, deadline: float) -> tuple[Answer, bytes]:
        reused = self._socket is not None
        try:
            return self._ask_once(head, body, deadline)
        except (ConnectionError, ssl.SSLError) as error:
            self._drop()
            if not reused:
                raise self._explained(error) from error
        except (OSError, LinkProtocolError) as error:
            self._drop()
            raise self._explained(error) from error
        # The connection may have been stale: the other agent was started anew since.
        try:
            return self._ask_once(head, body, deadline)
        except (OSError, LinkProtocolError) as error:
            self._drop()
            raise self._explained(error) from error

    def _ask_once(self, head: bytes, body: Buffer, deadline: float) -> tuple[Answer, bytes]:
        if self._socket is None:
            self._socket = self._connect(min(CONNECT_SECONDS, _left(deadline)))
        self._socket.settimeout(_left(deadline))
        write_frame(self._socket, head, body)
        self._socket.settimeout(_left(deadline))
        frame = read_frame(self._socket, Answer)
        if frame is None:
            raise ConnectionResetError("the other side has ended the connection")
        return frame

    def _explained(self, error: Exception) -> HotspareError:
        if isinstance(error, ssl.SSLCertVerificationError) or "certificate" in str(error).lower():
            return PermissionRefused(
                f"{self._where} is not the agent that we were paired with, or does not know us: {error}",
                meaning="Nothing was done",
                hint='Pair the hosts again, see "hotspare replica pair --help"',
            )
        return self._lost(str(error) or type(error).__name__)

    def _lost(self, reason: str) -> PeerUnavailable:
        return PeerUnavailable(
            f"{self._where} does not answer: {reason}",
            meaning="Whether the request was carried out is not known",
            hint="See whether its agent runs (hotspare replica agent) and can be reached",
        )

    def _drop(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            with suppress(OSError):
                connection.close()

    def hang_up(self) -> None:
        """Break the connection, also while a call waits for its answer."""
        if (connection := self._socket) is not None:
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection; the next call makes another."""
        with self._lock:
            self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class LocalClient(Client):
    """Asks the agent of this host, whose state folder is given."""

    def __init__(self, state: Path) -> None:
        super().__init__(f"The agent of this host ({state})")
        self._path = state / "agent.sock"

    def _connect(self, timeout: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        try:
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            refused = isinstance(error, PermissionError)
            raise (PermissionRefused if refused else PlatformUnavailable)(
                f"The agent of this host does not answer at {self._path}: {error.strerror}",
                meaning="Nothing was done",
                hint="Run as root" if refused else 'Start it with "hotspare replica agent"',
            ) from error
        return connection


class PeerClient(Client):
    """Asks the agent of another host, that this one was paired with."""

    def __init__(self, identity: Identity, peer: Peer) -> None:
        super().__init__(f"The agent of {peer.name} ({peer.address}:{peer.port})")
        self._identity = identity
        self._peer = peer

    def _connect(self, timeout: float) -> socket.socket:
        plain = socket.create_connection((self._peer.address, self._peer.port), timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            context = self._identity.client_context(self._peer.id)
            return context.wrap_socket(plain, server_hostname=self._peer.id)
        except BaseException:
            plain.close()
            raise


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
