"""``hotspare restore --to`` on another host: done by the mover there, followed and recorded here."""

from typing import TYPE_CHECKING

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.heard import Heard
from hotspare.cli.history import History
from hotspare.cli.placement import PlacementOptions
from hotspare.cli.progress import shown_progress
from hotspare.cli.session import Session
from hotspare.units import format_bytes

if TYPE_CHECKING:
    from hotspare.cli.other_host import OtherHost


def restore_there(
    session: Session, other: "OtherHost", point: str, name: str, where: PlacementOptions, *, start: bool
) -> None:
    """Have a machine made on another host, and print what was made.

    Args:
        session: of the command.
        other: the host.
        point: what is restored, as the user names it.
        name: of the machine to be.
        where: its disks go, as that host calls it, and what it keeps.
        start: power it on.

    Raises as ``OtherHost.restore`` does.
    """
    url = session.settings.repository
    words = [f"--to={name}", *where.words(), *(["--start"] if start else []), "--", point]
    with (
        History(session, url or "").run("restore", name, other.uri) as run,
        cancelled_by_signals() as cancellation,
        shown_progress(session.options.progress_form, cancellation) as listener,
    ):
        heard = Heard(run.watching(listener), output.note)
        made = other.restore(url, name, words, heard, cancellation)
        run.point = made["point"]
    made["machine"]["platform"] = other.uri
    if session.as_json:
        output.print_document(made)
        return
    state = "and powered on" if made["started"] else "powered off"
    output.print_text(
        f"Restored {made['point']} as {name} on {other.uri}, {state};"
        f" {format_bytes(made['bytes_compared'])} compared, {format_bytes(made['bytes_written'])} written:"
    )
    for disk in made["machine"]["disks"]:
        output.print_text(f"  {disk['name']}: {format_bytes(disk['size'])}, {disk['source']}")
    for reason in made["without"]:
        output.print_text(f"  without {reason}")
