"""``hotspare restore``: a machine as a new one or over itself, or some of its disks as files."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.confirmation import confirm as ask
from hotspare.cli.directed import claim_on_runs
from hotspare.cli.documents import left_out, machine_fields
from hotspare.cli.help import OPENING, closing, noun
from hotspare.cli.history import History
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.placement import AS_USUAL, PlacementOptions, assignments, print_plan
from hotspare.cli.progress import shown_progress
from hotspare.cli.restore_elsewhere import restore_there
from hotspare.cli.restore_ends import confirm, in_place_platform, undo
from hotspare.cli.session import Session
from hotspare.documents.plan import plan_fields
from hotspare.errors import (
    HotspareError,
    MachineNotFound,
    NoSpace,
    PlatformUnavailable,
    PointNotFound,
    SourceLost,
    TargetExists,
    UsageError,
)
from hotspare.platforms.placement import TargetPlan
from hotspare.platforms.platform import Machine, Platform, Target, TargetRequest
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.repository.select import find_point
from hotspare.restore.disk import DiskOptions, restore_disks
from hotspare.restore.machine import machine_of, plan_with_data, refuse_no_space, restore_machine
from hotspare.units import format_bytes

app = noun("restore", "Restore a machine as a new one or over itself, or single disks to files.")

_SEE = 'See "hotspare restore --help"'
_FLAG = Parameter(negative="", show_default=False)

DiskFormat = Literal["raw", "qcow2", "vmdk", "vhdx", "vdi"]

for _command, _examples in (
    (undo, ["hotspare restore undo web", "hotspare restore undo web --force --yes"]),
    (confirm, ["hotspare restore confirm web"]),
):
    app.command(
        _command, help_epilogue=closing(_examples, MachineNotFound, PlatformUnavailable, SourceLost, NoSpace)
    )


@app.default
def restore(
    point: str,
    /,
    *,
    to: str | None = None,
    in_place: Annotated[bool, _FLAG] = False,
    disk: Annotated[list[str] | None, Parameter(negative="", consume_multiple=False)] = None,
    platform: Annotated[str | None, Parameter(name="--platform")] = None,
    start: Annotated[bool, _FLAG] = False,
    power_off: Annotated[bool, _FLAG] = False,
    yes: Annotated[bool, Parameter(name=("--yes", "-y"), negative="", show_default=False)] = False,
    format: DiskFormat | None = None,  # noqa: A002 - the name of the option
    differential: Annotated[bool, _FLAG] = False,
    force: Annotated[bool, _FLAG] = False,
    dry_run: Annotated[bool, _FLAG] = False,
    where: PlacementOptions = AS_USUAL,
    options: Options = DEFAULTS,
) -> None:
    """Restore a machine as a new one (--to), over itself (--in-place), or single disks (--disk).

    A restore that was killed, or lost its connection, goes on where it was when it is run again.

    Args:
        point: Id of a restore point or the beginning of one; or a machine's name, for its newest.
        to: Name of the new machine. It is left powered off.
        in_place: Restore the machine over itself; only blocks that differ are written. It is left powered
            off, and "restore undo" brings back what it was, until "restore confirm".
        disk: A disk and the file or device it goes to, as DISK=PATH; may be given again.
        platform: URI of the platform that gets the machine; else HOTSPARE_PLATFORM, else qemu:///system.
        start: Power the machine on.
        power_off: With --in-place: power it off first.
        yes: With --in-place: do not ask.
        format: With --disk: format of the image; else as PATH ends (.qcow2, .vmdk, .vhdx, .vdi), or raw.
        differential: With --disk: write over what is at PATH, and only the blocks that differ.
        force: With --disk: overwrite what is at PATH.
        dry_run: Only show what would be made: names, disks, places, sizes, free space.
        where: See below.
        options: See below.
    """
    disk_options = DiskOptions(force=force, differential=differential, format=format)
    _refuse_mixed(to, disk, where, disk_options, in_place=in_place, power_off=power_off, yes=yes)
    if disk and (platform or start or dry_run):
        raise UsageError(
            "--platform, --start and --dry-run do not go with --disk",
            meaning="Nothing was restored",
            hint=_SEE,
        )
    with Session(options, platform=platform) as session:
        other = session.other_host_at(session.settings.platform) if to and not dry_run else None
        if disk:
            _restore_disks(session, point, _targets(disk), disk_options)
        elif other is not None and to:
            restore_there(session, other, point, to, where, start=start)
        else:
            request = TargetRequest(name=to, folder=where.folder, placement=where.placement()) if to else None
            shape = _Shape(session, request, power_off=power_off, yes=yes)
            _restore_machine(session, point, shape, start=start, dry_run=dry_run)


app.help_epilogue = closing(
    [
        "hotspare restore web --to web-again --start",
        "hotspare restore 20261123-021500-k3fz7 --to web-again --pool fast --place vdb=/srv/disks",
        "hotspare restore web --to web --keep-uuid --keep-macs --map-network lab=default --dry-run",
        "hotspare restore 20261123-0215 --in-place --power-off --start",
        "hotspare restore web@latest --disk vda=/tmp/web.vmdk",
        "hotspare restore web --disk vda=/dev/vg0/web --differential",
    ],
    *OPENING,
    PlatformUnavailable,
    PointNotFound,
    MachineNotFound,
    NoSpace,
    SourceLost,
    TargetExists,
    interruptible=True,
)


def _refuse_mixed(
    to: str | None,
    disk: list[str] | None,
    where: PlacementOptions,
    disk_options: DiskOptions,
    *,
    in_place: bool,
    power_off: bool,
    yes: bool,
) -> None:
    problem = ""
    if [bool(to), in_place, bool(disk)].count(True) != 1:
        problem = "One of --to, --in-place and --disk is needed"
    elif not disk and disk_options != DiskOptions():
        problem = "--force, --differential and --format go with --disk only"
    elif not to and where != AS_USUAL:
        problem = "What says where a new machine goes, or what it keeps, goes with --to only"
    elif not in_place and (power_off or yes):
        problem = "--power-off and --yes go with --in-place only"
    elif disk_options.differential and disk_options.force:
        problem = "--force and --differential exclude each other"
    if problem:
        raise UsageError(problem, meaning="Nothing was restored", hint=_SEE)


class _Shape:
    """Whether a machine is restored as a new one, as ``request`` says, or over itself."""

    def __init__(
        self, session: Session, request: TargetRequest | None, *, power_off: bool, yes: bool
    ) -> None:
        self.platform: Platform = session.platform()
        self.in_place = request is None
        self._request = request
        self._power_off = power_off
        self._yes = yes

    def plan(self, repository: Repository, point: RestorePoint) -> TargetPlan:
        """Look at everything before anything is written. Raises as ``Platform.plan_target``."""
        machine = machine_of(point)
        if self._request is None:
            found = in_place_platform(self.platform).plan_replacement(machine)
        else:
            found = self.platform.plan_target(machine, self._request)
        plan = plan_with_data(repository, point, found)
        if self._request is not None:
            refuse_no_space(plan)  # over itself, less is written, but nobody knows yet how much
        return plan

    def agree(self, plan: TargetPlan, point: RestorePoint) -> Callable[[Machine], Target]:
        """Ask where that is needed; give what starts to make the machine."""
        request = self._request
        if request is not None:
            return lambda machine: self.platform.create_target(machine, request)
        when = output.local_time(point.finished_at)
        off = " It is powered off if it runs." if self._power_off else ""
        ask(
            f"Restore {plan.name} over itself, as it was on {when}?{off}",
            "Nothing was restored",
            yes=self._yes,
        )
        host = in_place_platform(self.platform)
        return lambda machine: host.replace_machine(machine, power_off=self._power_off)


def _restore_machine(session: Session, reference: str, shape: _Shape, *, start: bool, dry_run: bool) -> None:
    repository = session.repository(cached=True)
    point = find_point(repository, reference)
    plan = shape.plan(repository, point)
    if dry_run:
        if session.as_json:
            fields = {"point": point.id, "in_place": shape.in_place, "plan": plan_fields(plan)}
            output.print_document(output.document("restore-plan", **fields))
        else:
            print_plan(plan, point, in_place=shape.in_place)
        return
    for warning in plan.warnings:
        output.warn(warning)
    create = shape.agree(plan, point)
    history = History(session, repository.backend.url)
    with (
        history.run("restore", plan.name, shape.platform.uri) as run,
        cancelled_by_signals() as cancellation,
        shown_progress(session.options.progress_form, cancellation) as listener,
    ):
        run.point = point.id
        machine, written = restore_machine(
            repository,
            point,
            plan.name,
            create,
            run.watching(listener),
            cancellation,
            claim_on_runs().before_commit,
        )
        if start:
            _start(shape.platform, plan.name)
    if session.as_json:
        fields = {
            "point": point.id,
            "machine": machine_fields(machine),
            "started": start,
            "without": left_out(point),
            "in_place": shape.in_place,
            "bytes_compared": written.compared,
            "bytes_written": written.written,
        }
        output.print_document(output.document("restore", **fields))
        return
    state = "and powered on" if start else "powered off"
    output.print_text(
        f"Restored {point.machine_name} of {output.local_time(point.finished_at)} as {machine.name}, {state};"
        f" {format_bytes(written.compared)} compared, {format_bytes(written.written)} written:"
    )
    for disk in machine.disks:
        output.print_text(f"  {disk.name}: {format_bytes(disk.size)}, {disk.source}")
    for reason in left_out(point):
        output.print_text(f"  without {reason}")
    if shape.in_place:
        output.print_text(
            f"What it was is kept. To bring it back: hotspare restore undo {machine.name}. To give it up:"
            f" hotspare restore confirm {machine.name}"
        )


def _start(platform: Platform, name: str) -> None:
    try:
        platform.start(name)
    except HotspareError as error:
        raise type(error)(
            f"{name} was restored but did not start: {error.what}",
            meaning="All its data is there; it is powered off",
            hint=error.hint or "Start it with the platform's own tools, which say more",
        ) from error


def _restore_disks(session: Session, reference: str, targets: dict[str, Path], how: DiskOptions) -> None:
    repository = session.repository(cached=True)
    point = find_point(repository, reference)
    history = History(session, repository.backend.url)
    with (
        history.run("restore", point.machine_name, "") as run,
        cancelled_by_signals() as cancellation,
        shown_progress(session.options.progress_form, cancellation) as listener,
    ):
        run.point = point.id
        written = restore_disks(repository, point, targets, how, run.watching(listener), cancellation)
    sizes = {disk.name: disk.size for disk in point.disks}
    if session.as_json:
        disks = [
            {
                "disk": name,
                "path": str(path),
                "format": how.format_of(path),
                "size": sizes[name],
                "bytes_compared": written[name].compared,
                "bytes_written": written[name].written,
            }
            for name, path in targets.items()
        ]
        output.print_document(output.document("restore-disks", point=point.id, disks=disks))
        return
    for name, path in targets.items():
        output.print_text(
            f"Restored {name} of {point.machine_name}, {format_bytes(sizes[name])}, of"
            f" {output.local_time(point.finished_at)} to {path};"
            f" {format_bytes(written[name].compared)} compared,"
            f" {format_bytes(written[name].written)} written."
        )


def _targets(given: list[str]) -> dict[str, Path]:
    targets = {name: Path(path) for name, path in assignments("--disk", "DISK=PATH", given).items()}
    if len(set(targets.values())) < len(targets):
        raise UsageError("--disk names a path a second time", meaning="Nothing was restored")
    return targets
