"""Keeps the leases of all machines that this host protects, or has a replica of."""

import logging
import os
import threading
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING

from hotspare.errors import HotspareError
from hotspare.replication.failover import machine as machines
from hotspare.replication.failover.active import end_active, read_active
from hotspare.replication.failover.takeover import (
    TENURE,
    bring_up,
    is_asked_for,
    read_report,
    run_command,
    start_again,
)
from hotspare.replication.kept import write_struct
from hotspare.replication.lease.fencing import Fencing
from hotspare.replication.lease.keeper import LeaseKeeper
from hotspare.replication.lease.leases import BEGIN, RENEW, TAKE, AskRenew, AskTake, Begin, Leases
from hotspare.replication.lease.surroundings import Line
from hotspare.replication.lease.terms import Record, Renew, Take, Verdict
from hotspare.replication.link.client import PeerClient
from hotspare.replication.model import Protection, Tenure

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent

_LOG = logging.getLogger("hotspare.replica")
_LOOK_SECONDS = 0.5
_ATTEMPTS = 24
_AGAIN_SECONDS = 5.0
"""From one attempt to start a machine that failed to the next: libvirt, or a network, may be late."""


class PeerLine(Line):
    """The way to a voter that is another agent."""

    def __init__(self, client: PeerClient, protection: Protection) -> None:
        self._client = client
        self._protection = protection

    def renew(self, message: Renew, timeout: float) -> Verdict:
        """See ``Line``."""
        return self._client.call(RENEW, AskRenew(lease=self._protection.id, message=message), timeout=timeout)

    def take(self, message: Take, timeout: float) -> Verdict:
        """See ``Line``."""
        return self._client.call(TAKE, AskTake(lease=self._protection.id, message=message), timeout=timeout)

    def begin(self, timeout: float) -> Verdict:
        """See ``Line``."""
        protection = self._protection
        asked = Begin(
            lease=protection.id,
            holder=protection.source,
            standby=protection.standby,
            terms=protection.failover.terms,
        )
        return self._client.call(BEGIN, asked, timeout=timeout)

    def close(self) -> None:
        """See ``Line``."""
        self._client.close()


class ThisHost:
    """What a keeper may ask of this host, see ``lease.surroundings``."""

    def __init__(self, agent: "Agent", protection: Protection) -> None:
        self._agent = agent
        self._protection = protection
        self._epoch = 0
        """In which this host was the holder last."""
        self._deposed = threading.Event()

    def _newest(self) -> Protection:
        return self._agent.protection(self._protection.id)

    def pid(self) -> int:
        """See ``Surroundings``."""
        return machines.pid_of(self._protection.machine)

    def replica_is_whole(self) -> bool:
        """See ``Surroundings``. Without a point there is no definition."""
        if read_active(self._agent.folder_of(self._protection.id)) is not None:
            return False
        with suppress(HotspareError):
            return bool(self._agent.replica(self._protection.id).points())
        return False

    def before_take(self) -> bool:
        """See ``Surroundings``."""
        command = self._newest().failover.fence_command
        if not command:
            return True
        environment = {
            **os.environ,
            "HOTSPARE_MACHINE": self._protection.machine,
            "HOTSPARE_HOST": self._agent.identity.peer(other_host(self._agent, self._protection)).name,
        }
        try:
            run_command(command, environment)
        except HotspareError as error:
            _LOG.error("%s is not taken over: %s", self._protection.machine, error)
            return False
        return True

    def held(self, record: Record, *, was_running: bool) -> None:
        """See ``Surroundings``."""
        protection, me = self._newest(), self._agent.identity.id
        folder = self._agent.folder_of(protection.id)
        write_struct(folder / TENURE, Tenure(epoch=record.epoch, holder=me))
        if protection.failover.automatic:
            machines.no_autostart(protection.platform, protection.machine_id)
        self._epoch = record.epoch
        self._deposed.clear()
        for _ in range(_ATTEMPTS):
            if self._is_cared_for(record, was_running=was_running):
                return
            if self._deposed.wait(_AGAIN_SECONDS) or self._epoch != record.epoch:
                return

    def _is_cared_for(self, record: Record, *, was_running: bool) -> bool:
        """See to it that the machine runs, if it is to; give whether that worked."""
        protection = self._newest()
        folder = self._agent.folder_of(protection.id)
        try:
            if protection.standby == self._agent.identity.id:
                done = read_report(folder)
                unfinished = (
                    done is None or done.epoch != record.epoch or done.problem or is_asked_for(folder)
                )
                if was_running or unfinished:
                    bring_up(self._agent, protection, record)
            elif was_running:
                start_again(protection)
        except HotspareError as error:
            _LOG.error("%s: %s", protection.machine, error)
            return False
        if self._deposed.is_set():
            self.lost()  # it may have ended the machine before it was started
        return True

    def lost(self) -> None:
        """See ``Surroundings``."""
        self._deposed.set()
        protection = self._newest()
        end_active(self._agent.folder_of(protection.id))
        try:
            machines.destroy(protection.platform, protection.machine_id)
            machines.no_autostart(protection.platform, protection.machine_id)
        except HotspareError as error:
            _LOG.error("%s: %s", protection.machine, error)


def other_host(agent: "Agent", protection: Protection) -> str:
    """Give the id of the other of the two hosts."""
    return protection.standby if protection.source == agent.identity.id else protection.source


class Keeping:
    """One keeper for each protection, as long as there is the protection."""

    def __init__(self, agent: "Agent", leases: Leases) -> None:
        self._agent = agent
        self._leases = leases
        self._turn = threading.RLock()
        self._keepers: dict[str, tuple[Protection, LeaseKeeper]] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="keeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End. Machines go on as long as their leases."""
        self._closed.set()
        self._thread.join()
        with self._turn:
            for _, keeper in self._keepers.values():
                keeper.close()
            self._keepers.clear()

    def keeper_for(self, protection: Protection) -> LeaseKeeper:
        """Give the keeper of a protection's lease."""
        with self._turn:
            known = self._keepers.get(protection.id)
            if known is not None and _same_lease(known[0], protection):
                return known[1]
            if known is not None:
                known[1].close()
            keeper = self._make(protection)
            self._keepers[protection.id] = protection, keeper
            keeper.start()
            return keeper

    def _make(self, protection: Protection) -> LeaseKeeper:
        identity, terms = self._agent.identity, protection.failover.terms
        lease = self._leases.begin(protection.id, protection.source, protection.standby, terms)
        if lease.kept.record.holder != identity.id:
            end_active(self._agent.folder_of(protection.id))
        voters = [protection.witness] if protection.witness else []
        voters.append(other_host(self._agent, protection))
        lines = {name: PeerLine(self._agent.client(name), protection) for name in voters}
        fencing = self._fencing(protection)
        automatic = protection.witness and protection.failover.automatic
        if not automatic:
            fencing.quit()  # of an earlier policy
        return LeaseKeeper(
            identity.id, lease, lines, fencing if automatic else None, ThisHost(self._agent, protection)
        )

    def _fencing(self, protection: Protection) -> Fencing:
        return Fencing(self._agent.state / "fences", protection.id, protection.machine_id)

    def _look_after(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            with suppress(HotspareError):
                there = {protection.id: protection for protection in self._agent.protections()}
                for protection in there.values():
                    self.keeper_for(protection)
                self._drop_all_but(there.keys())

    def _drop_all_but(self, names: Collection[str]) -> None:
        with self._turn:
            for name in set(self._keepers) - set(names):
                protection, keeper = self._keepers.pop(name)
                keeper.close()
                self._fencing(protection).quit()
                self._leases.forget(name)


def _same_lease(one: Protection, other: Protection) -> bool:
    return _lease_of(one) == _lease_of(other)


def _lease_of(protection: Protection) -> tuple[object, ...]:
    policy = protection.failover
    hosts = frozenset({protection.source, protection.standby})
    return protection.witness, policy.automatic, policy.terms, hosts
