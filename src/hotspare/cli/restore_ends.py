"""``hotspare restore undo`` and ``restore confirm``: the two ends of a restore over a machine."""

from typing import Annotated

from cyclopts import Parameter

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.confirmation import confirm as ask
from hotspare.cli.documents import machine_fields
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.session import Session
from hotspare.errors import UsageError
from hotspare.platforms.in_place import InPlacePlatform
from hotspare.platforms.platform import Platform


def undo(
    machine: str,
    /,
    *,
    platform: Annotated[str | None, Parameter(name="--platform")] = None,
    force: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    yes: Annotated[bool, Parameter(name=("--yes", "-y"), negative="", show_default=False)] = False,
    options: Options = DEFAULTS,
) -> None:
    """Bring back what a machine was before it was restored in place.

    Also clears away what a restore in place has left that was killed.

    Args:
        machine: Its name or id.
        platform: URI of its platform; else HOTSPARE_PLATFORM, else qemu:///system.
        force: Also when it was started since: what it wrote since then is lost.
        yes: Do not ask.
        options: See below.
    """
    with Session(options, platform=platform) as session:
        host = in_place_platform(session.platform())
        ask(f"Give up what was restored of {machine}?", "Nothing was done", yes=yes)
        back = host.undo_restore(machine, force=force)
        if session.as_json:
            output.print_document(output.document("restore-undone", machine=machine_fields(back)))
            return
        output.print_text(f"{back.name} is what it was before it was restored, powered off.")


def confirm(
    machine: str,
    /,
    *,
    platform: Annotated[str | None, Parameter(name="--platform")] = None,
    options: Options = DEFAULTS,
) -> None:
    """Make a restore in place final, while the machine runs or is off: it cannot be undone any more.

    Args:
        machine: Its name or id.
        platform: URI of its platform; else HOTSPARE_PLATFORM, else qemu:///system.
        options: See below.
    """
    with Session(options, platform=platform) as session, cancelled_by_signals() as cancellation:
        made = in_place_platform(session.platform()).confirm_restore(machine, cancellation)
        if session.as_json:
            output.print_document(output.document("restore-confirmed", machine=machine_fields(made)))
            return
        output.print_text(f"The restore of {made.name} is final: its disks are where they were before.")


def in_place_platform(platform: Platform) -> InPlacePlatform:
    """Give a platform that can restore a machine over itself. Raises ``UsageError`` for another."""
    if isinstance(platform, InPlacePlatform):
        return platform
    raise UsageError(
        f"At {platform.uri} no machine can be restored in place",
        meaning="Nothing was done",
        hint="Restore it with --to, or a disk over an image with --disk DISK=PATH --differential",
    )
