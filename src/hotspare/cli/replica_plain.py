"""The commands of ``hotspare replica`` for bare files and devices, and to get disks out of points."""

from pathlib import Path

from cyclopts import App

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.help import closing
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.progress import shown_progress
from hotspare.cli.quantities import parse_duration
from hotspare.cli.replica_state import State, agent_of, state_folder
from hotspare.errors import (
    MachineNotFound,
    NoSpace,
    PlatformUnavailable,
    PointNotFound,
    SourceLost,
    TargetExists,
)
from hotspare.events import DiskFinished, DiskStarted, Progress
from hotspare.platforms.replica.platform import ReplicaPlatform
from hotspare.replication.model import DEFAULT_RETENTION
from hotspare.replication.plain.extract import extract_disk
from hotspare.replication.plain.service import CREATE, CreatePlain
from hotspare.replication.plain.source import PlainSource
from hotspare.units import format_bytes


def add_commands(app: App) -> None:
    """Add these commands to ``hotspare replica``."""
    app.command(
        file,
        help_epilogue=closing(
            [
                "hotspare replica file /srv/iscsi/lun0.img --to standby --every 60s",
                "hotspare replica file /dev/sdb --to standby --name lun1 --freeze '/etc/san quiet' "
                "--thaw '/etc/san go'",
            ],
            PlatformUnavailable,
            MachineNotFound,
            TargetExists,
            SourceLost,
        ),
    )
    app.command(
        extract,
        help_epilogue=closing(
            [
                "hotspare replica extract lun0.img --to /srv/iscsi/lun0.img   # on the standby",
                "hotspare replica extract web01 --disk vda --point 20261126-1 --to /tmp/vda.raw",
            ],
            MachineNotFound,
            PointNotFound,
            TargetExists,
            NoSpace,
            interruptible=True,
        ),
    )


def file(
    path: Path,
    /,
    *,
    to: str,
    name: str = "",
    every: str = "60s",
    keep: str = DEFAULT_RETENTION,
    freeze: str = "",
    thaw: str = "",
    accept_torn: Switch = False,
    folder: Path | None = None,
    state: State = None,
    options: Options = DEFAULTS,
) -> None:
    """Keep a bare file or block device on a second host as well, without a hypervisor: by comparing.

    Run it on the host of the file. Each time, both hosts read all of it, and only what differs is sent. Where
    its file system can share blocks (Btrfs, XFS) a clone is read, which is as the file was at one instant.
    Elsewhere, what was written while it was read is no point, unless you accept that.

    Args:
        path: The file or device.
        to: Name of the host that keeps the replica; see "hotspare replica pair".
        name: What it is called; the file's name if not said.
        every: Time between two shipments.
        keep: Which points stay on the other host.
        freeze: Command that quiets whoever writes to it, run before each reading.
        thaw: Command that releases them again.
        accept_torn: Make points also of what was written while it was read. They are marked as "none".
        folder: Where the standby keeps the replica.
        state: Folder of this host's agent.
        options: See below.
    """
    source = PlainSource(path, name or path.name, freeze=freeze, thaw=thaw, accept_torn=accept_torn)
    asked = CreatePlain(
        source=source.uri,
        standby=to,
        interval=parse_duration(every),
        retention=keep,
        folder=str(folder or ""),
    )
    with agent_of(state, options) as agent:
        made = agent.call(CREATE, asked)
    if options.output == "json":
        output.print_document(output.document("protection", id=made.id, machine=made.machine))
    else:
        output.print_text(f"{made.machine} is kept on {to} from now on (protection {made.id}).")


def extract(
    machine: str,
    *,
    to: Path,
    point: str = "",
    disk: str | None = None,
    overwrite: Switch = False,
    folder: Path | None = None,
    state: State = None,
    options: Options = DEFAULTS,
) -> None:
    """Write a disk of a replica that this host keeps to a raw file or a device. Replication goes on.

    Args:
        machine: Whose replica, by name or id.
        to: A new file; or with --overwrite a file or device of the same size: only what differs is written.
        point: Beginning of the point's id; the newest if not said.
        disk: Which, where it has several.
        overwrite: Change what is there.
        folder: Where the replicas are; the agent's if not said.
        state: Folder of this host's agent.
        options: See below.
    """
    platform = ReplicaPlatform(folder or state_folder(state, options) / "replicas")
    with (
        cancelled_by_signals() as cancellation,
        shown_progress(options.progress_form, cancellation) as listener,
        platform.open_point(machine, point) as snapshot,
    ):
        name, label = snapshot.machine.name, disk or "disk"
        size = max(one.size for one in snapshot.disks)
        listener(DiskStarted(name, label, size, size, "restore"))
        written = extract_disk(
            snapshot,
            disk,
            to,
            overwrite=overwrite,
            on_progress=lambda done, sent: listener(Progress(name, label, done, sent)),
            cancellation=cancellation,
        )
        listener(DiskFinished(name, label))
    if options.output == "json":
        document = output.document(
            "extracted", machine=name, point=snapshot.point_id, path=str(to), bytes=written
        )
        output.print_document(document)
    else:
        output.print_text(f"{to} is {name} as at point {snapshot.point_id}: {format_bytes(written)}")
