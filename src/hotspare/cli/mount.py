"""``hotspare mount``: the files of restore points as a folder of this host."""

from contextlib import ExitStack
from pathlib import Path

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.files_options import AS_KNOWN, INSIDE, Reading
from hotspare.cli.help import OPENING, closing, noun
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.session import Session
from hotspare.errors import PlatformUnavailable, PointNotFound, TargetExists, UsageError
from hotspare.repository.select import find_points
from hotspare.restore.files.opened import mountable_volumes
from hotspare.restore.mount import mount_files

app = noun("mount", "Show the files of restore points as a folder, until Ctrl-C.")
app.help_epilogue = closing(
    ["hotspare mount web /mnt", "hotspare mount 20261123-0215 20261124-0215 /mnt"],
    PointNotFound,
    TargetExists,
    PlatformUnavailable,
    *INSIDE,
    *OPENING,
)


@app.default
def mount(
    *points_and_folder: str,
    everybody: Switch = False,
    reading: Reading = AS_KNOWN,
    options: Options = DEFAULTS,
) -> None:
    """Show the files of restore points below a folder, read-only, until Ctrl-C or until it is unmounted.

    Each volume is a folder of its name; of several restore points, each is a folder above those. Nothing is
    restored: what is read comes from the repository.

    Args:
        points_and_folder: Restore points (ids, beginnings of ids, machines' names for their newest), and
        last the
            folder, which has to be there and empty.
        everybody: Let other users of this host read the files too; for root only. What permissions the
        files have
            does not count.
        reading: See below.
        options: See below.
    """
    if len(points_and_folder) < 2:
        raise UsageError("Name a restore point and a folder", hint='See "hotspare mount --help"')
    *references, folder = points_and_folder
    with Session(options) as session, cancelled_by_signals() as cancellation, ExitStack() as stack:
        repository = session.repository(cached=True)
        opening = reading.opening(session)
        points = {
            point.id: stack.enter_context(mountable_volumes(repository, point, opening))
            for point in find_points(repository, references)
        }

        def ready() -> None:
            if session.as_json:
                shown = [{"point": point, "volumes": list(volumes)} for point, volumes in points.items()]
                output.print_document(output.document("mounted", folder=folder, points=shown))
                return
            for point, volumes in points.items():
                output.print_text(f"{point}: {', '.join(volumes) or 'no volume with files'}")
            output.note(f"Mounted at {folder} until Ctrl-C.")

        mount_files(
            points,
            Path(folder),
            cancellation=cancellation,
            warn=output.warn,
            ready=ready,
            everybody=everybody,
        )
