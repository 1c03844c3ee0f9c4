"""The part of an agent that keeps leases and does failovers. A witness has only the first of it."""

import threading
from typing import TYPE_CHECKING

import msgspec

from hotspare.replication.failover.keeping import Keeping
from hotspare.replication.failover.rehearsal import sweep
from hotspare.replication.failover.service import register_failover
from hotspare.replication.failover.takeover import TENURE
from hotspare.replication.lease.leases import Leases
from hotspare.replication.model import Protection, Tenure

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent


def register(agent: "Agent") -> None:
    """Let an agent vote about leases, keep those of its machines, and take machines over."""
    leases = Leases(agent.state / "lease", agent.services)
    keeping = Keeping(agent, leases)
    agent.keeper_for = keeping.keeper_for
    agent.tenure_of = lambda protection: _tenure_of(agent, protection)
    agent.closing.append(keeping.close)
    register_failover(agent, keeping)
    keeping.start()
    threading.Thread(target=sweep, args=(agent,), name="sweep", daemon=True).start()


def _tenure_of(agent: "Agent", protection: Protection) -> Tenure:
    path = agent.folder_of(protection.id) / TENURE
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Tenure)
    return Tenure(epoch=1, holder=protection.source)
