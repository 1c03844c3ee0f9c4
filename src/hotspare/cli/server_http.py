"""The HTTP side of ``hotspare server``: the interface for programs and people, in a thread of its own."""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from hotspare.access.access import Access
from hotspare.api.actions import Actions
from hotspare.api.app import make_app
from hotspare.api.certificate import Certificate, own_certificate
from hotspare.api.estate import Estate
from hotspare.api.serving import listen, server_for
from hotspare.cli.session import Session
from hotspare.console.app import add_console
from hotspare.errors import UsageError

if TYPE_CHECKING:
    from hotspare.access.provider import Provider

PROGRAM = (sys.executable, "-P", "-c", "import sys; from hotspare.cli.main import main; sys.exit(main())")
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """Where the interface is, and what whoever comes first has to know."""

    url: str
    certificate: Certificate | None
    """None without TLS."""
    setup_code: str | None
    """Makes the first user; None when there is one."""


@contextmanager
def http_served(session: Session, address: str, *, tls: bool) -> Iterator[Served]:
    """Serve the HTTP interface while the block runs.

    Args:
        session: whose settings say what is served; its options open all else.
        address: and port, as ``--listen`` has them.
        tls: with a certificate of its own, made the first time.

    Raises:
        UsageError: the address is none, or tokens would cross a network in the clear.
        ServerUnavailable: it cannot be listened on.
        PermissionRefused: the state folder may not be written.
    """
    host, port = _address(address)
    if not tls and host not in _LOOPBACK:
        raise UsageError(
            f"Without TLS, tokens would go to {host} for all to read",
            meaning="The server was not started",
            hint="Leave out --no-tls, or listen on 127.0.0.1",
        )
    certificate = own_certificate(session.settings.state_folder / "server") if tls else None
    with listen(host, port) as listening, opened_parts(session) as (estate, access, actions):
        name, number = listening.getsockname()[:2]
        url = f"{'https' if tls else 'http'}://{f'[{name}]' if ':' in name else name}:{number}"
        server = server_for(whole_app(estate, access, actions), certificate)
        serving = threading.Thread(target=_serve, args=(server, [listening]), name="http")
        serving.start()
        while serving.is_alive() and not server.started:
            time.sleep(0.01)
        try:
            yield Served(url, certificate, access.setup_code)
        finally:
            server.should_exit = True
            serving.join()


def whole_app(estate: Estate, access: Access, actions: Actions) -> FastAPI:
    """Put together what is served: each part adds its routes to the same application."""
    app = make_app(estate, access, actions)
    add_console(app)
    return app


@contextmanager
def opened_parts(session: Session) -> Iterator[tuple[Estate, Access, Actions]]:
    """Open what the application works with; closed when the block is left."""
    estate = Estate(lambda: Session(session.options))
    access = Access(session.settings.state_folder, _provider(session.settings.sign_on_file))
    actions = Actions(PROGRAM, _environment(session), estate.look_again)
    try:
        yield estate, access, actions
    finally:
        actions.close()
        estate.close()
        access.close()


def _provider(file: Path | None) -> "Provider | None":
    if file is None:
        return None
    from hotspare.access.provider import read_provider  # noqa: PLC0415 - its libraries take long to import

    return read_provider(file)


def _serve(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
    try:
        server.run(sockets=sockets)
    except Exception:  # noqa: BLE001 - backups that go on must not end with it
        _log.exception("The HTTP interface has ended; policies still run")


def _environment(session: Session) -> dict[str, str]:
    """Give what commands of actions find the same things by as this one."""
    settings = session.settings
    given = {
        "HOTSPARE_REPOSITORY": settings.repository,
        "HOTSPARE_PLATFORM": settings.platform,
        "HOTSPARE_STATE_FOLDER": str(settings.state_folder),
        "HOTSPARE_POLICY_FOLDER": str(settings.policy_folder),
        "HOTSPARE_CONFIG": str(settings.config_file) if settings.config_file else None,
    }
    return {**os.environ, **{name: value for name, value in given.items() if value}}


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(
            f"'{text}' is no address and port",
            meaning="The server was not started",
            hint="Say it like 127.0.0.1:8460 or [::1]:8460; 'none' serves nothing over HTTP",
        )
    return host.strip("[]"), int(port)
