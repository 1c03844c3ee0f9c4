"""``hotspare mover``: the end of a command on the host of the machines."""

import os
import sys
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from hotspare.cli import output
from hotspare.cli.directed import Directions, given
from hotspare.cli.directing import STORE_VARIABLES
from hotspare.cli.help import closing, noun
from hotspare.cli.main import main
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.session import Session
from hotspare.documents.host import HostReport, host_document
from hotspare.errors import PermissionRefused, PlatformUnavailable, StorageError, UsageError
from hotspare.fleet.host import ThisHost
from hotspare.mover.host import ControlHost, serve_control
from hotspare.mover.wire import Secret, Start
from hotspare.repository.keys.slot import Credential, KeyFile, Passphrase, RecoveryKey

app = noun("mover", "Do a command's work on this host, for a user of another.")


@app.default
def mover(*, options: Options = DEFAULTS) -> None:
    """Run one command for another host, over standard input and output.

    This is what --platform qemu+ssh://HOST/system starts on HOST, over SSH; it is not for people to call. All
    that it needs comes over the connection, the passphrase too; nothing is kept.

    Args:
        options: See below.
    """
    del options
    if sys.stdin.isatty() or sys.stdout.isatty():
        raise UsageError(
            "'hotspare mover' talks to a program, and this is a terminal",
            meaning="Nothing was done",
            hint="It is started over SSH by commands with --platform qemu+ssh://HOST/system",
        )
    # What is printed by mistake must not get between the messages.
    sink = os.dup(1)
    os.dup2(2, 1)
    try:
        serve_control(0, sink, _run)
    finally:
        os.close(sink)


@app.command(
    help_epilogue=closing(
        ["hotspare mover host", "hotspare mover host --seconds 3 -o json"],
        PlatformUnavailable,
        PermissionRefused,
    )
)
def host(
    *,
    platform: Annotated[str | None, Parameter(show_default=False)] = None,
    seconds: Annotated[float, Parameter(validator=Number(gte=0, lte=600))] = 0.0,
    options: Options = DEFAULTS,
) -> None:
    """Say which machines this host has, on what their disks lie, and what new machines can be given.

    That is what a server asks which backs up and restores machines of this host; nothing is kept of it.

    Args:
        platform: URI of the platform; else HOTSPARE_PLATFORM, else qemu:///system.
        seconds: For how long to look how busy it is; 0 does not look.
        options: See below.
    """
    with Session(options, platform=platform) as session:
        here = ThisHost(session.platform())
        machines = here.machines()
        pools = {one.id: here.pools(one) for one in machines}
        load = here.load(seconds) if seconds else None
        report = HostReport(machines, pools, load, here.offers())
        if session.as_json:
            output.print_document(host_document(report))
            return
        rows = [(one.name, one.state.value, ", ".join(sorted(pools[one.id])) or "-") for one in machines]
        output.print_table(("MACHINE", "POWER", "POOLS"), rows)
        for what, names in asdict(report.offers).items():
            output.print_text(f"For new machines, {what}: {', '.join(names) or 'none'}")


app.help_epilogue = closing(
    ["hotspare mover", "hotspare backup web --platform qemu+ssh://root@host/system  # starts it there"],
    StorageError,
)


def _run(start: Start, control: ControlHost) -> int:
    passed = {name: value for name, value in start.environment.items() if name.startswith(STORE_VARIABLES)}
    os.environ.update(passed)
    folder, url = start.served, start.settings.get("repository", "")
    progress = start.progress if start.progress in {"jsonl", "none"} else "auto"
    directions = Directions(
        settings=start.settings,
        progress="jsonl" if progress == "jsonl" else "none" if progress == "none" else "auto",
        credential=lambda: _credential(control.ask_secret()),
        has_credential=start.has_secret,
        open_store=(lambda: control.open_store(url, folder)) if folder is not None else None,
        known_as=start.known_as,
        claim=control,
    )
    told = given.set(directions)
    try:
        return main(list(start.words))
    finally:
        given.reset(told)


def _credential(secret: Secret) -> Credential:
    if secret.kind == KeyFile.kind:
        return KeyFile(secret.content)
    if secret.kind == RecoveryKey.kind:
        return RecoveryKey(secret.content)
    return Passphrase(secret.content.decode())
