"""``hotspare watchdog``: are machines protected as promised? It says what it cannot know."""

import logging
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

from cyclopts import Parameter, validators

from hotspare.cancellation import Cancellation, cancelled_by_signals
from hotspare.catalog.watch_report import write_report
from hotspare.cli import output
from hotspare.cli.help import OPENING, closing, noun
from hotspare.cli.logs import set_up_logs
from hotspare.cli.notice_sending import send_due
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.output import warn
from hotspare.cli.quantities import parse_duration
from hotspare.cli.service import notify
from hotspare.cli.session import Session
from hotspare.cli.watch_asking import Asker
from hotspare.cli.watch_look import Look, WatchedMachine, look_around
from hotspare.cli.watch_telling import occurrences_of, settled
from hotspare.errors import ConfigError, HotspareError, NotKnown, PromiseBroken
from hotspare.notices.outbox import Outbox
from hotspare.policy.occurrence import SEVERITY_OF

app = noun(
    "watchdog", "Look whether machines are protected as promised, whatever the server does or does not."
)
_PATIENCE = 90.0
"""Seconds that platforms have to answer, and then repositories."""
_log = logging.getLogger(__name__)


@app.default
def watchdog(
    *,
    once: Switch = False,
    every: str = "5m",
    space: Annotated[float, Parameter(validator=validators.Number(gte=0, lte=100))] = 10.0,
    options: Options = DEFAULTS,
) -> None:
    """Look whether machines are protected as promised, and have people told; until Ctrl-C, or once.

    It reads the policies and asks platforms and repositories themselves. Neither the server nor its job
    database has to be there. What does not answer is unknown, which is told as well.

    With --once the exit status says what was found: 38 when a promise is broken, 39 when that is not known.

    Args:
        once: Look once, and end.
        every: How long from one look to the next.
        space: A repository with less than so many percent of free space is nearly full; S3 does not tell.
        options: See below.
    """
    pause = parse_duration(every)
    asker = Asker(_PATIENCE)
    with Session(options) as session:
        settings = session.settings
    if settings.passphrase is None and settings.key_file is None:
        raise ConfigError(
            "A watchdog cannot ask for a passphrase, and none is set",
            meaning="Nothing was looked at",
            hint="Set passphrase_file or key_file in the configuration file, or HOTSPARE_PASSPHRASE_FILE",
        )
    if once:
        look = _look(options, asker, space)
        _tell(look, space, as_json=options.output == "json")
        send_due(options)
        _refuse(look, space)
        return
    set_up_logs(settings.log_form)
    with cancelled_by_signals() as cancellation:
        _go_on(options, asker, space, pause, cancellation)


app.help_epilogue = closing(
    [
        "hotspare watchdog --once",
        "hotspare watchdog --once -o json",
        "hotspare watchdog --every 10m",
        "systemctl enable --now hotspare-watchdog.timer",
    ],
    *OPENING,
    PromiseBroken,
    NotKnown,
    interruptible=True,
)


def _go_on(options: Options, asker: Asker, space: float, pause: float, cancellation: Cancellation) -> None:
    notify("READY=1")
    while not cancellation.requested:
        try:
            look = _look(options, asker, space)
        except HotspareError as error:
            _log.warning("Nothing was looked at. %s", error)
        else:
            if options.output == "json":
                output.print_line(_document(look))
            for line in _problem_lines(look, space):
                _log.warning("%s", line)
        send_due(options)
        notify("WATCHDOG=1")
        cancellation.pause(pause)
    notify("STOPPING=1")


def _look(options: Options, asker: Asker, space: float) -> Look:
    with Session(options) as session:
        settings, files = session.settings, session.policies()
        try:
            with Outbox.open(settings.state_folder, warn) as outbox:
                look = look_around(options, settings, asker, outbox.first_seen)
                occurrences = list(occurrences_of(look, space))
                over = settled(look, occurrences, outbox.problems(SEVERITY_OF))
                outbox.note([*occurrences, *over], files.receivers())
        except HotspareError as error:
            # Whoever looks at exit status, document or journal is to know all the same.
            warn(f"Nobody is told. {error}")
            look = look_around(options, settings, asker, _known_for_ever)
        with suppress(OSError):  # the metrics show then that there was no look
            write_report(settings.state_folder, _document(look))
        return look


def _known_for_ever(_machines: object) -> dict[str, datetime]:
    return {}


def _refuse(look: Look, space: float) -> None:
    lines = _problem_lines(look, space)
    if lines:
        raise PromiseBroken(
            f"{len(lines)} things are wrong",
            meaning="Restore points that there are can be restored as before",
            hint="See what was said above, or 'hotspare notice log'",
        )
    if look.unknown:
        raise NotKnown(
            f"It is not known how things are: {', '.join(f'{one.what} {one.name}' for one in look.unknown)}",
            meaning="What answered is well",
            hint="See that they answer",
        )


def _problem_lines(look: Look, space: float) -> list[str]:
    return [
        f"{one.title}. {one.text}" if one.text else one.title
        for one in occurrences_of(look, space)
        if one.state == "broken" and one.kind not in {"unknown", "approval-waiting"}
    ]


def _tell(look: Look, space: float, *, as_json: bool) -> None:
    if as_json:
        output.print_document(_document(look))
        return
    header = ("MACHINE", "POLICY", "RPO", "STATE", "NEWEST", "TRIED")
    output.print_table(header, [_cells(watched) for watched in look.machines])
    for line in _problem_lines(look, space):
        output.print_text(line)
    for unknown in look.unknown:
        output.print_text(f"Not known: {unknown.what} {unknown.name}. {unknown.error}")
    if not look.policies:
        output.print_text("There is no policy that runs by itself, so nothing is promised.")


def _cells(watched: WatchedMachine) -> tuple[str, ...]:
    return (
        watched.machine.name,
        watched.policy.name,
        watched.policy.schedule.rpo or "-",
        watched.rpo or "-",
        output.local_time(watched.newest) if watched.newest else "-",
        watched.trial or "-",
    )


def _document(look: Look) -> dict[str, Any]:
    return output.document(
        "watchdog",
        at=output.utc_time(look.at),
        policies=look.policies,
        machines=[_machine_fields(watched) for watched in look.machines],
        unprotected=[
            {"machine": machine.name, "id": machine.id, "platform": machine.platform}
            for machine in look.unprotected
        ],
        repositories=[
            {
                "url": one.url,
                "free": one.space.free if one.space else None,
                "size": one.space.size if one.space else None,
            }
            for one in look.repositories
        ],
        unknown=[
            {"what": one.what, "name": one.name, "error": output.error_fields(one.error)}
            for one in look.unknown
        ],
        server={
            "state": "none" if look.server_beat is None else "silent" if look.server_silent else "alive",
            "last_look_at": output.utc_time(look.server_beat) if look.server_beat else None,
        },
        replicas=[
            {"machine": one.protection.machine, "phase": one.phase.value, "reason": one.reason or None}
            for one in look.replicas
        ],
        approvals_waiting=len(look.approvals),
    )


def _machine_fields(watched: WatchedMachine) -> dict[str, Any]:
    return {
        "machine": watched.machine.name,
        "id": watched.machine.id,
        "platform": watched.machine.platform,
        "policy": watched.policy.name,
        "repository": watched.repository or None,
        "rpo": watched.policy.schedule.rpo or None,
        "state": watched.rpo,
        "until": output.utc_time(watched.until) if watched.until else None,
        "newest_at": output.utc_time(watched.newest) if watched.newest else None,
        "unreadable": watched.unreadable,
        "trial": watched.trial,
        "tried_at": output.utc_time(watched.tried_at) if watched.tried_at else None,
    }
