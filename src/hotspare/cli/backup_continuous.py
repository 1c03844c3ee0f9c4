"""``hotspare backup MACHINE --every 60s``: a restore point again and again, until Ctrl-C."""

import time
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from hotspare.backup.continuous import ContinuousBackup, ContinuousPlan, Cycle
from hotspare.backup.options import BackupOptions
from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.documents import point_fields, point_mode
from hotspare.cli.history import History
from hotspare.cli.progress import shown_progress
from hotspare.cli.quantities import parse_duration
from hotspare.cli.session import Session
from hotspare.errors import UsageError
from hotspare.repository.repository import Repository
from hotspare.thinning import Thinning, parse_thinning
from hotspare.units import format_bytes, format_duration

_AGAIN = Group.create_ordered("Again and again")
_SHORTEST = 5.0
"""Seconds."""


@Parameter(name="*", group=_AGAIN)
@dataclass(frozen=True, kw_only=True)
class Repetition:
    """Whether, and how often, one machine is backed up again."""

    again_every: Annotated[str | None, Parameter(name="--every")] = None
    """Make a restore point of the one machine so often (60s, 5m), until Ctrl-C."""
    thin: str | None = None
    """Which of the restore points made so stay: "1m for 1h, 1h for 1d". Others are never removed."""
    keep_last: Annotated[int | None, Parameter(validator=Number(gte=1))] = None
    """Keep the newest so many of them, and what --thin names."""

    @property
    def plan(self) -> ContinuousPlan | None:
        """What the engine is to know; None for one backup only. Raises ``UsageError``."""
        if self.again_every is None:
            if self.thin or self.keep_last:
                raise UsageError("--thin and --keep-last belong to --every", meaning="Nothing was backed up")
            return None
        every = parse_duration(self.again_every)
        if every < _SHORTEST:
            raise UsageError(
                f"A backup every {self.again_every} is more often than can be done",
                meaning="Nothing was backed up",
                hint="The shortest is --every 5s; for less loss than that replicate the machine",
            )
        return ContinuousPlan(every, self._thinning)

    @property
    def _thinning(self) -> Thinning | None:
        if self.thin is None and self.keep_last is None:
            return None
        rules = parse_thinning(self.thin) if self.thin else Thinning()
        return Thinning(rules.rules, max(rules.last, self.keep_last or 1))


ONCE = Repetition()


def back_up_continuously(
    session: Session, repository: Repository, machine: str, options: BackupOptions, plan: ContinuousPlan
) -> None:
    """Back up until Ctrl-C; each cycle is a line, or a JSON document in one line.

    Raises:
        MachineNotFound, UsageError: what is asked for makes no sense.
    """
    history = History(session, repository.backend.url)
    began, made = time.monotonic(), 0

    def tell(cycle: Cycle) -> None:
        nonlocal made
        if cycle.point:
            made += 1
            history.add_point(cycle.point)
        if session.as_json:
            output.print_line(_fields(machine, cycle))
        elif cycle.error:
            output.warn(f"{machine}: no restore point this time; it is tried again. {cycle.error}")
        else:
            output.print_text(_words(machine, cycle))

    form = session.options.progress_form
    with cancelled_by_signals() as cancellation, shown_progress(form, cancellation) as listener:
        backup = ContinuousBackup(repository, session.platform, machine, options, plan, listener)
        backup.run(tell, cancellation)
    took = format_duration(time.monotonic() - began)
    output.note(f"{machine}: stopped after {took}; {made} restore points were made")


def _words(machine: str, cycle: Cycle) -> str:
    point = cycle.point
    assert point is not None  # noqa: S101 - or there is an error
    read, stored = (
        format_bytes(sum(getattr(disk, name) for disk in point.disks))
        for name in ("bytes_read", "bytes_stored")
    )
    late = ", longer than the time to the next" if cycle.late else ""
    gone = f", {len(cycle.removed)} older ones thinned out" if cycle.removed else ""
    return (
        f"{machine}: restore point {point.id} ({point_mode(point)}, {point.consistency}), read {read},"
        f" stored {stored}, in {format_duration(cycle.seconds)}{late}{gone}"
    )


def _fields(machine: str, cycle: Cycle) -> dict[str, object]:
    return output.document(
        "backup-cycle",
        machine=machine,
        point=point_fields(cycle.point) if cycle.point else None,
        error=output.error_fields(cycle.error) if cycle.error else None,
        seconds=round(cycle.seconds, 3),
        late=cycle.late,
        removed=list(cycle.removed),
    )
