"""Looks after one machine in sync mode: brings its replica up to it, watches the mirrors, makes points.

Whatever goes wrong, the guest comes first: when the standby is silent for the limit, it goes on without. But
not before those know of it who could have another host take the machine over (``keeper.py``).
"""

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import libvirt

from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, Interrupted, MachineNotFound
from hotspare.platforms.libvirt.connection import explained, find_domain, is_known_off, open_connection
from hotspare.platforms.libvirt.inventory import inspect_disks
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.link.wire import PeerUnavailable
from hotspare.replication.model import DiskStatus, Lag, Phase, Protection, Status
from hotspare.replication.source.mirror import Mirror, MirrorTarget
from hotspare.replication.source.monitor import Monitor
from hotspare.replication.source.points import PointMaker
from hotspare.replication.source.qemu_folder import qemu_folder
from hotspare.replication.source.resync import CatchUp, Line, Progress
from hotspare.replication.source.standby_link import StandbyLink
from hotspare.replication.source.tracking import Tracking

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent

_LOG = logging.getLogger("hotspare.replica")
_TICK_SECONDS = 0.25
_PULSE_SECONDS = 1.0
_RETRY_SECONDS = 2.0
_KEEPER_SECONDS = 0.1
_LOOK_SECONDS = 10.0
"""Between two looks at which disks the machine has."""


class _Broken(Exception):
    """The replica does not follow any more, for a reason in words."""


class SyncRunner:
    """A ``Runner`` for sync mode."""

    def __init__(self, agent: "Agent", protection: Protection) -> None:
        self._agent = agent
        self._protection = protection
        self._keeper = agent.keeper_for(protection)
        self._tenure = agent.tenure_of(protection)
        self._standby = StandbyLink(agent.identity, protection, self._tenure)
        self._points = PointMaker(protection, self._standby)
        self._progress = Progress()
        self._disks: dict[str, int] = {}
        self._line: Line | None = None
        self._base = ""
        self._phase, self._reason = Phase.WAITING, "it has not been looked at yet"
        self._since = time.time()
        self._times_protected = 0
        self._behind_since: float | None = None
        """When the replica was last known to have everything; None while it has."""

    # What it is

    def status(self) -> Status:
        """See ``Runner``."""
        sizes = dict(self._disks)
        return Status(
            protection=self._protection,
            phase=self._phase,
            since=self._since,
            reason=self._reason,
            lag=self._lag(),
            disks=tuple(
                DiskStatus(
                    name=name,
                    size=size,
                    bytes_done=self._progress.done.get(name, 0),
                    bytes_to_do=self._progress.to_do.get(name, 0),
                )
                for name, size in sizes.items()
            ),
            newest_point=self._points.newest,
            points=self._points.count,
            bytes_sent=self._progress.sent,
            bytes_compared=self._progress.compared,
            paused_seconds=self._progress.paused_seconds,
            tenure=self._tenure,
        )

    def _lag(self) -> Lag | None:
        if self._phase is Phase.PROTECTED or (self._phase is Phase.WAITING and self._behind_since is None):
            return Lag(bytes=0, seconds=0.0)
        line, behind_since = self._line, self._behind_since
        if line is None or behind_since is None:
            return None
        try:
            usable = line.tracking.usable()
            marked = [line.tracking.marked(serial) for serial in usable]
        except HotspareError:
            return None
        # While a pass is under way there are two: what the one marks and what the other does may overlap.
        most = sum(sum(one.values()) for one in marked)
        return Lag(bytes=most, seconds=max(0.0, time.time() - behind_since)) if marked else None

    def _note(self, phase: Phase, reason: str = "") -> None:
        if (phase, reason) != (self._phase, self._reason):
            _LOG.info("%s: %s%s", self._protection.machine, phase, f", {reason}" if reason else "")
            self._since = self._since if phase is self._phase else time.time()
            self._phase, self._reason = phase, reason

    # What its group needs

    @property
    def points(self) -> PointMaker:
        """Who makes its points."""
        return self._points

    def unbroken(self) -> int:
        """Give a number that stays the same for as long as the mirrors have missed no write.

        Raises:
            HotspareError: they may have.
        """
        line, number = self._line, self._times_protected
        if line is None or self._phase is not Phase.PROTECTED:
            raise HotspareError(f"{self._protection.machine} is {self._phase}: {self._reason or 'not yet'}")
        if (failure := line.mirror.failure()) is not None:
            raise HotspareError(f"{self._protection.machine}: {failure}")
        if number != self._times_protected:
            raise HotspareError(f"{self._protection.machine} has just caught up")
        return number

    def describe_point(self, name: str) -> ReplicaPoint:
        """Describe a point of now. Raises ``HotspareError`` when it is not mirrored."""
        self.unbroken()
        if self._line is None:
            raise HotspareError(f"{self._protection.machine} does not run")
        return self._points.describe(self._line.monitor.domain, self._disks, name)

    # Its life

    def run(self, cancellation: Cancellation) -> None:
        """See ``Runner``."""
        while not cancellation.requested:
            try:
                self._protect(cancellation)
            except Interrupted:
                break
            except MachineNotFound as error:
                self._note(Phase.WAITING, str(error))
            except (HotspareError, _Broken, libvirt.libvirtError) as error:
                if self._is_off():
                    self._note(Phase.WAITING, "the machine is off")
                else:
                    self._degrade(str(error))
            except Exception as error:  # noqa: BLE001 - the guest must not wait for a mistake of ours
                _LOG.exception("%s: a mistake in Hotspare", self._protection.machine)
                self._degrade(f"{type(error).__name__}: {error}")
            cancellation.pause(_RETRY_SECONDS)
        self._points.close()
        self._standby.close()

    def release(self) -> None:
        """See ``Runner``."""
        self._keeper.set_in_sync(False)
        with suppress(HotspareError, libvirt.libvirtError):
            line = self._find()
            if line is not None:
                line.mirror.end()
                line.tracking.drop_all_but(set())
        self._note(Phase.STOPPED)

    def _protect(self, cancellation: Cancellation) -> None:
        """Go through one life of the machine, or of the connection to the standby."""
        line = self._line = self._find()
        if line is None:
            self._note(Phase.WAITING, "the machine is off")
            return
        if not (line.mirror.is_there() and self._adopt(line)):
            self._catch_up(line, cancellation)
        self._behind_since = None
        self._times_protected += 1
        self._keeper.set_in_sync(True)
        self._note(Phase.PROTECTED)
        self._watch(line, cancellation)

    def _find(self) -> Line | None:
        """Find the machine; None when it does not run."""
        protection = self._protection
        connection = open_connection(protection.platform)
        domain = find_domain(connection, protection.machine_id, protection.platform)
        with explained(f"The machine {protection.machine} cannot be looked at"):
            if not domain.isActive():
                return None
            self._disks = self._sizes(domain)
        if not self._disks:
            raise MachineNotFound(f"The machine {protection.machine} has no disk that can be replicated")
        monitor = Monitor(domain)
        nodes = monitor.disk_nodes(self._disks)
        return Line(
            monitor=monitor,
            nodes=nodes,
            tracking=Tracking(monitor, protection.id, nodes),
            mirror=Mirror(monitor, protection.id, nodes),
            standby=self._standby,
            protection=protection.id,
            uri=protection.platform,
            folder=qemu_folder(connection, protection.id, self._agent.identity, protection.standby),
        )

    def _sizes(self, domain: libvirt.virDomain) -> dict[str, int]:
        """Give the disks that are replicated, with their sizes in bytes."""
        wanted = self._protection.disks
        disks = inspect_disks(domain).backed_up
        return {disk.name: disk.size for disk in disks if not wanted or disk.name in wanted}

    def _adopt(self, line: Line) -> bool:
        """Go on with mirrors that an earlier agent started, if they are whole; else let go of them."""
        silent_since = time.monotonic()
        while line.mirror.failure() is None:
            try:
                pulse = self._standby.pulse(_PULSE_SECONDS)
            except PeerUnavailable:
                if time.monotonic() - silent_since < self._protection.stall_limit:
                    continue
                break
            if pulse.problem or pulse.exports is None or not line.mirror.leads_to(pulse.exports.names):
                break
            prepared = self._standby.prepare(self._disks, anew=False)
            if not prepared.whole or prepared.base not in line.tracking.usable():
                break
            self._base = prepared.base
            self._points.start(prepared)
            return True
        self._let_go(line)
        return False

    def _catch_up(self, line: Line, cancellation: Cancellation) -> None:
        if self._behind_since is None:
            self._behind_since = time.time()
        self._standby.hang_up()  # connections of before the break may be dead without knowing it
        self._points.settle()
        prepared = self._standby.prepare(self._disks, anew=True)
        self._points.start(prepared)
        work = CatchUp(line, prepared, self._protection.bandwidth, self._progress, self._note, cancellation)
        target = MirrorTarget(
            address=self._standby.peer.address,
            port=prepared.exports.port,
            exports=prepared.exports.names,
            credentials=line.folder / "tls",
            server_name=self._standby.peer.id,
        )
        self._base = work.run(lambda: self._points.describe(line.monitor.domain, self._disks), target)

    # While it is protected

    def _watch(self, line: Line, cancellation: Cancellation) -> None:
        """Return when cancelled.

        Raises:
            _Broken: the machine has to go on alone.
            SourceLost: it has stopped.
        """
        heard = pulsed = looked = time.monotonic()
        prepared, flow = self._points.exports, _Flow()
        while not cancellation.requested:
            cancellation.pause(_TICK_SECONDS)
            failure = line.mirror.failure()
            if failure is not None:
                raise _Broken(failure)
            if time.monotonic() - pulsed >= _PULSE_SECONDS:
                pulsed = time.monotonic()
                with suppress(PeerUnavailable):
                    left = self._protection.stall_limit - (pulsed - heard)
                    pulse = self._standby.pulse(min(_PULSE_SECONDS, max(_TICK_SECONDS, left)))
                    if pulse.problem:
                        raise _Broken(f"the standby cannot take writes: {pulse.problem}")
                    if pulse.exports != prepared:
                        raise _Broken("the standby has started its disks anew")
                    heard = time.monotonic()
            if time.monotonic() - heard > self._protection.stall_limit:
                raise _Broken(f"the standby has been silent for {time.monotonic() - heard:.0f} seconds")
            if flow.stuck_seconds(line.mirror.waiting()) > self._protection.stall_limit:
                raise _Broken("writes do not arrive on the standby, although its agent answers")
            if time.monotonic() - looked >= _LOOK_SECONDS:
                looked = time.monotonic()
                if self._sizes(line.monitor.domain) != self._disks:
                    raise _Broken("the machine has other disks than before")
            self._base = self._points.tend(line, self._disks, self._base)

    def _degrade(self, reason: str) -> None:
        """Let the machine go on without its replica, once those know of it who need to."""
        if self._behind_since is None:
            self._behind_since = time.time()
        self._keeper.set_in_sync(False)
        while not self._keeper.may_degrade():
            time.sleep(_KEEPER_SECONDS)
        line = self._line
        if line is not None:
            with suppress(HotspareError, libvirt.libvirtError):
                self._let_go(line)
        self._note(Phase.DEGRADED, reason)

    def _is_off(self) -> bool:
        """Whether the machine is off: its mirrors end a moment before libvirt says so."""
        for _ in range(4):
            if self._line is not None and is_known_off(self._line.monitor.domain):
                return True
            time.sleep(0.05)
        return False

    def _let_go(self, line: Line) -> None:
        if line.mirror.is_there():
            line.mirror.cut()


class _Flow:
    """Notices that writes are on their way and none of a disk arrives: a disk there may hang."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}

    def stuck_seconds(self, waiting: dict[str, int]) -> float:
        """Take in how many bytes have arrived of each disk that waits; tell how long one has stood still."""
        now = time.monotonic()
        self._seen = {
            disk: seen if (seen := self._seen.get(disk)) and seen[0] == arrived else (arrived, now)
            for disk, arrived in waiting.items()
        }
        return max((now - since for _, since in self._seen.values()), default=0.0)
