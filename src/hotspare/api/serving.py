"""Running the application on a socket, with TLS unless told otherwise."""

import socket

import uvicorn
from fastapi import FastAPI

from hotspare.api.certificate import Certificate
from hotspare.errors import ServerUnavailable

_SHUTDOWN_SECONDS = 10
_DEAF_MILLISECONDS = 60_000
"""A client that takes nothing for so long is cut off by the kernel, however much is on its way to it."""
_BACKLOG = 128


def listen(host: str, port: int) -> socket.socket:
    """Begin to listen; port 0 takes any that is free. Raises ``ServerUnavailable``."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Connections have it from the socket that they came in by.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAF_MILLISECONDS)
            listening.bind(address)
            # At once: who reads our address may ask before everything is set up, and is to wait then.
            listening.listen(_BACKLOG)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise ServerUnavailable(
            f"{host}, port {port}, cannot be listened on: {error.strerror or error}",
            meaning="The server was not started",
            hint="Name another with --listen, or stop what listens there",
        ) from error
    return listening


class _Server(uvicorn.Server):
    """Ends the streams of events before it waits for the answers that are under way."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        if isinstance(app, FastAPI):
            app.state.server.watching.close()
        await super().shutdown(sockets)


def server_for(app: FastAPI, certificate: Certificate | None) -> uvicorn.Server:
    """Make the server; its ``run(sockets=[...])`` serves until it is told to stop.

    Args:
        app: what it serves.
        certificate: for TLS; None for none, behind a proxy on this host.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        # Who is behind a proxy can name any address: failed logins would be counted for nobody.
        proxy_headers=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        ssl_certfile=str(certificate.certificate) if certificate else None,
        ssl_keyfile=str(certificate.key) if certificate else None,
    )
    return _Server(config)
