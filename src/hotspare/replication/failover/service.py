"""What an agent can be asked about failovers, by the command line and by the other host."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hotspare.errors import HotspareError, PermissionRefused, PointNotFound, UsageError
from hotspare.replication.failover import machine as machines
from hotspare.replication.failover.active import read_active
from hotspare.replication.failover.cards import cards_of
from hotspare.replication.failover.keeping import Keeping, other_host
from hotspare.replication.failover.planned import hand_over
from hotspare.replication.failover.rehearsal import rehearse
from hotspare.replication.failover.report import Card, Loss, Report, new_report
from hotspare.replication.failover.reprotect import become_standby, turned
from hotspare.replication.failover.takeover import REQUEST, Request, ask_for, begin_again, read_report
from hotspare.replication.lease.keeper import LeaseKeeper
from hotspare.replication.lease.terms import Record
from hotspare.replication.link.server import Caller
from hotspare.replication.link.wire import LOCAL, NOTHING, PEER, Nothing, PeerUnavailable, Verb
from hotspare.replication.model import NamedProtection, Protection, Tenure
from hotspare.replication.plain.source import SCHEME
from hotspare.replication.standby.replica import Replica

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent

NEWEST = "newest"
"""In the place of a point: all that the replica had when the machine was taken over."""
_ALIVE_SECONDS = 2.0
_UP_SECONDS = 120.0
_POLL_SECONDS = 0.02
_COPY_SECONDS = 24 * 3600.0


class Failover(msgspec.Struct, frozen=True, kw_only=True):
    """Bring a machine up on its standby."""

    protection: str
    """By machine or id."""
    point: str = ""
    """Beginning of a point's id; empty for all that the replica has.

    Once the machine was taken over, the state to begin with again: ``newest`` is all that the replica had.
    """
    planned: bool = False
    """Shut it down where it runs first."""
    force: bool = False
    """Somebody has made sure that it does not run on the other host."""
    dry_run: bool = False
    shutdown_seconds: float = 120.0


class Rehearse(msgspec.Struct, frozen=True, kw_only=True):
    """Try a failover, see ``rehearsal.rehearse``."""

    protection: str
    point: str = ""
    checks: tuple[str, ...] = ()
    boot_seconds: float = 300.0
    check_seconds: float = 60.0


class HandOver(msgspec.Struct, frozen=True, kw_only=True):
    """Shut a machine down and give it to the standby."""

    protection: str
    shutdown_seconds: float


class BecomeStandby(msgspec.Struct, frozen=True, kw_only=True):
    """Keep a replica of a machine from now on, beginning with its old disks."""

    protection: Protection
    tenure: Tenure


class Cards(msgspec.Struct, frozen=True, kw_only=True):
    """The network cards of a machine, as they are where it runs."""

    cards: tuple[Card, ...]


class LeaseStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the lease of one machine stands, as one host knows."""

    protection: Protection
    me: str
    """Id of the host that says so."""
    epoch: int
    holder: str
    armed: bool
    """Whether the standby takes over by itself when the holder is gone."""
    runs_here: bool
    answers: dict[str, bool]
    """On the holder: which voters have answered lately."""
    silent_for: float
    """On the standby: for how many seconds the holder has not been heard, at most a lease."""
    report: Report | None
    """Of the last failover to this host."""


FAILOVER = Verb("failover.failover", Failover, Report, LOCAL)
HAND_OVER = Verb("failover.hand-over", HandOver, Report, PEER)
REHEARSE = Verb("failover.rehearse", Rehearse, Report, LOCAL)
CARDS = Verb("failover.cards", NamedProtection, Cards, LOCAL)
REPROTECT = Verb("failover.reprotect", NamedProtection, Protection, LOCAL)
BECOME_STANDBY = Verb("failover.become-standby", BecomeStandby, Nothing, PEER)
LEASE_STATUS = Verb("failover.status", NamedProtection, LeaseStatus)


def register_failover(agent: "Agent", keeping: Keeping) -> None:
    """Let an agent answer all of this."""
    service = _Service(agent, keeping)
    agent.services.register(FAILOVER, service.failover)
    agent.services.register(HAND_OVER, service.hand_over)
    agent.services.register(REHEARSE, service.rehearse)
    agent.services.register(CARDS, service.cards)
    agent.services.register(REPROTECT, service.reprotect)
    agent.services.register(BECOME_STANDBY, service.become_standby)
    agent.services.register(LEASE_STATUS, service.status)


class _Service:
    def __init__(self, agent: "Agent", keeping: Keeping) -> None:
        self._agent = agent
        self._keeping = keeping

    def status(self, _caller: Caller, asked: NamedProtection, _body: bytes) -> LeaseStatus:
        protection = self._agent.protection(asked.protection)
        keeper, me = self._keeping.keeper_for(protection), self._agent.identity.id
        record = keeper.record
        return LeaseStatus(
            protection=protection,
            me=me,
            epoch=record.epoch,
            holder=record.holder,
            armed=keeper.armed if record.holder == me else record.armed,
            runs_here=record.holder == me and keeper.runs(),
            answers=keeper.answers() if record.holder == me else {},
            silent_for=keeper.silent_for(),
            report=read_report(self._agent.folder_of(protection.id)),
        )

    def hand_over(self, caller: Caller, asked: HandOver, _body: bytes) -> Report:
        protection = self._agent.protection(asked.protection)
        if caller.id != other_host(self._agent, protection):
            raise UsageError("Only the standby of a machine can ask for it", meaning="Nothing was done")
        keeper = self._keeping.keeper_for(protection)
        return hand_over(self._agent, protection, keeper, asked.shutdown_seconds)

    def rehearse(self, _caller: Caller, asked: Rehearse, _body: bytes) -> Report:
        protection = _startable(self._agent.protection(asked.protection))
        if protection.standby != self._agent.identity.id:
            raise UsageError(
                f"The replica of {protection.machine} is not on this host",
                meaning="Nothing was done",
                hint="Run this on the standby",
            )
        return rehearse(
            self._agent,
            protection,
            asked.point,
            asked.checks,
            boot_seconds=asked.boot_seconds,
            check_seconds=asked.check_seconds,
        )

    def cards(self, _caller: Caller, asked: NamedProtection, _body: bytes) -> Cards:
        """Asked for where the machine is at home: away from there, its way back must stay the same."""
        protection, me = self._agent.protection(asked.protection), self._agent.identity.id
        if protection.source != me or self._keeping.keeper_for(protection).record.holder != me:
            raise UsageError(
                f"The machine {protection.machine} does not run on this host, or is not protected from it",
                meaning="Nothing was changed",
                hint='Run this where it runs; after a failover, "hotspare replica reprotect" comes first',
            )
        machine = machines.describe(_startable(protection).platform, protection.machine_id)
        return Cards(cards=tuple(cards_of(machine)))

    def reprotect(self, _caller: Caller, asked: NamedProtection, _body: bytes) -> Protection:
        protection, me = self._agent.protection(asked.protection), self._agent.identity.id
        if protection.source == me:
            return protection  # it was done before
        if self._keeping.keeper_for(protection).record.holder != me:
            raise UsageError(
                f"The machine {protection.machine} was not taken over by this host",
                meaning="Nothing was done",
                hint="Run this where it runs",
            )
        other = turned(protection)
        with self._agent.client(other.standby) as client:
            request = BecomeStandby(protection=other, tenure=self._agent.tenure_of(protection))
            client.call(BECOME_STANDBY, request, timeout=_COPY_SECONDS)
        self._agent.keep(other)
        return other

    def become_standby(self, caller: Caller, asked: BecomeStandby, _body: bytes) -> Nothing:
        protection, me = asked.protection, self._agent.identity.id
        known = self._agent.protection(protection.id)
        if {known.source, known.standby} != {caller.id, me} or protection.standby != me:
            raise PermissionRefused(
                "Only the two hosts of a protection can turn it", meaning="Nothing was done"
            )
        if (
            asked.tenure.holder != caller.id
            or self._keeping.keeper_for(known).record.epoch > asked.tenure.epoch
        ):
            raise PermissionRefused("The caller is not the holder of the machine", meaning="Nothing was done")
        become_standby(self._agent, protection, asked.tenure)
        return NOTHING

    def failover(self, _caller: Caller, asked: Failover, _body: bytes) -> Report:
        protection = _startable(self._agent.protection(asked.protection))
        keeper, me = self._keeping.keeper_for(protection), self._agent.identity.id
        if protection.standby != me:
            raise UsageError(
                f"The replica of {protection.machine} is not on this host",
                meaning="Nothing was done",
                hint="Run this on the standby",
            )
        if keeper.record.holder == me:
            return self._begin_again(protection, keeper.record, asked)
        replica, folder = self._agent.replica(protection.id), self._agent.folder_of(protection.id)
        if read_active(folder) is not None:
            raise UsageError(
                f"What this host has of {protection.machine} is from when it ran here",
                meaning="Nothing was done",
                hint='Run "hotspare replica reprotect" where it runs now, and wait until it is protected',
            )
        report = new_report("failover", protection.machine, protection.id)
        loss = Loss(seconds=0.0, bytes=0)
        if not asked.planned:
            loss = self._loss(replica, asked.point, keeper.silent_for())
        for point in [replica.point(asked.point)] if asked.point else replica.points()[-1:]:
            policy = protection.failover
            report.warnings += machines.refuse_cards_not_for_here(protection.platform, point.machine, policy)
            report.cards = cards_of(point.machine, policy)
        alive = self._is_alive(protection)
        if asked.dry_run:
            report.loss, report.epoch = loss, keeper.record.epoch
            report.warnings += ["the source is alive: it would have to be --planned"] if alive else []
            return report
        ask_for(folder, Request(point=asked.point))
        before = keeper.record.epoch
        try:
            self._take(protection, keeper, asked, report, alive=alive)
        except BaseException:
            (folder / REQUEST).unlink(missing_ok=True)  # it is not what a later failover is to do
            raise
        done = self._wait_for_report(folder, after=before)
        done.loss = loss
        done.steps[:0] = report.steps
        done.bytes_compared, done.bytes_sent = report.bytes_compared, report.bytes_sent
        done.seconds = round(time.time() - report.began, 3)
        done.began = report.began
        return done

    def _begin_again(self, protection: Protection, record: Record, asked: Failover) -> Report:
        """Start what runs here already from another state. Nothing of the other host is touched."""
        active = read_active(self._agent.folder_of(protection.id))
        if not asked.point or asked.planned or (active is not None and active.ended):
            raise UsageError(
                f"The machine {protection.machine} was taken over by this host already",
                meaning="Nothing was done",
                hint="Name another state of it with --point to begin again from that;"
                ' see "hotspare replica lease", too',
            )
        point = "" if asked.point == NEWEST else asked.point
        replica = self._agent.replica(protection.id)
        loss = self._loss(replica, point, 0.0)
        written = 0.0 if active is None else time.time() - active.since
        said = f"what it wrote here in the {written:.0f} s since it was taken over is gone then"
        if asked.dry_run:
            report = new_report("failover", protection.machine, protection.id)
            report.epoch, report.loss = record.epoch, loss
            report.warnings.append(said)
            return report
        report = begin_again(self._agent, protection, record, point)
        report.loss = loss
        return report

    def _take(
        self, protection: Protection, keeper: LeaseKeeper, asked: Failover, report: Report, *, alive: bool
    ) -> None:
        """Become the holder, or raise."""
        if asked.planned:
            self._plan(protection, asked, report)
            return
        if alive and not asked.force:
            raise HotspareError(
                f"The host of {protection.machine} is alive",
                meaning="Nothing was done: a machine must never run twice",
                hint="Use --planned to move it without loss; --force only when it surely does not run there",
            )
        verdict = keeper.take_by_hand(forced=asked.force)
        if not verdict.granted:
            raise HotspareError(
                f"It is not proven that {protection.machine} has stopped on its host: "
                + (
                    f"its lease runs for {verdict.remaining:.1f} s more"
                    if verdict.remaining
                    else "it may run without a lease, as its standby was not to take over by itself"
                ),
                meaning="Nothing was done: a machine must never run twice",
                hint="Wait, or make sure that the host is off (pull its plug) and use --force",
            )

    def _plan(self, protection: Protection, asked: Failover, report: Report) -> None:
        if asked.point:
            raise UsageError("--planned and --point exclude each other", meaning="Nothing was done")
        with report.step("shut down and hand over"), self._agent.client(protection.source) as client:
            request = HandOver(protection=protection.id, shutdown_seconds=asked.shutdown_seconds)
            given = client.call(HAND_OVER, request, timeout=asked.shutdown_seconds + 3600)
        report.steps += given.steps
        report.bytes_compared, report.bytes_sent = given.bytes_compared, given.bytes_sent

    @staticmethod
    def _wait_for_report(folder: Path, after: int) -> Report:
        """Wait until the machine was started here, in a later epoch. Raises if it was not."""
        end = time.monotonic() + _UP_SECONDS
        while time.monotonic() < end:
            report = read_report(folder)
            if report is not None and report.epoch > after:
                if report.problem:
                    raise HotspareError(
                        f"{report.machine} was taken over, and did not start: {report.problem}",
                        meaning="Its replica is whole; this host is the only one that may run it",
                        hint="Mend that: it is tried again for two minutes, and when the agent is started",
                    )
                return report
            time.sleep(_POLL_SECONDS)
        raise HotspareError("The machine was not started in time; see the agent's log")

    def _is_alive(self, protection: Protection) -> bool:
        """Whether the other host's agent answers, and the machine runs there."""
        try:
            with self._agent.client(protection.source) as client:
                status = client.call(
                    LEASE_STATUS, NamedProtection(protection=protection.id), timeout=_ALIVE_SECONDS
                )
        except PeerUnavailable:
            return False
        return status.runs_here

    def _loss(self, replica: Replica, point: str, silent_for: float) -> Loss:
        """Say what the machine will not have any more."""
        points = replica.points()
        if not points:
            raise PointNotFound(
                f"The replica of {replica.record.machine_name} has no point yet",
                meaning="There is nothing to start",
                hint="Wait for the end of the first copy",
            )
        if not point and replica.state.whole:
            return Loss(seconds=round(silent_for, 1), bytes=0)
        taken = (replica.point(point) if point else points[-1]).taken_at.timestamp()
        return Loss(seconds=round(time.time() - taken, 1), bytes=None)


def _startable(protection: Protection) -> Protection:
    """Give the protection of a machine. Raises ``UsageError`` for one of a bare file or device."""
    if protection.platform.startswith(f"{SCHEME}:"):
        raise UsageError(
            f"{protection.machine} is a file or device, and no machine that could be started",
            meaning="Nothing was done",
            hint=f'Get it out of its replica: "hotspare replica extract {protection.machine} --to PATH"',
        )
    return protection
