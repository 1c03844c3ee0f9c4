"""``hotspare machine``: which machines a platform has, and since when they are protected."""

from typing import Annotated

from cyclopts import Parameter

from hotspare.catalog.rows import PointRow, RunRow
from hotspare.cli import output
from hotspare.cli.documents import machine_fields
from hotspare.cli.help import closing, noun
from hotspare.cli.machine_mark import check, disk, hook, tag
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.session import Session
from hotspare.cli.tested import ago, boot_word
from hotspare.documents.machine import ListedMachine, listed_fields, listed_machines
from hotspare.errors import HotspareError, MachineNotFound, PermissionRefused, PlatformUnavailable
from hotspare.platforms.choice import with_chosen_disks
from hotspare.platforms.platform import ALL_DISKS
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
        lines = listed_machines(opened.machines(), *_known(session, opened.uri))
        if session.as_json:
            output.print_document(
                output.document("machines", machines=[listed_fields(line) for line in lines])
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


def _cells(line: ListedMachine) -> tuple[str, ...]:
    last = f"{line.last.id} ({output.local_time(line.last.finished_at)})" if line.last else "-"
    test = _test_words(line.test)
    if line.machine is None:
        return line.name, "-", "-", "-", line.protection, last, test, ""
    disks, size = str(len(line.machine.disks)), format_bytes(line.size or 0)
    tags = ", ".join(line.machine.marks.tags)
    return line.name, line.machine.state.value, disks, size, line.protection, last, test, tags


def _test_words(test: PointRow | None) -> str:
    if test is None or test.boot_at is None:
        return "-"
    word = boot_word(passed=bool(test.boot_passed), life=test.boot_life or "")
    return f"{word}, verified {ago(test.boot_at)}"
