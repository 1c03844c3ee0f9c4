"""``hotspare backup``: back up machines one after the other, all of a host, or one disk image.

Its options are in ``backup_options.py``, what it says at its end in ``backup_results.py``.
"""

from collections.abc import Sequence
from pathlib import Path

from hotspare.backup.select import select_machines
from hotspare.cli import output
from hotspare.cli.backup_continuous import ONCE, Repetition, back_up_continuously
from hotspare.cli.backup_options import ANY, USUAL, Manner, Selection
from hotspare.cli.backup_results import print_results, refuse_failures, results_document
from hotspare.cli.backup_runs import Backups, EngineHere, WantedMachine
from hotspare.cli.documents import machine_fields
from hotspare.cli.help import OPENING, closing, noun
from hotspare.cli.history import History
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.session import Session
from hotspare.errors import (
    ConsistencyNotReached,
    MachineNotFound,
    NoSpace,
    PartialFailure,
    PlatformUnavailable,
    SourceLost,
    TrackingWrong,
    UsageError,
)
from hotspare.platforms.choice import with_chosen_disks
from hotspare.platforms.images.platform import ImagesPlatform
from hotspare.platforms.platform import DiskChoice, Platform
from hotspare.repository.repository import Repository
from hotspare.units import format_bytes

app = noun("backup", "Back up machines, or a disk image.")


@app.default
def backup(
    *machines: str,
    selection: Selection = ANY,
    manner: Manner = USUAL,
    repetition: Repetition = ONCE,
    options: Options = DEFAULTS,
) -> None:
    """Back up machines, running or not, one after the other: those named or chosen; or an image.

    Only what changed since the machine's last restore point in this repository is read, where the platform
    can tell; why a disk is read in full is said. Every restore point is complete in itself.

    Args:
        machines: Names or ids of machines.
        selection: See below.
        manner: See below.
        repetition: See below.
        options: See below.
    """
    _refuse_contradictions(machines, selection)
    plan = repetition.plan
    if plan is not None and (len(machines) != 1 or manner.dry_run):
        raise UsageError(
            "--every is for one machine that is named, without --dry-run",
            meaning="Nothing was backed up",
            hint="For several machines run one command each, or replicate them",
        )
    with Session(options, platform=selection.platform or selection.host) as session:
        if plan is not None:
            repository = session.repository(cached=True)
            back_up_continuously(session, repository, machines[0], manner.for_engine(), plan)
            return
        source = _source(session, selection.image, selection.name)
        repository = session.repository(cached=True)
        wanted = _wanted(source, machines, selection)
        if manner.dry_run:
            _tell_plan(session, repository, source, wanted, manner.disks)
            return
        engine = EngineHere(repository, source, manner.for_engine())
        run = Backups(History(session, repository.backend.url), engine)
        results = run.of(wanted, session.options.progress_form)
        if session.as_json:
            output.print_document(results_document(results))
        else:
            print_results(results, alone=len(wanted) == 1)
        refuse_failures(results)


app.help_epilogue = closing(
    [
        "hotspare backup web db",
        "hotspare backup web --full --consistency crash",
        "hotspare backup db --hook postgresql --require-consistency",
        "hotspare backup --all --exclude 'test-*'",
        "hotspare backup --host qemu:///system --tag nightly --exclude-disk vdb",
        "hotspare backup web --latency-factor 1.5 --read-limit 100MiB/s",
        "hotspare backup web --check-tracking 5",
        "hotspare backup web --every 60s --thin '1m for 1h, 1h for 1d'",
        "hotspare backup --image old-server.vmdk --name old-server",
        "hotspare backup web -o json | jq -r .results[0].point.id",
    ],
    PartialFailure,
    *OPENING,
    PlatformUnavailable,
    MachineNotFound,
    NoSpace,
    SourceLost,
    ConsistencyNotReached,
    TrackingWrong,
    interruptible=True,
)


def _refuse_contradictions(machines: Sequence[str], selection: Selection) -> None:
    ways = [bool(machines), selection.whole_host, bool(selection.image)]
    problem = None
    if not any(ways):
        problem = "--name belongs to --image" if selection.name else "No machine is named"
    elif sum(ways) > 1:
        problem = "Machines by name, choosing among all, and --image exclude each other"
    elif bool(selection.image) != bool(selection.name):
        problem = "--image and --name go together"
    elif selection.platform and (selection.image or selection.host):
        problem = "--platform goes neither with --image nor with --host"
    if problem:
        raise UsageError(problem, meaning="Nothing was backed up", hint='See "hotspare backup --help"')


def _source(session: Session, image: Path | None, name: str | None) -> Platform:
    if image is None or name is None:
        return session.platform()
    return session.keep_platform(ImagesPlatform.for_image(image, name))


def _wanted(platform: Platform, machines: Sequence[str], selection: Selection) -> list[WantedMachine]:
    if not selection.whole_host:
        named = [selection.name] if selection.name else list(dict.fromkeys(machines))
        return [WantedMachine(name, name) for name in named]
    chosen = select_machines(platform.machines(), selection.choice)
    if not chosen:
        raise MachineNotFound(
            f"No machine of {platform.uri} is chosen",
            meaning="Nothing was backed up",
            hint="See 'hotspare machine list' for names and tags",
        )
    return [
        WantedMachine(machine.name, machine.id, listed=True, tags=machine.marks.tags) for machine in chosen
    ]


def _tell_plan(
    session: Session,
    repository: Repository,
    platform: Platform,
    wanted: Sequence[WantedMachine],
    disks: DiskChoice,
) -> None:
    machines = [with_chosen_disks(platform.inspect(one.reference), disks) for one in wanted]
    newest = [repository.machine_points(machine.id)[-1:] for machine in machines]
    if session.as_json:
        planned = [
            {"machine": machine_fields(machine), "parent": point[0].id if point else None}
            for machine, point in zip(machines, newest, strict=True)
        ]
        output.print_document(output.document("backup-plan", machines=planned))
        return
    for machine, point in zip(machines, newest, strict=True):
        since = f"since restore point {point[0].id}" if point else "for the first time"
        output.print_text(f"{machine.name} ({machine.state.value}) would be backed up {since}:")
        for disk in machine.disks:
            output.print_text(f"  {disk.name}: {format_bytes(disk.size)}, {disk.format}, {disk.source}")
        for reason in machine.left_out:
            output.print_text(f"  left out: {reason}")
