"""Describing a point of a machine that is off."""

from collections.abc import Mapping
from datetime import UTC, datetime

import libvirt

from hotspare.platforms.libvirt.inventory import describe_machine
from hotspare.platforms.libvirt.state import read_state
from hotspare.platforms.platform import Consistency
from hotspare.platforms.replica.record import ReplicaDisk, ReplicaPoint
from hotspare.repository.point import new_point_id


def describe_off(
    domain: libvirt.virDomain, uri: str, disks: Mapping[str, int], *, after: str
) -> ReplicaPoint:
    """Describe a point of now, of a machine that was shut down.

    Args:
        domain: the machine.
        uri: of its platform.
        disks: sizes in bytes.
        after: id of the point before; empty if there is none.
    """
    now = datetime.now(UTC)
    state = read_state(domain, uri)
    return ReplicaPoint(
        id=new_point_id(now, after=after),
        taken_at=now,
        finished_at=now,
        consistency=Consistency.OFFLINE.value,
        machine=describe_machine(domain, uri),
        disks=tuple(ReplicaDisk(name=name, size=size) for name, size in disks.items()),
        state=tuple(state.files),
        warnings=tuple(state.warnings),
    )
