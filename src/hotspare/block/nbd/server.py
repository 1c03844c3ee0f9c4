"""Serves disks over NBD from threads of this process."""

import errno
import ipaddress
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from hotspare.block.nbd.connection import Address, Connection
from hotspare.block.nbd.session import Export, Session
from hotspare.errors import HotspareError, PermissionRefused, SourceLost, TargetExists, UsageError

__all__ = ["Export", "NbdServer"]

MAX_CONNECTIONS = 64
_STOP_TIMEOUT = 10.0
"""Seconds that ``close`` waits for requests that are being done."""


class NbdServer:
    """Listens on a unix socket or a loopback port and serves named exports.

    There is no authentication: who may use a unix socket is up to the permissions of its path.

    Attributes:
        address: where it listens; the port is the real one where 0 was asked for.
    """

    def __init__(
        self, listening: socket.socket, address: Address, exports: Mapping[str, Export], workers: int
    ) -> None:
        self.address = address
        self._listening = listening
        self._exports = dict(exports)
        self._workers = workers
        self._lock = threading.Lock()
        self._sessions: dict[Session, threading.Thread] = {}
        self._closed = False
        self._acceptor = threading.Thread(target=self._accept, name="nbd-accept", daemon=True)
        self._acceptor.start()

    @classmethod
    def start(
        cls, address: Address, exports: Mapping[str, Export], *, workers: int = 4, mode: int = 0o600
    ) -> Self:
        """Begin to serve.

        Args:
            address: path of the unix socket to create, or a loopback address and a port (0 for any).
            exports: disks by name; the name "" is the default export.
            workers: requests of one connection that are done at the same time.
            mode: permissions of the unix socket.

        Raises:
            TargetExists: the path or the port is taken.
            UsageError: the address is not a loopback address.
            PermissionRefused, SourceLost: the socket cannot be created.
        """
        listening = None
        try:
            if isinstance(address, tuple):
                listening = _listen_tcp(*address)
                address = (address[0], listening.getsockname()[1])
            else:
                listening = _listen_unix(address, mode)
        except OSError as error:
            raise _bind_failure(address, error) from error
        return cls(listening, address, exports, workers)

    def close(self) -> None:
        """Stop listening and hang up on all clients; a second call does nothing.

        Waits up to 10 seconds for requests that are being done.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            sessions = dict(self._sessions)
        # Closing alone would not wake the thread that waits in accept().
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        if isinstance(self.address, Path):
            self.address.unlink(missing_ok=True)
        for session in sessions:
            session.hang_up()
        deadline = time.monotonic() + _STOP_TIMEOUT
        for thread in (self._acceptor, *sessions.values()):
            thread.join(max(0.0, deadline - time.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connected, _peer = self._listening.accept()
            except OSError as error:
                if self._closed:
                    return
                if error.errno not in (errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOBUFS):
                    raise
                time.sleep(0.1)  # out of descriptors: somebody has to finish first
                continue
            self._begin(connected)

    def _begin(self, connected: socket.socket) -> None:
        try:
            session = Session(Connection(connected, None), self._exports, self._workers)
        except OSError:
            connected.close()  # the client has left already
            return
        thread = threading.Thread(target=self._serve, args=(session,), name="nbd-session", daemon=True)
        with self._lock:
            refused = self._closed or len(self._sessions) >= MAX_CONNECTIONS
            if not refused:
                self._sessions[session] = thread
        if refused:
            connected.close()
        else:
            thread.start()

    def _serve(self, session: Session) -> None:
        try:
            session.serve()
        finally:
            with self._lock:
                del self._sessions[session]


def _listen_tcp(host: str, port: int) -> socket.socket:
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise UsageError(
            f"{host} is not a loopback address",
            meaning="Whoever reached it could read and write the disks, as NBD knows no passwords",
            hint="Listen on 127.0.0.1 or on a unix socket",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _listen_unix(path: Path, mode: int) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        # Nobody can connect before listen(), so the permissions are right from the first moment.
        path.chmod(mode)
        listening.listen()
    except BaseException:
        listening.close()
        raise
    return listening


def _bind_failure(address: Address, error: OSError) -> HotspareError:
    what = f"Cannot listen on {address}: {error.strerror or error}"
    if error.errno == errno.EADDRINUSE:
        return TargetExists(what, hint="Stop what listens there, or remove the socket if nothing does")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionRefused(what, hint="Choose a place where we may create a socket")
    return SourceLost(what, hint="Check that the directory exists and the path has less than 108 characters")
