"""What the watchdog has people told of what it found: each problem while it lasts, and its end."""

from collections.abc import Iterable, Iterator

from hotspare.cli.output import local_time
from hotspare.cli.watch_look import Look, Unknown, WatchedMachine, machine_key
from hotspare.policy.occurrence import Kind, Occurrence
from hotspare.replication.model import Phase, Status
from hotspare.units import format_bytes

_FROM_MACHINES: frozenset[Kind] = frozenset({"rpo-broken", "unprotected", "restore-test-old"})
_SETTLED: frozenset[Kind] = frozenset(
    {
        *_FROM_MACHINES,
        "repository-nearly-full",
        "replication-degraded",
        "replication-failed-over",
        "approval-waiting",
        "server-silent",
        "unknown",
    }
)
"""Kinds that only the watchdog tells of, so that it knows their end."""


def occurrences_of(look: Look, percent: float) -> Iterator[Occurrence]:
    """Give all that a look found, good and bad.

    Args:
        look: what was found.
        percent: a repository with less space than that is nearly full.
    """
    for watched in look.machines:
        yield from _of_machine(look, watched)
    for machine in look.unprotected:
        yield Occurrence(
            kind="unprotected",
            state="broken",
            subject=machine_key(machine),
            title=f"{machine.name} is selected by no policy",
            text=f"Nothing backs it up by itself. If that is wanted: hotspare machine tag {machine.name}"
            " add no-backup",
            at=look.at,
            machine=machine.name,
            platform=machine.platform,
            tags=tuple(machine.marks.tags),
        )
    for repository in look.repositories:
        if repository.space is not None:
            full = repository.space.nearly_full(percent)
            free, size = format_bytes(repository.space.free), format_bytes(repository.space.size)
            yield Occurrence(
                kind="repository-nearly-full",
                state="broken" if full else "mended",
                subject=repository.url,
                title=f"The repository {repository.url} {'is nearly full' if full else 'has space again'}",
                text=f"{free} of {size} are free",
                at=look.at,
            )
    yield from _of_server(look)
    for unknown in look.unknown:
        yield _of_unknown(look, unknown)
    for status in look.replicas:
        yield from _of_replica(look, status)
    for approval in look.approvals:
        yield Occurrence(
            kind="approval-waiting",
            state="broken",
            subject=approval.id,
            title=f"{approval.asked_by} asks for a second person's approval",
            text=approval.summary,
            at=look.at,
        )


def settled(look: Look, now: Iterable[Occurrence], before: Iterable[Occurrence]) -> Iterator[Occurrence]:
    """Give the end of problems that are not there any more: a machine or policy is gone, or a thing answers.

    Args:
        look: what was found.
        now: what is told of it.
        before: problems that lasted until now.
    """
    seen = {(one.kind, one.subject) for one in now}
    for one in before:
        if one.kind in _SETTLED and (one.kind, one.subject) not in seen and _can_tell(look, one.kind):
            yield Occurrence(
                kind=one.kind,
                state="mended",
                subject=one.subject,
                title=one.title,
                text="This is over",
                at=look.at,
                machine=one.machine,
                platform=one.platform,
                policy=one.policy,
                tags=one.tags,
                time_zone=one.time_zone,
            )


def _can_tell(look: Look, kind: Kind) -> bool:
    """Tell whether the absence of such a problem means that there is none: all answered."""
    if kind in _FROM_MACHINES:
        return look.knows("platform", "repository", "policy")
    if kind == "repository-nearly-full":
        return look.knows("platform", "repository", "policy")
    if kind in {"replication-degraded", "replication-failed-over"}:
        return look.knows("replication")
    return kind != "approval-waiting" or look.knows("approvals")


def _of_machine(look: Look, watched: WatchedMachine) -> Iterator[Occurrence]:
    machine, policy = watched.machine, watched.policy
    subject = f"{machine_key(machine)} {policy.name}"

    def about(kind: Kind, subject: str, title: str, text: str, *, broken: bool) -> Occurrence:
        return Occurrence(
            kind=kind,
            state="broken" if broken else "mended",
            subject=subject,
            title=title,
            text=text,
            at=look.at,
            machine=machine.name,
            platform=machine.platform,
            policy=policy.name,
            tags=tuple(machine.marks.tags),
            time_zone=policy.schedule.time_zone,
        )

    if watched.rpo in {"met", "broken"}:
        title = f"{machine.name}: the RPO of {policy.name} ({policy.schedule.rpo})"
        broken = watched.rpo == "broken"
        verb = "is broken" if broken else "is kept again"
        yield about("rpo-broken", subject, f"{title} {verb}", newest_words(watched), broken=broken)
    if watched.trial in {"old", "never", "fresh"}:
        words = f"{machine.name}: no restore point was tried within {policy.schedule.tested_within}"
        old = watched.trial != "fresh"
        title = words if old else f"{machine.name}: a restore point was tried"
        last = f"The last trial was at {local_time(watched.tried_at)}" if watched.tried_at else "Never tried"
        yield about("restore-test-old", subject, title, last, broken=old)
    if watched.trial == "failed" or (watched.trial == "fresh" and watched.tried_at):
        failed = watched.trial == "failed"
        verb = "did not pass" if failed else "passed"
        title = f"{machine.name}: a restore point {verb} its trial"
        yield about("restore-test-failed", machine_key(machine), title, watched.tried_words, broken=failed)


def newest_words(watched: WatchedMachine) -> str:
    """Say how old the newest good restore point is, for people."""
    unreadable = f"; {watched.unreadable} newer ones cannot be read" if watched.unreadable else ""
    if watched.newest is None:
        return f"There is no good restore point{unreadable.replace('newer ', '')}"
    return f"The newest good restore point is of {local_time(watched.newest)}{unreadable}"


def _of_server(look: Look) -> Iterator[Occurrence]:
    if look.server_beat is not None and look.server_silent:
        yield Occurrence(
            kind="server-silent",
            state="broken",
            subject="server",
            title="hotspare server does not look at what is due",
            text=f"It did so last at {local_time(look.server_beat)}: it has died, was stopped, or is stuck",
            at=look.at,
        )


def _of_unknown(look: Look, unknown: Unknown) -> Occurrence:
    return Occurrence(
        kind="unknown",
        state="broken",
        subject=f"{unknown.what} {unknown.name}",
        title=f"It is not known how things are: {unknown.what} {unknown.name}",
        text=str(unknown.error),
        at=look.at,
        platform=unknown.name if unknown.what == "platform" else "",
        policy=unknown.name if unknown.what == "policy" else "",
    )


def _of_replica(look: Look, status: Status) -> Iterator[Occurrence]:
    protection = status.protection
    elsewhere = status.tenure is not None and status.tenure.holder != protection.source
    found: tuple[tuple[Kind, bool, str], ...] = (
        ("replication-degraded", status.phase is Phase.DEGRADED, "runs without its replica"),
        ("replication-failed-over", elsewhere, "was taken over by its standby"),
    )
    for kind, broken, words in found:
        if broken:
            yield Occurrence(
                kind=kind,
                state="broken",
                subject=protection.id,
                title=f"{protection.machine} {words}",
                text=status.reason,
                at=look.at,
                machine=protection.machine,
                platform=protection.platform,
            )
