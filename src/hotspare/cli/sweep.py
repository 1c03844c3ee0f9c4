"""``hotspare sweep``: remove what crashes of ours left on a platform."""

from collections.abc import Mapping
from typing import Annotated

from cyclopts import Parameter

from hotspare.cli import output
from hotspare.cli.help import closing, noun
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.session import Session
from hotspare.errors import HotspareError, PermissionRefused, PlatformUnavailable
from hotspare.platforms.platform import Remnant, SweepRequest
from hotspare.repository.repository import Repository

app = noun("sweep", "Remove what backups that were killed left on a platform.")


@app.default
def sweep(
    *,
    platform: Annotated[str | None, Parameter(name="--platform")] = None,
    dry_run: Switch = False,
    options: Options = DEFAULTS,
) -> None:
    """Remove what backups that were killed left on all machines of a platform.

    Guests that are still frozen are thawed, backup jobs ended, scratch files removed; and checkpoints that no
    restore point of the repository (--repository) goes on from. A run at work, other programs' jobs and
    checkpoints, and those of other repositories are left alone. Each backup does the same for its own
    machine, so this is for machines that are not backed up any more, or right after a crash.

    Args:
        platform: URI of the platform; else HOTSPARE_PLATFORM, else qemu:///system.
        dry_run: Only say what would be removed.
        options: See below.
    """
    with Session(options, platform=platform) as session:
        opened = session.platform()
        repository = _repository(session)
        request = SweepRequest(dry_run=dry_run)
        if repository is not None:
            request = SweepRequest(dry_run, repository.id, lambda: _needed_tokens(repository))
        found = opened.sweep(request)
        if session.as_json:
            output.print_document(
                output.document(
                    "sweep",
                    platform=opened.uri,
                    dry_run=dry_run,
                    checkpoints=repository is not None,
                    found=[_fields(one, dry_run=dry_run) for one in found],
                )
            )
        else:
            _tell(found, dry_run=dry_run)
        left = [one for one in found if one.problem]
        if left:
            raise HotspareError(
                f"{len(left)} of {len(found)} leftovers could not be removed",
                meaning="The others were; restore points are not affected",
                hint="The reasons are said above; sweep again later",
            )


app.help_epilogue = closing(
    ["hotspare sweep --dry-run", "hotspare sweep", "hotspare sweep --platform qemu:///session -o json"],
    PlatformUnavailable,
    PermissionRefused,
)


def _repository(session: Session) -> Repository | None:
    # A repository that cannot be opened must not keep a frozen guest from being thawed.
    if session.settings.repository is None:
        output.warn("No repository is set, so checkpoints are left alone")
        return None
    try:
        return session.repository()
    except HotspareError as error:
        output.warn(f"Checkpoints are left alone. {error}")
        return None


def _needed_tokens(repository: Repository) -> Mapping[str, set[str]]:
    """Give the tokens of each machine's newest restore point: what its next increment goes on from."""
    newest = {point.machine_id: point for point in repository.points()}
    return {
        machine_id: {str(disk.token["value"]) for disk in point.disks if disk.token}
        for machine_id, point in newest.items()
    }


def _fields(remnant: Remnant, *, dry_run: bool) -> dict[str, object]:
    return {
        "kind": remnant.kind,
        "machine": remnant.machine,
        "detail": remnant.detail,
        "removed": not dry_run and remnant.problem is None,
        "problem": remnant.problem,
    }


_WORDS = {
    "frozen-guest": ("thaw the guest", "thawed the guest"),
    "backup-job": ("end the backup job", "ended the backup job"),
    "run-folder": ("remove the run's folder", "removed the run's folder"),
    "trial": ("end the trial", "ended the trial"),
    "checkpoint": ("remove the checkpoint", "removed the checkpoint"),
}


def _tell(found: list[Remnant], *, dry_run: bool) -> None:
    if not found:
        output.print_text("Nothing was left behind.")
    for one in found:
        would, did = _WORDS[one.kind]
        if one.problem is not None:
            said = f"could not {would}: {one.problem}:"
        else:
            said = f"would {would}" if dry_run else did
        output.print_text(f"{one.machine}: {said} {one.detail}")
