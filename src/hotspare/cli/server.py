"""``hotspare server``: policies run by themselves, and the HTTP interface."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from hotspare.cancellation import Cancellation, cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.help import OPENING, closing, noun
from hotspare.cli.logs import set_up_logs
from hotspare.cli.notice_sending import Sender
from hotspare.cli.options import DEFAULTS, Options, Repeatable, Switch
from hotspare.cli.service import notify
from hotspare.cli.session import Session
from hotspare.errors import ConfigError, PermissionRefused, ServerUnavailable
from hotspare.jobs.heartbeat import Heartbeat
from hotspare.settings import Settings

if TYPE_CHECKING:
    from hotspare.cli.known_hosts import KnownHosts
    from hotspare.cli.server_http import Served
    from hotspare.jobs.work import Plans, Work

app = noun("server", "Have policies run by themselves and serve the HTTP interface; movers on other hosts.")


@app.default
def server(
    *,
    slots: NonNegativeInt | None = None,
    listen: Annotated[str | None, Parameter(show_default=False)] = None,
    no_tls: Switch = False,
    options: Options = DEFAULTS,
) -> None:
    """Back up what is due by all policies, when it is due, and answer over HTTP, until stopped.

    It runs in the foreground, as a service does; packaging/hotspare.service is its systemd unit. What is
    stopped (by SIGTERM or Ctrl-C), or dies, in the middle of a run is finished after the next start, and
    what is stored already is not stored again. Policies are read again by themselves. The passphrase comes
    from a file, a command or the environment, never from a terminal. The first time it makes a certificate
    of its own, and prints a code with which the first user is made; see docs/api.md.

    Args:
        slots: How many backups go on at once in this process; else the limit of "mover" in limits.yaml; 0
            leaves them all to movers.
        listen: Address and port of the HTTP interface, 0 for any port, or "none"; else the setting, else
            127.0.0.1:8460, which only this host reaches.
        no_tls: HTTP without TLS, behind a proxy on this host. Only on a loopback address.
        options: See below.
    """
    with cancelled_by_signals() as cancellation, Session(options) as session:
        most = _slots(session, slots)
        hosts = _known_hosts()
        with _http(session, hosts, listen or session.settings.listen, tls=not no_tls) as served:

            def ready(title: str) -> None:
                _tell(session, title, most, served)

            queues = [socket.gethostname()]
            _serve(session, queues, most, cancellation, ready, hosts=hosts, schedules=True)


@app.command(
    help_epilogue=closing(
        [
            "hotspare server mover --host host2 --host host3  # machines that this host reaches as they do",
            "HOTSPARE_JOB_DATABASE=postgresql://hotspare@db/hotspare hotspare server mover",
        ],
        ConfigError,
        interruptible=True,
    )
)
def mover(
    *,
    host: Repeatable = (),
    slots: PositiveInt | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Carry out the runs of a server, as one more process, until stopped by SIGTERM or Ctrl-C.

    It needs the same job database as the server, in PostgreSQL, and a credential for the repositories.
    When a mover dies, others of the same host's queue finish its runs within half a minute.

    Args:
        host: Name of a server's host whose runs it takes; may be given again. Else those of this host.
        slots: How many backups go on at once in this process; else the limit of "mover" in limits.yaml.
        options: See below.
    """
    with cancelled_by_signals() as cancellation, Session(options) as session:
        most = _slots(session, slots)

        def ready(title: str) -> None:
            output.note(f"Ready as {title}: up to {most} backups at once here.")

        queues = list(host) or [socket.gethostname()]
        _serve(session, queues, most, cancellation, ready, schedules=False)


app.help_epilogue = closing(
    [
        "hotspare server",
        "hotspare server --listen 0.0.0.0:8460",
        "HOTSPARE_JOB_DATABASE=postgresql://hotspare@db/hotspare hotspare server",
        "systemctl enable --now hotspare",
        "hotspare job list",
    ],
    *OPENING,
    PermissionRefused,
    ServerUnavailable,
    interruptible=True,
)


@contextmanager
def _http(session: Session, hosts: "KnownHosts", address: str, *, tls: bool) -> Iterator["Served | None"]:
    if address == "none":
        yield None
        return
    # Imported here: its libraries take long to import, and neither "--help" nor movers need them.
    from hotspare.cli.server_http import http_served  # noqa: PLC0415

    with http_served(session, hosts, address, tls=tls) as served:
        yield served


def _serve(
    session: Session,
    queues: Sequence[str],
    slots: int,
    cancellation: Cancellation,
    on_ready: Callable[[str], None],
    *,
    hosts: "KnownHosts | None" = None,
    schedules: bool,
) -> None:
    from hotspare.cli.self_daily import self_backups_by_themselves  # noqa: PLC0415 - likewise
    from hotspare.jobs.server import ServerPlan, serve  # noqa: PLC0415

    database, name = session.settings.job_database, socket.gethostname()
    plan = ServerPlan(database=database, name=name, queues=queues if slots else [], slots=slots)

    def ready(title: str) -> None:
        on_ready(title)
        notify("READY=1")

    options, beat = session.options, Heartbeat(session.settings.state_folder).beat
    remembered = self_backups_by_themselves(options) if schedules else nullcontext()
    hosts = hosts or _known_hosts()
    plans = (lambda: _plans(options, hosts)) if schedules else None
    with Sender(options), remembered:
        serve(plan, lambda: _work(options, hosts), plans, cancellation, ready, beat)
    notify("STOPPING=1")


def _known_hosts() -> "KnownHosts":
    from hotspare.cli.known_hosts import KnownHosts  # noqa: PLC0415 - likewise

    return KnownHosts()


def _work(options: Options, hosts: "KnownHosts") -> "Work":
    from hotspare.cli.server_work import ServerWork  # noqa: PLC0415 - likewise

    return ServerWork(options, hosts)


def _plans(options: Options, hosts: "KnownHosts") -> "Plans":
    from hotspare.cli.server_plans import ServerPlans  # noqa: PLC0415 - likewise

    return ServerPlans(options, hosts)


def _tell(session: Session, title: str, slots: int, served: "Served | None") -> None:
    """Say that the server is ready, and how it is reached."""
    certificate = served.certificate if served else None
    if session.as_json:
        fields = {
            "name": title,
            "slots": slots,
            "url": served.url if served else None,
            "fingerprint": certificate.fingerprint if certificate else None,
            "setup_code": served.setup_code if served else None,
        }
        output.print_document(output.document("server-ready", **fields))
    elif served:
        output.print_text(f"Serving at {served.url}.")
        if certificate:
            output.print_text(f"Certificate: {certificate.certificate}")
            output.print_text(f"SHA-256: {certificate.fingerprint}")
        if served.setup_code:
            output.print_text(f"Nobody may log in yet. Code for the first user: {served.setup_code}")
    output.note(f"Ready as {title}: policies run, up to {slots} backups at once here.")


def _slots(session: Session, wanted: int | None) -> int:
    _refuse_without_credential(session.settings)
    set_up_logs(session.settings.log_form)
    return session.policies().limits().mover if wanted is None else wanted


def _refuse_without_credential(settings: Settings) -> None:
    if settings.passphrase is None and settings.key_file is None:
        raise ConfigError(
            "A server cannot ask for a passphrase, and none is set",
            meaning="It was not started",
            hint="Set passphrase_file or key_file in the configuration file, or HOTSPARE_PASSPHRASE_FILE",
        )
