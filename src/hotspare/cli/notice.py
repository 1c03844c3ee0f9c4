"""``hotspare notice``: who is told when something is wrong, and what was told."""

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from hotspare.cli import output
from hotspare.cli.help import closing, noun
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.output import warn
from hotspare.cli.session import Session
from hotspare.errors import ConfigError, NoSpace, NoticeNotFound, NoticeNotSent, PermissionRefused
from hotspare.notices.delivery import Delivery, deliver, send_within
from hotspare.notices.outbox import Notice, Outbox
from hotspare.policy.document import all_fields, write_receivers
from hotspare.policy.occurrence import Occurrence
from hotspare.policy.receiver import Receiver

app = noun("notice", "See who is told when something is wrong, try that out, and see what was sent.")


@app.command(
    name="list",
    help_epilogue=closing(["hotspare notice list", "hotspare notice list -o json"], PermissionRefused),
)
def list_receivers(*, options: Options = DEFAULTS) -> None:
    """List who is told of what; the URLs themselves are not shown.

    Args:
        options: See below.
    """
    with Session(options) as session:
        receivers = session.policies().receivers().values()
        if session.as_json:
            fields = [all_fields(receiver) for receiver in receivers]
            output.print_document(output.document("notices", notices=fields))
            return
        header = ("RECEIVER", "ENABLED", "EVENTS", "ABOUT", "DELIVERY", "URL IN")
        output.print_table(header, [_cells(receiver) for receiver in receivers])


@app.command(help_epilogue=closing(["hotspare notice show oncall"], NoticeNotFound, PermissionRefused))
def show(name: str, /, *, options: Options = DEFAULTS) -> None:
    """Show a receiver as YAML; without the URL, which only its file or variable has.

    Args:
        name: Name of the receiver.
        options: See below.
    """
    with Session(options) as session:
        receiver = _receiver(session, name)
        if session.as_json:
            output.print_document(output.document("notice", notice=all_fields(receiver)))
        else:
            path = session.policies().path("notices")
            output.print_text(f"# {path}\n{write_receivers({name: receiver}).rstrip()}")


@app.command(
    name="test",
    help_epilogue=closing(
        ["hotspare notice test oncall"], NoticeNotFound, NoticeNotSent, ConfigError, PermissionRefused
    ),
)
def try_out(name: str, /, *, options: Options = DEFAULTS) -> None:
    """Send a receiver a message now, and say whether it took it.

    Args:
        name: Name of the receiver.
        options: See below.
    """
    with Session(options) as session:
        receiver = _receiver(session, name)
        _warn_of_readers(receiver)
        trial = Occurrence(
            kind="test",
            state="once",
            subject=name,
            title="This is a test",
            at=datetime.now(UTC),
            text=f"Somebody ran 'hotspare notice test {name}'. Nothing is wrong.",
        )
        error = send_within(receiver, [trial], os.environ)
        with Outbox.open(session.settings.state_folder, warn) as outbox:
            outbox.add_ended(name, trial, error)
        if error is not None:
            raise NoticeNotSent(
                f"Receiver {name} was not reached: {error}",
                meaning="It would not learn of anything that is wrong",
                hint=f"See that the URL in {receiver.place} is right",
            )
        if session.as_json:
            output.print_document(output.document("notice-tested", receiver=name))
        else:
            output.print_text(f"Receiver {name} took the message.")


@app.command(
    help_epilogue=closing(
        ["hotspare notice send", "hotspare notice send -o json"], NoticeNotSent, NoSpace, PermissionRefused
    )
)
def send(*, options: Options = DEFAULTS) -> None:
    """Send what is due; the server and the watchdog do so by themselves. For a timer where neither runs.

    Args:
        options: See below.
    """
    with Session(options) as session:
        receivers = session.policies().receivers()
        with Outbox.open(session.settings.state_folder, warn) as outbox:
            done = deliver(outbox, receivers, os.environ)
        _tell(session, done)


@app.command(
    name="send-digest",
    help_epilogue=closing(
        ["hotspare notice send-digest team"], NoticeNotFound, NoticeNotSent, NoSpace, PermissionRefused
    ),
)
def send_digest(name: str, /, *, options: Options = DEFAULTS) -> None:
    """Send all that waits for a receiver now, without waiting for the time of its digest.

    Args:
        name: Name of the receiver.
        options: See below.
    """
    with Session(options) as session:
        receiver = _receiver(session, name)
        with Outbox.open(session.settings.state_folder, warn) as outbox:
            done = deliver(outbox, {name: receiver}, os.environ, only=name)
        _tell(session, done)


@app.command(
    help_epilogue=closing(
        ["hotspare notice log", "hotspare notice log --receiver oncall --limit 5"],
        PermissionRefused,
        NoSpace,
    )
)
def log(
    *,
    receiver: str | None = None,
    limit: Annotated[PositiveInt, Parameter(name=("--limit", "-n"))] = 20,
    options: Options = DEFAULTS,
) -> None:
    """List the newest notices: what waits, what was sent, and what was given up and why.

    Args:
        receiver: Only those for this one.
        limit: How many.
        options: See below.
    """
    with Session(options) as session:
        with Outbox.open(session.settings.state_folder, warn) as outbox:
            notices = outbox.log(limit, receiver)
        if session.as_json:
            output.print_document(output.document("notice-log", notices=[_fields(one) for one in notices]))
            return
        header = ("NOTED", "RECEIVER", "EVENT", "STATE", "TRIES", "WHAT", "DETAIL")
        output.print_table(header, [_log_cells(one) for one in notices], right=("TRIES",))


def _receiver(session: Session, name: str) -> Receiver:
    receivers = session.policies().receivers()
    if name not in receivers:
        raise NoticeNotFound(
            f"There is no receiver '{name}' in {session.policies().path('notices')}",
            meaning="Nothing was sent",
            hint=f"Those that there are: {', '.join(receivers) or 'none'}",
        )
    return receivers[name]


def _warn_of_readers(receiver: Receiver) -> None:
    """Warn of a file with a URL that others than its owner may read; one that is not there is told later."""
    with suppress(OSError):
        if receiver.url_file and Path(receiver.url_file).stat().st_mode & 0o077:
            warn(f"Others than its owner may read {receiver.url_file}, which may hold a password or token")


def _tell(session: Session, done: list[Delivery]) -> None:
    failed = [one for one in done if one.error is not None]
    if session.as_json:
        fields = [{"receiver": one.receiver, "notices": one.notices, "error": one.error} for one in done]
        output.print_document(output.document("notices-sent", deliveries=fields))
    else:
        for one in done:
            how = f"not sent, and tried again later: {one.error}" if one.error else "sent"
            output.print_text(f"{one.receiver}: {one.notices} {how}")
        if not done:
            output.print_text("Nothing is due.")
    if failed:
        raise NoticeNotSent(
            f"{len(failed)} of {len(done)} messages were not taken",
            meaning="What they say is kept, and tried again for about a day",
            hint="See 'hotspare notice log'",
        )


def _cells(receiver: Receiver) -> tuple[str, ...]:
    match = receiver.match
    about = [
        *match.machines,
        *(f"not {pattern}" for pattern in match.exclude),
        *(f"policy {pattern}" for pattern in match.policies),
        *(f"tag {tag}" for tag in match.tags),
    ]
    least = match.severity or ("info" if match.events else "warning")
    digest = f"daily at {receiver.digest_at} {receiver.time_zone}".rstrip()
    return (
        receiver.name,
        "yes" if receiver.enabled else "no",
        ", ".join(match.events) or f"all of severity {least} and above",
        ", ".join(about) or "all",
        digest if receiver.delivery == "digest" else "immediate",
        receiver.place,
    )


def _fields(notice: Notice) -> dict[str, Any]:
    one = notice.occurrence
    return {
        "receiver": notice.receiver,
        "event": one.kind,
        "problem": one.state,
        "severity": one.severity,
        "title": one.title,
        "text": one.text,
        "machine": one.machine or None,
        "policy": one.policy or None,
        "at": output.utc_time(one.at),
        "noted_at": output.utc_time(notice.noted_at),
        "due_at": output.utc_time(notice.due_at),
        "digest": notice.digest,
        "state": notice.state,
        "attempts": notice.attempts,
        "ended_at": output.utc_time(notice.ended_at) if notice.ended_at else None,
        "error": notice.error,
    }


def _log_cells(notice: Notice) -> tuple[str, ...]:
    one = notice.occurrence
    waits = f"until {output.local_time(notice.due_at)}" if notice.state == "waiting" else ""
    return (
        output.local_time(notice.noted_at),
        notice.receiver,
        f"{one.kind} mended" if one.state == "mended" else one.kind,
        notice.state,
        str(notice.attempts),
        one.title,
        "; ".join(part for part in (waits, notice.error or "") if part),
    )
