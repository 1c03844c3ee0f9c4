"""Moves the bytes of an exchange over a stream socket."""

import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from hotspare.block.nbd.protocol import Exchange

T = TypeVar("T")

Address = Path | tuple[str, int]
"""Where a server listens: a unix socket, or a host and a TCP port."""

BUFFER_SIZE = 4 * 1024 * 1024
"""Room in the kernel for what a unix socket sends; the kernel may give less."""


class HangupError(OSError):
    """The peer closed the connection."""


class Connection:
    """A connected stream socket on which every wait can be bounded.

    The time limit is the kernel's (SO_RCVTIMEO and SO_SNDTIMEO) and not that of Python's socket, because
    the latter turns a large MSG_WAITALL into many small reads, each with a ``poll`` before it.
    """

    def __init__(self, connected: socket.socket, timeout: float | None) -> None:
        self._socket = connected
        self._socket.settimeout(None)
        self.limit_waits(timeout)
        if self._socket.family == socket.AF_UNIX:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_SIZE)
        else:
            # No buffer sizes here: setting them would switch off the kernel's own tuning.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    @classmethod
    def open(cls, address: Address, timeout: float) -> "Connection":
        """Connect to a server within ``timeout`` seconds; the limit then holds for each wait.

        Raises:
            OSError: the server cannot be reached.
        """
        if isinstance(address, tuple):
            return cls(socket.create_connection(address, timeout), timeout)
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(timeout)
            connected.connect(str(address))
            return cls(connected, timeout)
        except BaseException:
            connected.close()
            raise

    def limit_waits(self, timeout: float | None) -> None:
        """Bound each wait for the peer to ``timeout`` seconds; None waits for ever."""
        # A limit of 0 would mean "none" to the kernel.
        micros = 0 if timeout is None else max(1, round(timeout * 1_000_000))
        limit = struct.pack("@ll", *divmod(micros, 1_000_000))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def perform(self, exchange: Exchange[T]) -> T:
        """Send and receive what ``exchange`` wants, and return its result.

        Raises:
            HangupError: the peer closed the connection.
            BlockingIOError: the peer was silent for the whole time limit.
            OSError: the connection failed.
            NbdProtocolError: the exchange does not like what it received.
        """
        while True:
            try:
                step = next(exchange)
            except StopIteration as finished:
                result: T = finished.value
                return result
            if isinstance(step, memoryview):
                self.fill(step)
            else:
                self.send([step])

    def fill(self, buffer: memoryview) -> None:
        """Receive exactly as many bytes as ``buffer`` has room for."""
        while buffer:
            count = self._socket.recv_into(buffer, 0, socket.MSG_WAITALL)
            if not count:
                raise HangupError("the connection was closed by the other side")
            buffer = buffer[count:]

    def send(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send all bytes of all parts, without joining them in memory."""
        waiting = [memoryview(part) for part in parts if len(part)]
        while waiting:
            sent = self._socket.sendmsg(waiting, [], socket.MSG_NOSIGNAL)
            while waiting and sent >= len(waiting[0]):
                sent -= len(waiting.pop(0))
            if sent:
                waiting[0] = waiting[0][sent:]

    def hang_up(self) -> None:
        """Wake everybody who waits on this connection, on both sides; a second call does nothing."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def detach(self) -> socket.socket:
        """Give the socket away: this connection is of no further use, and its ``close`` does nothing."""
        return socket.socket(fileno=self._socket.detach())

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._socket.close()
