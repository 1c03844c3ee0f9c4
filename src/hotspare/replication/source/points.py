"""When points are made of a mirrored machine, what they say, and which of them stay."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime

import libvirt

from hotspare.errors import HotspareError
from hotspare.platforms.libvirt.inventory import describe_machine
from hotspare.platforms.libvirt.state import read_state
from hotspare.platforms.platform import Consistency
from hotspare.platforms.replica.record import ReplicaDisk, ReplicaPoint
from hotspare.replication.model import Protection
from hotspare.replication.source.quiet import quiet
from hotspare.replication.source.resync import Line
from hotspare.replication.source.standby_link import StandbyLink
from hotspare.replication.standby.exports import Exports
from hotspare.replication.standby.service import Prepared
from hotspare.repository.point import new_point_id
from hotspare.thinning import parse_thinning

_LOG = logging.getLogger("hotspare.replica")
_TURN_SECONDS = 1.0
"""Catching up waits for a point that is under way, so that one must not wait for long."""


class PointMaker:
    """Makes and thins the points of a protection, in a thread of its own: a slow standby holds nobody up."""

    def __init__(self, protection: Protection, standby: StandbyLink) -> None:
        self._protection = protection
        self._standby = standby
        self._thinning = parse_thinning(protection.retention)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="points")
        self._under_way: Future[str] | None = None
        self._due = 0.0
        self._next_base = ""
        """Serial of the bitmaps that began with the newest point."""
        self._turn = threading.Lock()
        """Held by whoever has a point made: this, or the group of the machine."""
        self._quiet_due = 0.0
        """When the next point is due for which the guest is kept quiet, where that is wanted."""
        self.exports: Exports | None = None
        """Where the disks are, as of ``start``."""
        self.newest = ""
        self.count = 0

    def start(self, prepared: Prepared) -> None:
        """Go on from what the standby has. The first point is made at once."""
        self.exports = prepared.exports
        self.newest, self.count = prepared.newest_point, prepared.points
        self._due = time.monotonic()
        self._next_base = ""

    def settle(self) -> None:
        """Wait for the end of what is under way."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            wait([under_way])

    def describe(self, domain: libvirt.virDomain, disks: Mapping[str, int], name: str = "") -> ReplicaPoint:
        """Describe a point of now; its id is new, unless one is given."""
        now = datetime.now(UTC)
        uri = self._protection.platform
        machine = describe_machine(domain, uri)
        state = read_state(domain, uri)
        self.newest = name or new_point_id(now, after=self.newest)
        return ReplicaPoint(
            id=self.newest,
            taken_at=now,
            finished_at=now,
            consistency=Consistency.CRASH.value,
            machine=machine,
            disks=tuple(ReplicaDisk(name=name, size=size) for name, size in disks.items()),
            state=tuple(state.files),
            warnings=tuple(state.warnings),
        )

    @contextmanager
    def having_turn(self, seconds: float) -> Iterator[None]:
        """Let nobody else make a point meanwhile. Raises ``HotspareError``: somebody does, for so long."""
        if not self._turn.acquire(timeout=seconds):
            raise HotspareError(f"another point of {self._protection.machine} takes long")
        try:
            yield
        finally:
            self._turn.release()

    def tend(self, line: Line, disks: Mapping[str, int], base: str) -> str:
        """Make a point if it is time, without waiting for it; give the serial of bitmaps that counts now."""
        if self._under_way is None:
            if time.monotonic() >= self._due:
                self._due = time.monotonic() + self._protection.interval
                self._under_way = self._thread.submit(self._make, line, dict(disks), base)
            return base
        if not self._under_way.done():
            return base
        done, self._under_way = self._under_way, None
        try:
            return done.result()
        except HotspareError as error:
            _LOG.warning("%s: no point could be made: %s", self._protection.machine, error)
            return base

    def _make(self, line: Line, disks: Mapping[str, int], base: str) -> str:
        """Make a point, and give the serial of the bitmaps that mark what a standby lacks if it dies now.

        A point makes durable what the standby was sent before. Those bitmaps count that began with the point
        before: what was under way when they began, and is not noted in them, has arrived long since.
        """
        if (failure := line.mirror.failure()) is not None:
            raise HotspareError(failure)
        base = self._next_base or base
        with self.having_turn(_TURN_SECONDS):
            if not self._make_quiet(line, disks, base):
                self._standby.make_point(self.describe(line.monitor.domain, disks), base)
        self._next_base = line.tracking.begin_beside()
        line.tracking.drop_all_but({base, self._next_base})
        self._thin()
        return base

    def _make_quiet(self, line: Line, disks: Mapping[str, int], base: str) -> bool:
        """Make a point with the guest kept quiet, if that is due; give whether there is one now.

        It is made as a point like any other. Only when it is known that the guest was quiet all the time, and
        that no write was missed, is it said to be better.
        """
        every = self._protection.application_interval
        if not every or time.monotonic() < self._quiet_due:
            return False
        self._quiet_due = time.monotonic() + every
        domain, made = line.monitor.domain, ""
        machine = describe_machine(domain, self._protection.platform)
        run_id = new_point_id(datetime.now(UTC), after=self.newest)
        try:
            with quiet(
                domain,
                machine,
                uri=self._protection.platform,
                protection=self._protection.id,
                run_id=run_id,
                disks=frozenset(disks),
            ) as outcome:
                # Described before, it would have an earlier time than writes that it holds.
                made = self._standby.make_point(self.describe(domain, disks, run_id), base).id
                missed = line.mirror.failure()
            level = Consistency.CRASH if missed is not None else outcome.level
            self._standby.rate_point(made, level, outcome.warnings)
        except (HotspareError, libvirt.libvirtError) as error:
            _LOG.warning("%s: no point could be made with the guest quiet: %s", machine.name, error)
        return bool(made)

    def _thin(self) -> None:
        points = self._standby.points()
        own = {point.id: point.taken_at for point in points if not self._is_of_group(point)}
        dropped = self._thinning.dropped(own, datetime.now(UTC))
        if dropped:
            points = self._standby.remove_points(sorted(dropped))
        self.newest, self.count = max(self.newest, points[-1].id), len(points)

    def _is_of_group(self, point: ReplicaPoint) -> bool:
        """Whether the group thins it: all members must let the same points go."""
        place = self._protection.group
        return point.group is not None and place is not None and point.group.name == place.name

    def close(self) -> None:
        """End the thread; what it does is given up."""
        self._thread.shutdown(wait=False, cancel_futures=True)
