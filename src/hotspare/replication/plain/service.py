"""What an agent can be asked about bare files that it replicates."""

import os
from typing import TYPE_CHECKING

import msgspec

from hotspare.errors import TargetExists, UsageError
from hotspare.replication.interval.shipping import SHORTEST_INTERVAL
from hotspare.replication.link.server import Caller
from hotspare.replication.link.wire import LOCAL, Verb
from hotspare.replication.model import Mode, Protection
from hotspare.replication.plain.source import PlainSource
from hotspare.thinning import parse_thinning

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent


class CreatePlain(msgspec.Struct, frozen=True, kw_only=True):
    """Replicate a file or block device from now on."""

    source: str
    """As ``PlainSource.uri`` gives it."""
    standby: str
    """Id or name of the host."""
    interval: float
    """Seconds."""
    retention: str
    """As ``parse_thinning`` reads it."""
    folder: str = ""
    """Where the standby keeps the replica; empty for its state folder."""


CREATE = Verb("plain.create", CreatePlain, Protection, LOCAL)


def register(agent: "Agent") -> None:
    """Let an agent answer all of this."""

    def create(_caller: Caller, asked: CreatePlain, _body: bytes) -> Protection:
        parse_thinning(asked.retention)
        if asked.interval < SHORTEST_INTERVAL:
            raise UsageError(
                f"An interval of {asked.interval:g} s is too short",
                meaning="Nothing was done",
                hint=f"The shortest is {SHORTEST_INTERVAL:g} s",
            )
        machine = PlainSource.of_uri(asked.source).inspect()
        if any(known.machine == machine.name for known in agent.protections()):
            raise TargetExists(
                f"Something of the name {machine.name} is replicated already",
                meaning="Nothing was changed",
                hint="Choose another with --name",
            )
        protection = Protection(
            id=os.urandom(8).hex(),
            machine_id=machine.id,
            machine=machine.name,
            mode=Mode.INTERVAL,
            source=agent.identity.id,
            standby=agent.identity.peer(asked.standby).id,
            platform=asked.source,
            folder=asked.folder,
            interval=asked.interval,
            retention=asked.retention,
        )
        agent.keep(protection)
        return protection

    agent.services.register(CREATE, create)
