"""Cycle after cycle, in a thread of its own: keeps the lag within the interval, and says when it is not."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, Interrupted
from hotspare.platforms.platform import Consistency, DiskChoice, Machine
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.interval.cycle import CycleRequest, ship_cycle
from hotspare.replication.interval.standby import Source, Standby
from hotspare.storage.wrappers.throttle import TokenBucket
from hotspare.thinning import Thinning, parse_thinning
from hotspare.units import format_duration

SHORTEST_INTERVAL = 5.0
"""Seconds."""
DEFAULT_THINNING = parse_thinning("all for 1m, 1m for 1h, 1h for 1d")
_LONGEST_PAUSE = 60.0
"""Seconds between two attempts while cycles fail."""


@dataclass(frozen=True, slots=True)
class ShippingPlan:
    """What was agreed on for one machine."""

    protection: str
    """Its id."""
    machine: str
    """Name or id."""
    interval: float = 60.0
    """Seconds from the start of a cycle to that of the next."""
    thinning: Thinning = DEFAULT_THINNING
    """Which points stay on the standby."""
    consistent_every: float | None = None
    """Seconds between points for which file systems, and applications that have hooks, are quiesced. None
    never does it: all points are as after a power cut."""
    disks: tuple[str, ...] = ()
    """Names of those that are shipped; empty for all."""
    bandwidth: int = 0
    """Most bytes per second of content that is sent; 0 for no limit."""


@dataclass(frozen=True, slots=True)
class ShippingStatus:
    """How a machine's replication goes."""

    cycles: int = 0
    """Finished since the start of this process."""
    newest: str | None = None
    """Id of the standby's newest point."""
    newest_taken_at: datetime | None = None
    newest_consistent: str | None = None
    """Id of the newest point that is better than crash-consistent."""
    last_seconds: float = 0.0
    """That the last cycle took."""
    last_bytes: int = 0
    """That it sent."""
    bytes_sent: int = 0
    """By all cycles since the start of this process."""
    points: int = 0
    """That the standby has."""
    full_because: tuple[str, ...] = ()
    """Disks that it could not send as an increment, each with the reason."""
    behind: bool = False
    """The last cycle took longer than the interval."""
    working_since: datetime | None = None
    """When the cycle that is under way began."""
    failing_since: datetime | None = None
    failure: str | None = None
    """What is wrong; None while all is well."""

    def lag(self, now: datetime) -> timedelta | None:
        """Give how old what the standby has is; None when it has nothing."""
        return None if self.newest_taken_at is None else now - self.newest_taken_at


@dataclass(slots=True)
class _Line:
    """What is kept open from cycle to cycle."""

    platform: Source
    standby: Standby
    machine: Machine
    points: list[ReplicaPoint]
    """Of the standby, the oldest first."""

    def close(self) -> None:
        self.standby.close()
        self.platform.close()


@dataclass(slots=True)
class Shipping:
    """Ships one machine until ``run`` is cancelled. ``status`` may be looked at by any thread."""

    plan: ShippingPlan
    open_platform: Callable[[], Source]
    open_standby: Callable[[], Standby]
    """Both are called by the thread that runs, and again after a failure."""
    listener: events.Listener = events.ignore
    may_ship: Callable[[], bool] = lambda: True
    """Looked at before each cycle: a source does not ship once another host has taken over."""
    status: ShippingStatus = field(default_factory=ShippingStatus)
    _line: _Line | None = None
    _bucket: TokenBucket | None = field(init=False)
    _consistent_at: float = -1e9
    """By the monotonic clock."""

    def __post_init__(self) -> None:
        self._bucket = TokenBucket(self.plan.bandwidth) if self.plan.bandwidth else None

    def run(self, cancellation: Cancellation) -> None:
        """Ship until cancelled. No failure ends it: it is told, and tried again."""
        failures = 0
        try:
            while not cancellation.requested:
                began = time.monotonic()
                wait = self.plan.interval
                try:
                    if self.may_ship():
                        self.cycle(cancellation)
                    failures = 0
                except Interrupted:
                    return
                except HotspareError as error:
                    failures += 1
                    wait = min(
                        self.plan.interval * 2 ** min(failures - 1, 6),
                        max(self.plan.interval, _LONGEST_PAUSE),
                    )
                    self._note_failure(error)
                cancellation.pause(wait - (time.monotonic() - began))
        finally:
            self.close()

    def cycle(self, cancellation: Cancellation) -> None:
        """Ship once, thin, and say what there is to be said.

        Raises what ``ship_cycle`` does.
        """
        began = time.monotonic()
        self.status = replace(self.status, working_since=datetime.now(UTC))
        line = self._open()
        due = self._consistency_is_due(began)
        request = CycleRequest(
            protection=self.plan.protection,
            machine=line.machine,
            newest=line.points[-1] if line.points else None,
            consistency=None if due else Consistency.CRASH,
            disks=DiskChoice(only=self.plan.disks),
            bucket=self._bucket,
        )
        point = ship_cycle(line.platform, line.standby, request, self.listener, cancellation)
        if due:
            self._consistent_at = began
        line.points.append(point)
        self._note_success(point, time.monotonic() - began, len(line.points))
        self._thin(line)

    def _open(self) -> _Line:
        if self._line is None:
            platform = self.open_platform()
            try:
                standby = self.open_standby()
                try:
                    machine = platform.inspect(self.plan.machine)
                    points = list(standby.points())
                    self._line = _Line(platform, standby, machine, points)
                    if points and self.status.newest is None:
                        self.status = replace(
                            self.status, newest=points[-1].id, newest_taken_at=points[-1].taken_at
                        )
                except BaseException:
                    standby.close()
                    raise
            except BaseException:
                platform.close()
                raise
        return self._line

    def close(self) -> None:
        """Let go of platform and standby; the next cycle opens them anew."""
        line, self._line = self._line, None
        if line is not None:
            with suppress(HotspareError):
                line.close()

    def _consistency_is_due(self, now: float) -> bool:
        every = self.plan.consistent_every
        return every is not None and now - self._consistent_at >= every

    def _thin(self, line: _Line) -> None:
        times = {point.id: point.taken_at for point in line.points}
        dropped = self.plan.thinning.dropped(times, datetime.now(UTC))
        if dropped:
            removed = set(line.standby.remove_points(dropped))
            line.points = [point for point in line.points if point.id not in removed]

    def _note_success(self, point: ReplicaPoint, seconds: float, points: int) -> None:
        before, behind = self.status, seconds > self.plan.interval
        sent = sum(disk.bytes_sent for disk in point.disks)
        better = Consistency(point.consistency).meets(Consistency.FILESYSTEM)
        self.status = ShippingStatus(
            cycles=before.cycles + 1,
            newest=point.id,
            newest_taken_at=point.taken_at,
            newest_consistent=point.id if better else before.newest_consistent,
            last_seconds=seconds,
            last_bytes=sent,
            bytes_sent=before.bytes_sent + sent,
            points=points,
            full_because=tuple(
                f"{disk.name}: {disk.full_because}" for disk in point.disks if disk.full_because
            ),
            behind=behind,
        )
        if before.failure:
            self._tell(f"replication goes on with point {point.id}; what was wrong: {before.failure}")
        if behind and not before.behind:
            self._tell(
                f"a cycle took {format_duration(seconds)}, longer than the interval of"
                f" {format_duration(self.plan.interval)}: the standby is that much behind"
            )
        if before.behind and not behind:
            self._tell("cycles fit into the interval again")

    def _note_failure(self, error: HotspareError) -> None:
        self.close()
        since = self.status.failing_since or datetime.now(UTC)
        changed = self.status.failure != str(error)
        self.status = replace(self.status, failure=str(error), failing_since=since, working_since=None)
        if changed:
            self._tell(f"a cycle failed, and is tried again; the standby's points are whole. {error}")

    def _tell(self, message: str) -> None:
        self.listener(events.Warned(self.plan.machine, message))
