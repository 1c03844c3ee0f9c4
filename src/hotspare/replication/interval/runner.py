"""Who looks after one machine in interval mode, on its source."""

import logging
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.platforms.registry import open_platform
from hotspare.replication.interval.remote import RemoteStandby
from hotspare.replication.interval.shipping import SHORTEST_INTERVAL, Shipping, ShippingPlan
from hotspare.replication.interval.standby import Source
from hotspare.replication.model import DiskStatus, Lag, Phase, Protection, Status
from hotspare.replication.plain.source import SCHEME, PlainSource
from hotspare.thinning import parse_thinning

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent

_LOG = logging.getLogger("hotspare.replica")
_TELL_SECONDS = 0.5
_LATE_INTERVALS = 2.0
"""So many intervals, and the time of a cycle, may the newest point be old before that is said."""


class IntervalRunner:
    """A ``Runner`` of the agent.

    Args:
        agent: of this host.
        protection: in interval mode.
    """

    def __init__(self, agent: "Agent", protection: Protection) -> None:
        self._agent = agent
        self._protection = protection
        self._keeper = agent.keeper_for(protection)
        self._deposed = False
        self._keeper.on_deposed(self._depose)
        self._disks: dict[str, DiskStatus] = {}
        self._began = time.time()
        plan = ShippingPlan(
            protection=protection.id,
            machine=protection.machine_id,
            interval=max(protection.interval, SHORTEST_INTERVAL),
            thinning=parse_thinning(protection.retention),
            consistent_every=protection.application_interval or None,
            disks=protection.disks,
            bandwidth=protection.bandwidth,
        )
        self._shipping = Shipping(
            plan,
            open_platform=lambda: _open_source(protection.platform),
            open_standby=self._standby,
            listener=self._note,
            may_ship=self._may_ship,
        )

    def _depose(self) -> None:
        self._deposed = True

    def _may_ship(self) -> bool:
        """Whether to ship now."""
        return not self._deposed

    def _standby(self) -> RemoteStandby:
        identity, protection = self._agent.identity, self._protection
        tenure = self._agent.tenure_of(protection)
        return RemoteStandby(identity, identity.peer(protection.standby), protection, tenure)

    def _note(self, event: events.Event) -> None:
        match event:
            case events.DiskStarted():
                self._disks[event.disk] = DiskStatus(
                    name=event.disk, size=event.size, bytes_to_do=event.bytes_to_process
                )
            case events.Progress(disk=disk, bytes_processed=done) if disk in self._disks:
                before = self._disks[disk]
                self._disks[disk] = DiskStatus(
                    name=disk, size=before.size, bytes_done=done, bytes_to_do=before.bytes_to_do
                )
            case events.Warned():
                _LOG.warning("%s: %s", self._protection.machine, event.message)

    def run(self, cancellation: Cancellation) -> None:
        """Ship until cancelled."""
        telling = threading.Thread(
            target=self._tell_keeper, args=(cancellation,), name="in-time", daemon=True
        )
        telling.start()
        self._shipping.run(cancellation)

    def _tell_keeper(self, cancellation: Cancellation) -> None:
        """Tell the keeper whether the standby is as new as was promised, also while a cycle hangs.

        An older replica is not what another host may go on with by itself.
        """
        told: bool | None = None
        while not cancellation.requested:
            in_time = self._is_in_time(datetime.now(UTC)) and not self._deposed
            if in_time != told:
                try:
                    self._keeper.set_in_sync(in_time)
                    told = in_time
                except Exception:  # noqa: BLE001 - it is told again: this thread must not end
                    _LOG.exception("%s: the lease could not be told", self._protection.machine)
            cancellation.pause(_TELL_SECONDS)

    def release(self) -> None:
        """Let nobody take over what ages from now on. Checkpoints of the platform go with its next sweep."""
        self._keeper.set_in_sync(False)

    def _is_in_time(self, now: datetime) -> bool:
        state = self._shipping.status
        lag = state.lag(now)
        allowed = _LATE_INTERVALS * self._protection.interval + state.last_seconds
        return lag is not None and lag.total_seconds() <= allowed

    def status(self) -> Status:
        """Say how it goes."""
        state, now = self._shipping.status, datetime.now(UTC)
        lag = state.lag(now)
        phase, since, reason = self._phase(now)
        return Status(
            protection=self._protection,
            phase=phase,
            since=since,
            reason=reason,
            lag=None if lag is None else Lag(bytes=state.last_bytes, seconds=lag.total_seconds()),
            disks=tuple(self._disks.values()),
            newest_point=state.newest or "",
            points=state.points,
            bytes_sent=state.bytes_sent,
            tenure=self._agent.tenure_of(self._protection),
        )

    def _phase(self, now: datetime) -> tuple[Phase, float, str]:
        state = self._shipping.status
        if self._deposed:
            return Phase.STOPPED, self._began, "another host has taken the machine over"
        if state.failure is not None:
            since = state.failing_since.timestamp() if state.failing_since else self._began
            return Phase.DEGRADED, since, state.failure
        if state.newest is None:
            return Phase.SYNCING, self._began, "the first copy is under way"
        if not self._is_in_time(now):
            since = state.working_since.timestamp() if state.working_since else self._began
            return Phase.DEGRADED, since, "the standby is further behind than the interval promises"
        full = "; ".join(state.full_because)
        return Phase.PROTECTED, self._began, f"sent in full: {full}" if full else ""


def _open_source(uri: str) -> Source:
    return PlainSource.of_uri(uri) if uri.startswith(f"{SCHEME}:") else open_platform(uri)
