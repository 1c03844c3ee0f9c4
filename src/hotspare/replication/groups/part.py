"""The part of an agent that looks after groups."""

from typing import TYPE_CHECKING

from hotspare.replication.groups.failover import register_group_failover
from hotspare.replication.groups.maker import GroupKeeper
from hotspare.replication.groups.rehearsal import register_group_rehearsal
from hotspare.replication.groups.replicas import register_replicas
from hotspare.replication.groups.service import register_groups

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent


def register(agent: "Agent") -> None:
    """Let an agent have points made of groups, and bring them up."""
    keeper = GroupKeeper(agent)
    agent.closing.append(keeper.close)
    register_replicas(agent)
    register_groups(agent, keeper)
    register_group_failover(agent)
    register_group_rehearsal(agent)
    keeper.start()
