"""What commands and the server have people told: how runs, checks and trials ended."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from msgspec.structs import replace

from hotspare.cli.output import warn
from hotspare.errors import HotspareError, RepositoryDamaged
from hotspare.fleet.work import Work
from hotspare.notices import telling
from hotspare.policy.occurrence import Kind, Occurrence, State
from hotspare.repository.point import RestorePoint
from hotspare.repository.tested import BootRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedBackup:
    """A backup that is over, as far as people are told of it."""

    machine: str
    """Name."""
    platform: str
    repository: str
    """URL."""
    policy: str | None
    tags: Sequence[str] | None
    """The machine's; None when they are not known."""
    point: str | None = None
    """Id of the restore point that it made."""
    error: str | None = None
    """What went wrong, in words; None when all is well."""


def tell(session: Work, *occurrences: Occurrence) -> None:
    """Have those told who want to know; what keeps them from it is a warning."""
    telling.tell(session.policies(), session.settings.state_folder, occurrences, warn)


def tell_backup(session: Work, ended: EndedBackup) -> None:
    """Have people told that a backup failed; or that it did not, so that earlier failures are over."""
    by = f" by {ended.policy}" if ended.policy else ""
    if ended.error is not None:
        failed = f"The backup of {ended.machine}{by} failed"
        tell(session, _about(session, ended, "run-failed", "broken", failed, ended.error))
        return
    done, text = f"{ended.machine} was backed up{by}", f"Restore point {ended.point}" if ended.point else ""
    tell(
        session,
        _about(session, ended, "run-failed", "mended", done, text),
        _about(session, ended, "run-ok", "once", done, text),
    )


def tell_missed(session: Work, ended: EndedBackup) -> None:
    """Have people told that a policy was due and nothing ran."""
    missed = f"Backups of {ended.machine} by {ended.policy} were missed"
    tell(session, _about(session, ended, "run-missed", "once", missed, ended.error or ""))


def _about(session: Work, ended: EndedBackup, kind: Kind, state: State, title: str, text: str) -> Occurrence:
    return Occurrence(
        kind=kind,
        state=state,
        subject=f"{ended.platform} {ended.machine} {ended.repository}",
        title=title,
        at=datetime.now(UTC),
        text=text,
        machine=ended.machine,
        platform=ended.platform,
        policy=ended.policy or "",
        tags=None if ended.tags is None else tuple(ended.tags),
        time_zone=_time_zone(session, ended.policy),
    )


def tell_trial(session: Work, point: RestorePoint, record: BootRecord, words: str) -> None:
    """Have people told that a restore point did not pass its trial, or that one of the machine does again."""
    verb = "passed" if record.passed else "did not pass"
    tell(
        session,
        Occurrence(
            kind="restore-test-failed",
            state="mended" if record.passed else "broken",
            subject=f"{point.platform} {point.machine_id}",  # as the watchdog has it
            title=f"{point.machine_name}: a restore point {verb} its trial",
            at=datetime.now(UTC),
            text=f"Restore point {point.id} {words}",
            machine=point.machine_name,
            platform=point.platform,
        ),
    )


@dataclass(slots=True)
class Look:
    """A look for damage that goes on."""

    whole: bool = True
    """It looks at everything, so that finding nothing means that there is nothing."""


@contextmanager
def damage_told(session: Work, repository: str, manner: str) -> Iterator[Look]:
    """Have people told of the damage that is found while the block runs, or that there is none any more.

    Args:
        session: of the command.
        repository: URL.
        manner: how it is looked at. What one manner has found is only mended by the same.
    """
    look = Look()
    found = Occurrence(
        kind="repository-damaged",
        state="broken",
        subject=f"{repository} {manner}",
        title=f"The repository {repository} is damaged",
        at=datetime.now(UTC),
    )
    try:
        yield look
    except RepositoryDamaged as error:
        tell(session, replace(found, text=f"Found by 'hotspare {manner}'. {error}"))
        raise
    if look.whole:
        tell(session, replace(found, state="mended", title=f"The repository {repository} is whole"))


def _time_zone(session: Work, policy: str | None) -> str:
    with suppress(HotspareError):
        return session.policies().get(policy).schedule.time_zone if policy else ""
    return ""
