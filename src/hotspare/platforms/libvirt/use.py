"""What the domains of a host have used since they were started, in one call for all of them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import libvirt

from hotspare.platforms.libvirt.connection import explained
from hotspare.policy.load import HostUse, MachineUse

_WANTED = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_BLOCK | libvirt.VIR_DOMAIN_STATS_INTERFACE
)
# NOWAIT passes over what a domain that is busy with another call cannot tell now, instead of waiting.
_FLAGS = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
_CPUS = 2
"""Place of the number of active processors in what ``getInfo`` gives."""


def host_use(connection: libvirt.virConnect, uri: str, at: datetime) -> HostUse:
    """Look at all domains that run. Raises ``PlatformUnavailable``."""
    with explained(f"What the machines at {uri} use cannot be seen"):
        cpus = connection.getInfo()[_CPUS]
        found = connection.getAllDomainStats(_WANTED, _FLAGS)
        return HostUse(at, cpus, {domain.UUIDString(): machine_use(counted) for domain, counted in found})


def machine_use(counted: Mapping[str, Any]) -> MachineUse:
    """Add up what libvirt counts of one domain by names like ``cpu.time`` and ``block.0.rd.bytes``."""

    def total(group: str, *endings: str) -> int:
        names = [
            f"{group}.{number}.{ending}"
            for number in range(int(counted.get(f"{group}.count", 0)))
            for ending in endings
        ]
        return sum(int(counted.get(name, 0)) for name in names)

    return MachineUse(
        cpu_nanoseconds=int(counted.get("cpu.time", 0)),
        disk_bytes=total("block", "rd.bytes", "wr.bytes"),
        disk_operations=total("block", "rd.reqs", "wr.reqs", "fl.reqs"),
        disk_nanoseconds=total("block", "rd.times", "wr.times", "fl.times"),
        network_bytes=total("net", "rx.bytes", "tx.bytes"),
    )
