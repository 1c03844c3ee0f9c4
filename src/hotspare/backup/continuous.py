"""One machine again and again: a restore point every minute, say, thinned as they grow older.

Repository, platform and what was learnt from them stay open between cycles. A cycle that fails is told and
tried again; the restore points that are there stay whole.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from hotspare import events
from hotspare.backup.content import CONTINUOUS
from hotspare.backup.machine import backup_machine
from hotspare.backup.options import BackupOptions
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, Interrupted, MachineNotFound, PointKept, UsageError
from hotspare.platforms.platform import Platform
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.thinning import Thinning


@dataclass(frozen=True, slots=True)
class ContinuousPlan:
    """What the user may choose."""

    every: float
    """Seconds from the start of one cycle to that of the next."""
    thinning: Thinning | None = None
    """Which of these restore points stay; None keeps all."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """How one ended."""

    point: RestorePoint | None
    error: HotspareError | None
    """Set exactly when there is no point."""
    seconds: float
    removed: tuple[str, ...] = ()
    """Ids of the restore points that were thinned out after it."""
    late: bool = False
    """It took longer than the time to the next one."""


@dataclass(slots=True)
class ContinuousBackup:
    """Backs up one machine until it is cancelled."""

    repository: Repository
    open_platform: Callable[[], Platform]
    """Called at the beginning, and again after a failure."""
    machine: str
    """Name or id."""
    options: BackupOptions
    plan: ContinuousPlan
    listener: events.Listener = events.ignore
    _platform: Platform | None = None
    _thinned: dict[str, RestorePoint] | None = None
    """The points of this machine that continuous backups have made; None before they were looked for."""
    _ever: bool = field(default=False)

    def run(self, on_cycle: Callable[[Cycle], None], cancellation: Cancellation) -> None:
        """Make a restore point every so many seconds; returns when it is cancelled.

        Args:
            on_cycle: called after each cycle, good or bad.
            cancellation: a cycle that is under way is given up at its next safe moment.

        Raises:
            MachineNotFound, UsageError: the very first cycle shows that what is asked for makes no sense.
        """
        try:
            while not cancellation.requested:
                began = time.monotonic()
                try:
                    cycle = self._cycle(began, cancellation)
                except Interrupted:
                    return
                on_cycle(cycle)
                cancellation.pause(began + self.plan.every - time.monotonic())
        finally:
            self._close()

    def _cycle(self, began: float, cancellation: Cancellation) -> Cycle:
        marked = replace(self.options, continuous=str(self.plan.thinning or "all"))
        try:
            self._platform = self._platform or self.open_platform()
            point = backup_machine(
                self.repository, self._platform, self.machine, marked, self.listener, cancellation
            )
        except Interrupted:
            raise
        except (MachineNotFound, UsageError) as error:
            if not self._ever:
                raise
            return self._failed(error, began)
        except HotspareError as error:
            return self._failed(error, began)
        self._ever = True
        removed = self._thin(point)
        seconds = time.monotonic() - began
        return Cycle(point, None, seconds, removed, late=seconds > self.plan.every)

    def _failed(self, error: HotspareError, began: float) -> Cycle:
        self._close()  # whatever is wrong with it, it is opened anew
        return Cycle(None, error, time.monotonic() - began)

    def _close(self) -> None:
        platform, self._platform = self._platform, None
        if platform is not None:
            with suppress(HotspareError):
                platform.close()

    def _thin(self, newest: RestorePoint) -> tuple[str, ...]:
        """Forget what the rules let go; what cannot be forgotten now is tried again after the next cycle."""
        if self.plan.thinning is None:
            return ()
        try:
            if self._thinned is None:
                points = self.repository.machine_points(newest.machine_id, lambda _name, _error: None)
                self._thinned = {point.id: point for point in points if point.find_extra(CONTINUOUS)}
            self._thinned[newest.id] = newest
            times = {point.id: point.started_at for point in self._thinned.values()}
            removed = []
            for one in self.plan.thinning.dropped(times, datetime.now(UTC)):
                with suppress(PointKept):
                    self.repository.forget(self._thinned[one])
                    removed.append(one)
                del self._thinned[one]
            return tuple(removed)
        except HotspareError as error:
            self.listener(events.Warned(self.machine, f"restore points could not be thinned out: {error}"))
            return ()
