"""An NBD connection with TLS: from STARTTLS on, nobody else reads or changes what goes over it."""

import ssl
from collections.abc import Sequence
from typing import NamedTuple

from hotspare.block.nbd.connection import Connection, HangupError
from hotspare.block.nbd.negotiation_client import start_tls

_CHAIN = 256 * 1024
"""Bytes up to which the parts of a message are joined: a small one of its own for each header costs more."""


class Tls(NamedTuple):
    """How a connection is secured."""

    context: ssl.SSLContext
    """Of a client: whom it trusts, and its own certificate."""
    name: str
    """What the server's certificate must be for."""


class TlsConnection(Connection):
    """A ``Connection`` whose bytes are encrypted."""

    def __init__(self, connected: ssl.SSLSocket, timeout: float) -> None:
        self._secured = connected
        super().__init__(connected, timeout)

    def limit_waits(self, timeout: float | None) -> None:
        """Bound each wait, by Python's own limit: TLS would try again after the kernel's."""
        self._secured.settimeout(timeout)

    def fill(self, buffer: memoryview) -> None:
        """Receive exactly as many bytes as ``buffer`` has room for."""
        while buffer:
            count = self._secured.recv_into(buffer)
            if not count:
                raise HangupError("the connection was closed by the other side")
            buffer = buffer[count:]

    def send(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send all bytes of all parts."""
        if sum(len(part) for part in parts) <= _CHAIN:
            self._secured.sendall(b"".join(parts))
            return
        for part in parts:
            self._secured.sendall(part)


def secured(connection: Connection, tls: Tls, timeout: float) -> "Secured":
    """Turn a connection, over which nothing was said yet, into one with TLS.

    Raises:
        OSError: the other side is not who it should be, does not trust us, or hangs up.
        NbdRefusedError: it has no TLS.
        NbdProtocolError: it is no NBD server.
    """
    no_zeroes = connection.perform(start_tls())
    plain = connection.detach()
    plain.settimeout(timeout)
    try:
        wrapped = tls.context.wrap_socket(plain, server_hostname=tls.name)
    except BaseException:
        plain.close()
        raise
    return Secured(TlsConnection(wrapped, timeout), no_zeroes)


class Secured(NamedTuple):
    """A connection with TLS, and what was agreed on before."""

    connection: TlsConnection
    no_zeroes: bool
