"""``hotspare api``: serve the HTTP interface."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import uvicorn
from cyclopts import Parameter

from hotspare.access.access import Access
from hotspare.api.actions import Actions
from hotspare.api.app import make_app
from hotspare.api.certificate import own_certificate
from hotspare.api.estate import Estate
from hotspare.api.serving import listen, server_for
from hotspare.cli import output
from hotspare.cli.help import closing, noun
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.passphrase import existing_passphrase
from hotspare.cli.session import Session
from hotspare.errors import ConfigError, PermissionRefused, ServerUnavailable, UsageError

app = noun("api", "Serve the HTTP interface of this host.")
PORT = 8460
PROGRAM = (sys.executable, "-P", "-c", "import sys; from hotspare.cli.main import main; sys.exit(main())")
Switch = Annotated[bool, Parameter(negative="", show_default=False)]


@app.command(
    help_epilogue=closing(
        ["hotspare api serve", "hotspare api serve --listen 0.0.0.0:8460", "hotspare api serve --no-tls"],
        PermissionRefused,
        ServerUnavailable,
    )
)
def serve(
    *,
    listen_on: Annotated[str, Parameter(name="--listen")] = f"127.0.0.1:{PORT}",
    no_tls: Switch = False,
    options: Options = DEFAULTS,
) -> None:
    """Serve the HTTP interface until Ctrl-C; see docs/api.md.

    The server does what this command's user may do, with the repository and passphrase of its settings. The
    first time it makes a certificate of its own, and prints a code with which the first user is made.

    Args:
        listen_on: Address and port; 0 for any port. Only this host can reach it unless told otherwise.
        no_tls: Without TLS, behind a proxy on this host. Only on a loopback address.
        options: See below.
    """
    host, port = _address(listen_on)
    if no_tls and host not in {"127.0.0.1", "::1", "localhost"}:
        raise UsageError(
            f"Without TLS, tokens would go to {host} for all to read",
            meaning="The server was not started",
            hint="Leave out --no-tls, or listen on 127.0.0.1",
        )
    with Session(options) as session:
        _refuse_to_ask(session)
        folder = session.settings.state_folder
        certificate = None if no_tls else own_certificate(folder / "server")
        with (
            listen(host, port) as socket,
            _opened(session) as (estate, access, actions),
            _stopped_by_signals(server := server_for(make_app(estate, access, actions), certificate)),
        ):
            name, number = socket.getsockname()[:2]
            url = f"{'http' if no_tls else 'https'}://{f'[{name}]' if ':' in name else name}:{number}"
            if session.as_json:
                fields = {"fingerprint": certificate.fingerprint if certificate else None}
                fields["setup_code"] = access.setup_code
                output.print_document(output.document("api-serving", url=url, **fields))
            else:
                output.print_text(f"Serving at {url}.")
                if certificate:
                    output.print_text(f"Certificate: {certificate.certificate}")
                    output.print_text(f"SHA-256: {certificate.fingerprint}")
                if access.setup_code:
                    output.print_text(f"Nobody may log in yet. Code for the first user: {access.setup_code}")
            server.run(sockets=[socket])


@contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """End the server on SIGINT and SIGTERM, also when they come before it has begun.

    While it serves, uvicorn has handlers of its own; afterwards it sends itself what came, for these.
    """

    def stop(*_: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _opened(session: Session) -> Iterator[tuple[Estate, Access, Actions]]:
    estate = Estate(lambda: Session(session.options))
    access = Access(session.settings.state_folder)
    actions = Actions(PROGRAM, _environment(session), estate.look_again)
    try:
        yield estate, access, actions
    finally:
        actions.close()
        estate.close()
        access.close()


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


def _refuse_to_ask(session: Session) -> None:
    """A server has nobody to ask for a passphrase."""
    settings = session.settings
    if settings.repository is None:
        return
    if settings.key_file is None and settings.passphrase is None:
        raise ConfigError(
            f"Nothing says what opens the repository {settings.repository}",
            meaning="The server was not started: it has nobody to ask",
            hint="Set HOTSPARE_PASSPHRASE_FILE or HOTSPARE_KEY_FILE",
        )
    if settings.key_file is None:
        existing_passphrase(settings.passphrase, settings.repository)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"'{text}' is no address and port", hint="Say it like 127.0.0.1:8460 or [::1]:8460")
    return host.strip("[]"), int(port)
