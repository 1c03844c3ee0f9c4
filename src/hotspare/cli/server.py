"""``hotspare server``: policies run by themselves."""

import socket
from contextlib import nullcontext
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.backup_options import Patterns
from hotspare.cli.help import OPENING, closing, noun
from hotspare.cli.logs import set_up_logs
from hotspare.cli.notice_sending import Sender
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.service import notify
from hotspare.cli.session import Session
from hotspare.errors import ConfigError
from hotspare.jobs.heartbeat import Heartbeat
from hotspare.settings import Settings

app = noun("server", "Have policies run by themselves, on this host and with movers on others.")


@app.default
def server(*, slots: NonNegativeInt | None = None, options: Options = DEFAULTS) -> None:
    """Back up what is due by all policies, when it is due, until stopped by SIGTERM or Ctrl-C.

    It runs in the foreground, as a service does; packaging/hotspare.service is its systemd unit. What is
    stopped, or dies, in the middle of a run is finished after the next start, and what is stored already is
    not stored again. Policies are read again by themselves. The passphrase comes from a file, a command or
    the environment, never from a terminal.

    Args:
        slots: How many backups go on at once in this process; else the limit of "mover" in limits.yaml; 0
            leaves them all to movers.
        options: See below.
    """
    _serve(options, slots, [socket.gethostname()], schedules=True)


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
    host: Annotated[Patterns, Parameter(show_default=False)] = (),
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
    _serve(options, slots, list(host) or [socket.gethostname()], schedules=False)


app.help_epilogue = closing(
    [
        "hotspare server",
        "HOTSPARE_JOB_DATABASE=postgresql://hotspare@db/hotspare hotspare server",
        "systemctl enable --now hotspare",
        "hotspare job list",
    ],
    *OPENING,
    interruptible=True,
)


def _serve(options: Options, slots: int | None, queues: list[str], *, schedules: bool) -> None:
    # Imported here: the queue's libraries take long to import, and "--help" needs none of them.
    from hotspare.cli.self_daily import self_backups_by_themselves  # noqa: PLC0415
    from hotspare.cli.server_plans import ServerPlans  # noqa: PLC0415
    from hotspare.cli.server_work import ServerWork  # noqa: PLC0415
    from hotspare.jobs.server import ServerPlan, serve  # noqa: PLC0415

    with Session(options) as session:
        settings = session.settings
        set_up_logs(settings.log_form)
        _refuse_without_credential(settings)
        most = session.policies().limits().mover if slots is None else slots
    name, queues = socket.gethostname(), queues if most else []
    plan = ServerPlan(database=settings.job_database, name=name, queues=queues, slots=most)
    plans = ServerPlans(options) if schedules else None

    def ready(title: str) -> None:
        policies = "policies run, " if schedules else ""
        output.note(f"Ready as {title}: {policies}up to {most} backups at once here.")
        notify("READY=1")

    beat = Heartbeat(settings.state_folder).beat
    remembered = self_backups_by_themselves(options) if schedules else nullcontext()
    with cancelled_by_signals() as cancellation, Sender(options), remembered:
        serve(plan, ServerWork(options), plans, cancellation, ready, beat)
    notify("STOPPING=1")


def _refuse_without_credential(settings: Settings) -> None:
    if settings.passphrase is None and settings.key_file is None:
        raise ConfigError(
            "A server cannot ask for a passphrase, and none is set",
            meaning="It was not started",
            hint="Set passphrase_file or key_file in the configuration file, or HOTSPARE_PASSPHRASE_FILE",
        )
