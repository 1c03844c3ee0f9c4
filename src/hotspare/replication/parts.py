"""All parts of an agent: what it can be asked, and who looks after machines in which mode."""

from collections.abc import Mapping, Sequence

from hotspare.replication import pairing, protections
from hotspare.replication.agent import Part, RunnerFactory
from hotspare.replication.failover import part as failover
from hotspare.replication.groups import part as groups
from hotspare.replication.interval import service as interval
from hotspare.replication.interval.runner import IntervalRunner
from hotspare.replication.model import Mode
from hotspare.replication.plain import service as plain
from hotspare.replication.source.sync import SyncRunner
from hotspare.replication.standby import service

PARTS: Sequence[Part] = (
    pairing.register,
    protections.register,
    service.register,
    interval.register,
    plain.register,
    failover.register,
    groups.register,
)
RUNNERS: Mapping[Mode, RunnerFactory] = {Mode.SYNC: SyncRunner, Mode.INTERVAL: IntervalRunner}
