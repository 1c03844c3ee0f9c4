"""``hotspare machine``: which machines a platform has, and since when they are protected."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from hotspare.catalog.rows import PointRow, RunRow
from hotspare.cli import output
from hotspare.cli.documents import machine_fields
from hotspare.cli.help import closing, noun
from hotspare.cli.machine_mark import check, disk, hook, tag
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.session import Session
from hotspare.cli.tested import ago, boot_word
from hotspare.errors import HotspareError, MachineNotFound, PermissionRefused, PlatformUnavailable
from hotspare.platforms.choice import with_chosen_disks
from hotspare.platforms.platform import ALL_DISKS, Machine
from hotspare.units import format_bytes

app = noun("machine", "See which machines a platform has, and since when they are protected.")

app.command(
    tag,
    help_epilogue=closing(
        ["hotspare machine tag web add prod nightly", "hotspare machine tag web remove nightly"],
        PlatformUnavailable,
        MachineNotFound,
        PermissionRefused,
    ),
)
app.command(
    disk,
    help_epilogue=closing(
        ["hotspare machine disk db exclude vdb", "hotspare machine disk db include vdb"],
        PlatformUnavailable,
        MachineNotFound,
        PermissionRefused,
    ),
)

app.command(
    check,
    help_epilogue=closing(
        [
            "hotspare machine check db add postgresql tcp:5432,timeout=2m",
            "hotspare machine check db remove tcp:5432",
        ],
        PlatformUnavailable,
        MachineNotFound,
        PermissionRefused,
    ),
)

PlatformOption = Annotated[str | None, Parameter(name="--platform")]

Protection = Literal["never-backed-up", "ok", "failed", "gone"]


@dataclass(frozen=True, slots=True)
class _Line:
    """One machine of the list: known to the platform, or only from its restore points."""

    name: str
    id: str
    machine: Machine | None
    last: PointRow | None
    run: RunRow | None
    test: PointRow | None = None
    """The restore point whose trial is the last."""

    @property
    def protection(self) -> Protection:
        if self.machine is None:
            return "gone"
        if self.run is not None and self.run.outcome in {"failed", "lost"}:
            return "failed"
        return "ok" if self.last else "never-backed-up"


app.command(
    hook,
    help_epilogue=closing(
        ["hotspare machine hook db add postgresql,timeout=2m", "hotspare machine hook db remove postgresql"],
        PlatformUnavailable,
        MachineNotFound,
        PermissionRefused,
    ),
)


@app.command(
    name="list",
    help_epilogue=closing(
        ["hotspare machine list", "hotspare machine list --platform images:///srv/disks -o json"],
        PlatformUnavailable,
        PermissionRefused,
    ),
)
def list_machines(*, platform: PlatformOption = None, options: Options = DEFAULTS) -> None:
    """List the machines of a platform, each with its newest restore point as this host knows it.

    The state of a machine is "ok", "never-backed-up", "failed" (the last backup failed) or "gone" (there are
    restore points, but no such machine any more). What other hosts stored is known after "point list".

    Args:
        platform: URI of the platform; else HOTSPARE_PLATFORM, else qemu:///system.
        options: See below.
    """
    with Session(options, platform=platform) as session:
        opened = session.platform()
        lines = _lines(session, opened.uri, opened.machines())
        if session.as_json:
            output.print_document(
                output.document("machines", machines=[_line_fields(line) for line in lines])
            )
            return
        header = ("NAME", "POWER", "DISKS", "SIZE", "STATE", "LAST RESTORE POINT", "TESTED", "TAGS")
        output.print_table(header, [_cells(line) for line in lines], right=("DISKS", "SIZE"))


@app.command(
    help_epilogue=closing(
        ["hotspare machine show web", "hotspare machine show web --platform qemu:///system -o json"],
        PlatformUnavailable,
        MachineNotFound,
        PermissionRefused,
    )
)
def show(name: str, /, *, platform: PlatformOption = None, options: Options = DEFAULTS) -> None:
    """Describe one machine: its disks, and what of it can be backed up.

    Args:
        name: Name or id of the machine.
        platform: URI of the platform; else HOTSPARE_PLATFORM, else qemu:///system.
        options: See below.
    """
    with Session(options, platform=platform) as session:
        machine = with_chosen_disks(session.platform().inspect(name), ALL_DISKS)
        if session.as_json:
            output.print_document(output.document("machine", machine=machine_fields(machine)))
            return
        lines = {
            "Machine": machine.name,
            "Id": machine.id,
            "Platform": machine.platform,
            "Power": machine.state.value,
            "Size": f"{machine.cpus} CPUs, {format_bytes(machine.memory)} of memory",
            "Firmware": machine.firmware or "unknown",
            "Title": machine.title or "none",
            "Tags": ", ".join(machine.marks.tags) or "none",
            "Hooks": "; ".join(machine.marks.hooks) or "none",
            "Checks": "; ".join(machine.marks.checks) or "none",
        }
        for title, value in lines.items():
            output.print_text(f"{title + ':':10}{value}")
        output.print_text("Disks:")
        rows = [(disk.name, format_bytes(disk.size), disk.format, disk.source) for disk in machine.disks]
        output.print_table(("NAME", "SIZE", "FORMAT", "SOURCE"), rows, right=("SIZE",), indent="  ")
        for reason in machine.left_out:
            output.print_text(f"Not backed up: {reason}")


def _lines(session: Session, uri: str, machines: list[Machine]) -> list[_Line]:
    points, runs, tests = _known(session, uri)
    lines = [
        _Line(
            machine.name,
            machine.id,
            machine,
            points.pop(machine.id, None),
            _last_run(machine, runs),
            tests.get(machine.id),
        )
        for machine in machines
    ]
    gone = [
        _Line(point.machine_name, point.machine_id, None, point, None, tests.get(point.machine_id))
        for point in points.values()
    ]
    return sorted(lines + gone, key=lambda line: line.name)


def _last_run(machine: Machine, runs: dict[str, RunRow]) -> RunRow | None:
    # A backup is recorded under what the user called the machine: its name or its id.
    found = [runs[key] for key in (machine.name, machine.id) if key in runs]
    return max(found, key=lambda run: run.id, default=None)


def _known(session: Session, uri: str) -> tuple[dict[str, PointRow], dict[str, RunRow], dict[str, PointRow]]:
    """Give the last restore points, the last backups and the last trials, by machine."""
    # A catalog that cannot be used is no reason not to list machines; that they look unprotected is said.
    url = session.backend().url if session.settings.repository else None
    try:
        catalog = session.catalog()
        points = {point.machine_id: point for point in catalog.last_points(uri, url)}
        tests = {point.machine_id: point for point in catalog.last_tests(uri, url)}
        return points, catalog.last_backups(uri), tests
    except HotspareError as error:
        output.warn(f"Restore points are not shown. {error}")
        return {}, {}, {}


def _line_fields(line: _Line) -> dict[str, Any]:
    return {
        "name": line.name,
        "id": line.id,
        "power": line.machine.state.value if line.machine else None,
        "disks": len(line.machine.disks) if line.machine else None,
        "size": _size(line.machine) if line.machine else None,
        "tags": list(line.machine.marks.tags) if line.machine else None,
        "state": line.protection,
        "last_point": line.last.id if line.last else None,
        "last_point_at": output.utc_time(line.last.finished_at) if line.last else None,
        "last_error": line.run.error if line.run else None,
        "tested_point": line.test.id if line.test else None,
        "tested_at": output.utc_time(line.test.boot_at) if line.test and line.test.boot_at else None,
        "boots": line.test.boot_passed if line.test else None,
    }


def _cells(line: _Line) -> tuple[str, ...]:
    last = f"{line.last.id} ({output.local_time(line.last.finished_at)})" if line.last else "-"
    test = _test_words(line.test)
    if line.machine is None:
        return line.name, "-", "-", "-", line.protection, last, test, ""
    disks, size = str(len(line.machine.disks)), format_bytes(_size(line.machine))
    tags = ", ".join(line.machine.marks.tags)
    return line.name, line.machine.state.value, disks, size, line.protection, last, test, tags


def _test_words(test: PointRow | None) -> str:
    if test is None or test.boot_at is None:
        return "-"
    word = boot_word(passed=bool(test.boot_passed), life=test.boot_life or "")
    return f"{word}, verified {ago(test.boot_at)}"


def _size(machine: Machine) -> int:
    return sum(disk.size for disk in machine.disks)
