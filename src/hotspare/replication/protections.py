"""What an agent can be asked about the machines that it protects."""

import os
import time
from typing import TYPE_CHECKING

import msgspec

from hotspare.errors import HotspareError, MachineNotFound, TargetExists, UsageError
from hotspare.platforms.registry import open_platform
from hotspare.replication.groups.order import joined, members_of
from hotspare.replication.link.server import Caller
from hotspare.replication.link.wire import LOCAL, NOTHING, Nothing, Verb
from hotspare.replication.model import NamedProtection, Phase, Protection, Status
from hotspare.replication.source.qemu_folder import remove_qemu_folder
from hotspare.replication.source.standby_link import StandbyLink
from hotspare.thinning import parse_thinning

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """Protect a machine from now on."""

    protection: Protection
    """Without id, source and the machine's id; the standby and the witness may be given by name."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Put a changed protection in the place of the one with its id."""

    protection: Protection


class Remove(msgspec.Struct, frozen=True, kw_only=True):
    """Forget a protection."""

    protection: str
    only_here: bool = False
    """The standby is gone for good: do not ask it to remove its replica."""


CREATE = Verb("protection.create", Create, Protection, LOCAL)
CHANGE = Verb("protection.change", Change, Nothing, LOCAL)
STATUS = Verb("protection.status", Nothing, list[Status], LOCAL)
STOP = Verb("protection.stop", NamedProtection, Protection, LOCAL)
START = Verb("protection.start", NamedProtection, Protection, LOCAL)
REMOVE = Verb("protection.remove", Remove, Protection, LOCAL)


def register(agent: "Agent") -> None:
    """Let an agent answer all of this."""
    service = _Service(agent)
    agent.services.register(CREATE, service.create)
    agent.services.register(CHANGE, service.change)
    agent.services.register(STATUS, service.status)
    agent.services.register(STOP, service.stop)
    agent.services.register(START, service.start)
    agent.services.register(REMOVE, service.remove)


class _Service:
    def __init__(self, agent: "Agent") -> None:
        self._agent = agent

    def create(self, _caller: Caller, asked: Create, _body: bytes) -> Protection:
        wanted, identity = asked.protection, self._agent.identity
        parse_thinning(wanted.retention)
        if wanted.interval <= 0 or wanted.stall_limit <= 0:
            raise UsageError("Intervals and limits are more than nothing", meaning="Nothing was done")
        machine_id, machine = self._find(wanted)
        self._refuse_second(machine_id, machine)
        protection: Protection = msgspec.structs.replace(
            wanted,
            id=os.urandom(8).hex(),
            machine_id=machine_id,
            machine=machine,
            source=identity.id,
            standby=identity.peer(wanted.standby).id,
            witness=identity.peer(wanted.witness).id if wanted.witness else "",
            group=None,
        )
        if wanted.group is not None:
            members = members_of(wanted.group.name, self._agent.protections())
            protection = joined(protection, wanted.group.name, members, wanted.group)
        self._agent.keep(protection)
        return protection

    def _find(self, wanted: Protection) -> tuple[str, str]:
        platform = open_platform(wanted.platform)
        try:
            machine = platform.inspect(wanted.machine)
        finally:
            platform.close()
        names = {disk.name for disk in machine.disks}
        if unknown := set(wanted.disks) - names:
            raise UsageError(
                f"The machine {machine.name} has no disk {', '.join(sorted(unknown))} that can be replicated",
                meaning="Nothing was done",
                hint=f"It has {', '.join(sorted(names)) or 'none'}",
            )
        return machine.id, machine.name

    def _refuse_second(self, machine_id: str, machine: str) -> None:
        for known in self._agent.protections():
            if known.machine_id == machine_id and known.source == self._agent.identity.id:
                raise TargetExists(
                    f"The machine {machine} is protected already, by {known.id}",
                    meaning="Nothing was changed",
                    hint='"hotspare replica remove" ends that',
                )

    def change(self, _caller: Caller, asked: Change, _body: bytes) -> Nothing:
        self._agent.protection(asked.protection.id)
        self._agent.keep(asked.protection)
        return NOTHING

    def status(self, _caller: Caller, _asked: Nothing, _body: bytes) -> list[Status]:
        return [self._status_of(protection) for protection in self._agent.protections()]

    def _status_of(self, protection: Protection) -> Status:
        runner = self._agent.runner(protection.id)
        if runner is not None:
            return runner.status()
        if protection.source == self._agent.identity.id:
            return Status(protection=protection, phase=Phase.STOPPED, since=time.time(), reason="by the user")
        return self._status_of_replica(protection)

    def _status_of_replica(self, protection: Protection) -> Status:
        try:
            replica = self._agent.replica(protection.id)
        except MachineNotFound:
            reason = "there is no replica here yet"
            return Status(protection=protection, phase=Phase.WAITING, since=time.time(), reason=reason)
        points = replica.points()
        return Status(
            protection=protection,
            phase=Phase.STANDBY,
            since=time.time(),
            reason="" if replica.state.whole else "between two whole states: its newest point is what counts",
            newest_point=points[-1].id if points else "",
            points=len(points),
            tenure=replica.state.tenure,
        )

    def stop(self, _caller: Caller, asked: NamedProtection, _body: bytes) -> Protection:
        protection = self._mine(asked.protection)
        self._agent.stop_protecting(protection)
        return self._agent.protection(protection.id)

    def start(self, _caller: Caller, asked: NamedProtection, _body: bytes) -> Protection:
        protection = self._mine(asked.protection)
        started: Protection = msgspec.structs.replace(protection, stopped=False)
        self._agent.keep(started)
        return started

    def remove(self, _caller: Caller, asked: Remove, _body: bytes) -> Protection:
        protection = self._mine(asked.protection)
        self._agent.stop_protecting(protection)
        if not asked.only_here:
            standby = StandbyLink(self._agent.identity, protection, self._agent.tenure_of(protection))
            try:
                standby.forget()
            finally:
                standby.close()
        self._agent.forget(protection.id)
        remove_qemu_folder(protection.id)
        return protection

    def _mine(self, name: str) -> Protection:
        protection = self._agent.protection(name)
        if protection.source != self._agent.identity.id:
            raise HotspareError(
                f"The machine {protection.machine} is protected by another host; its replica is here",
                meaning="Nothing was changed",
                hint="Run this on the host that runs the machine",
            )
        return protection
