"""``hotspare point``: see restore points, serve their disks, and forget them."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.documents import point_fields, point_mode, print_left_out, print_point_disks
from hotspare.cli.help import OPENING, closing, noun
from hotspare.cli.history import History
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.point_definition import definition
from hotspare.cli.point_forget import forget
from hotspare.cli.point_keep import keep, release
from hotspare.cli.session import Session
from hotspare.cli.tested import print_tested, tested_words
from hotspare.documents.tested import tested_fields
from hotspare.errors import (
    FileSystemUnreadable,
    PathNotFound,
    PermissionRefused,
    PointKept,
    PointNotFound,
    TargetExists,
)
from hotspare.repository.point import RestorePoint, of_machines
from hotspare.repository.repository import Repository
from hotspare.repository.select import find_point
from hotspare.repository.tested import read_all_tested, read_screen, read_tested
from hotspare.restore.serve import serve_point
from hotspare.units import format_bytes, format_duration

app = noun("point", "See restore points, serve their disks, forget them.")

app.command(
    forget,
    help_epilogue=closing(
        [
            "hotspare point forget 20261123-021500-k3fz7",
            "hotspare point forget 20261123-021500-k3fz7 20261124-021500-p8s2d --yes",
        ],
        PointNotFound,
        PointKept,
        *OPENING,
    ),
)

app.command(
    # What reads file systems is imported when it is used.
    "hotspare.cli.point_diff:diff",
    name="diff",
    help="Show which files, and how many bytes of disks, changed between two restore points.",
    help_epilogue=closing(
        [
            "hotspare point diff 20261123-0215 web",
            "hotspare point diff 20261123-0215 20261124-0215 /etc --content",
            "hotspare point diff 20261123-0215 web --disks",
        ],
        PointNotFound,
        PathNotFound,
        FileSystemUnreadable,
        *OPENING,
        interruptible=True,
    ),
)
app.command(
    keep,
    help_epilogue=closing(
        ["hotspare point keep web", "hotspare point keep 20261123-0215 --until 2027-01-01"],
        PointNotFound,
        *OPENING,
    ),
)
app.command(
    definition,
    help_epilogue=closing(
        [
            "hotspare point definition web",
            "hotspare point definition 20261123-0215 -o json",
            "hotspare point definition web --secrets > web.xml",
        ],
        PointNotFound,
        *OPENING,
    ),
)
app.command(release, help_epilogue=closing(["hotspare point release 20261123-0215"], PointNotFound, *OPENING))


@app.command(
    name="list",
    help_epilogue=closing(
        ["hotspare point list", "hotspare point list --machine web", "hotspare point list -o json"], *OPENING
    ),
)
def list_points(*, machine: str | None = None, options: Options = DEFAULTS) -> None:
    """List the restore points of the repository, the oldest first.

    Args:
        machine: Only those of the machine with this name or id.
        options: See below.
    """
    with Session(options) as session:
        repository = session.repository()
        every = of_machines(repository.points(lambda _name, error: output.warn(str(error))))
        tested = read_all_tested(repository.backend, repository.keyring)
        History(session, repository.backend.url).replace_points(every, tested)
        points = [point for point in every if machine in {None, point.machine_name, point.machine_id}]
        if session.as_json:
            fields = [point_fields(point) | tested_fields(tested.get(point.id)) for point in points]
            output.print_document(output.document("points", points=fields))
            return
        header = ("POINT", "MACHINE", "FINISHED", "MODE", "CONSISTENCY", "SIZE", "READ", "STORED", "TESTED")
        cells = [(*_cells(point), tested_words(tested.get(point.id))) for point in points]
        output.print_table(header, cells, right=("SIZE", "READ", "STORED"))


@app.command(
    help_epilogue=closing(
        [
            "hotspare point show web",
            "hotspare point show 20261123-0215 -o json",
            "hotspare point show web --screenshot web.png",
        ],
        PointNotFound,
        *OPENING,
    )
)
def show(point: str, /, *, screenshot: Path | None = None, options: Options = DEFAULTS) -> None:
    """Describe one restore point: its disks, how they were read, what they took, and how its tests went.

    Args:
        point: Id of a restore point or the beginning of one; or a machine's name, for its newest.
        screenshot: Write the picture of its console that the last boot test took to this file, as PNG.
        options: See below.
    """
    with Session(options) as session:
        repository = session.repository(cached=True)
        found = find_point(repository, point)
        tested = read_tested(repository.backend, repository.keyring, found.id)
        if screenshot is not None:
            _write_screenshot(repository, found, screenshot)
        if session.as_json:
            # The native definition stays out: it holds the passwords of the machine's consoles.
            description = {key: value for key, value in found.machine.items() if key != "native"}
            fields = {"point": point_fields(found) | tested_fields(tested), "description": description}
            output.print_document(output.document("point", **fields))
            return
        lines = {
            "Restore point": found.id,
            "Machine": f"{found.machine_name} ({found.machine_id})",
            "Platform": found.platform,
            "Started": output.local_time(found.started_at),
            "Finished": output.local_time(found.finished_at),
            "Consistency": found.consistency,
            "Frozen": format_duration(found.frozen_seconds) if found.frozen_seconds else "not at all",
            "Compared with": found.parent or "nothing",
        }
        for title, value in lines.items():
            output.print_text(f"{title + ':':15}{value}")
        for warning in found.warnings:
            output.print_text(f"Warning: {warning}")
        output.print_text("Disks:")
        print_point_disks(found)
        print_left_out(found)
        print_tested(tested)


def _write_screenshot(repository: Repository, point: RestorePoint, path: Path) -> None:
    picture = read_screen(repository.backend, repository.keyring, point.id)
    if picture is None:
        raise PointNotFound(
            f"There is no picture of a console with {point.id}",
            meaning="Nothing was written",
            hint=f"Take one with: hotspare verify --boot {point.id}",
        )
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise PermissionRefused(f"The picture cannot be written to {path}: {error.strerror}") from error


@app.command(
    help_epilogue=closing(
        [
            "hotspare point serve web",
            "hotspare point serve web --socket /run/web.sock",
            "qemu-img convert -O vmdk 'nbd+unix:///vda?socket=/run/web.sock' web.vmdk",
        ],
        PointNotFound,
        TargetExists,
        *OPENING,
    )
)
def serve(point: str, /, *, socket: Path | None = None, options: Options = DEFAULTS) -> None:
    """Serve the disks of a restore point over NBD, read-only, without restoring them, until Ctrl-C.

    Each disk is the export of its name. Only the user who runs this may connect.

    Args:
        point: Id of a restore point or the beginning of one; or a machine's name, for its newest.
        socket: The unix socket to make; else one in a private folder.
        options: See below.
    """
    with (
        Session(options) as session,
        TemporaryDirectory(prefix="hotspare-serve-") as private,
        cancelled_by_signals() as cancellation,
    ):
        repository = session.repository()
        found = find_point(repository, point)
        address = (socket or Path(private) / "nbd.sock").absolute()
        with serve_point(repository, found, address):
            uris = {disk.name: f"nbd+unix:///{disk.name}?socket={address}" for disk in found.disks}
            if session.as_json:
                disks = [{"disk": name, "uri": uri} for name, uri in uris.items()]
                output.print_document(output.document("serving", point=found.id, disks=disks))
            else:
                for name, uri in uris.items():
                    output.print_text(f"{name}: {uri}")
                output.note("Serving until Ctrl-C.")
            cancellation.wait()


def _cells(point: RestorePoint) -> tuple[str, ...]:
    return (
        point.id,
        point.machine_name,
        output.local_time(point.finished_at),
        point_mode(point),
        point.consistency,
        format_bytes(sum(disk.size for disk in point.disks)),
        format_bytes(sum(disk.bytes_read for disk in point.disks)),
        format_bytes(sum(disk.bytes_stored for disk in point.disks)),
    )
