"""What a host says of itself to another one: its machines, what they lie on, and how busy it is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from hotspare.documents.form import document, utc_time
from hotspare.documents.machine import machine_fields, machine_of
from hotspare.platforms.offers import Offers
from hotspare.platforms.platform import Machine
from hotspare.policy.load import LoadSample


@dataclass(frozen=True, slots=True)
class HostReport:
    """What a host has said."""

    machines: list[Machine]
    pools: Mapping[str, frozenset[str]]
    """By the machine's id: what its disks lie on, as the host calls it."""
    load: LoadSample | None
    """None when that was not asked for, or its platform counts nothing."""
    offers: Offers = field(default_factory=Offers)
    """What a machine that is restored there can be given."""


def host_document(report: HostReport) -> dict[str, Any]:
    """Make the JSON document of what a host has to say."""
    machines = [{**machine_fields(one), "pools": sorted(report.pools[one.id])} for one in report.machines]
    load = load_fields(report.load) if report.load else None
    return document("host", machines=machines, load=load, offers=asdict(report.offers))


def load_fields(load: LoadSample) -> dict[str, Any]:
    """Describe how busy a host was."""
    return {
        "at": utc_time(load.at),
        "cpu": round(load.cpu, 4),
        "disk": round(load.disk),
        "network": round(load.network),
        "latency": None if load.latency is None else round(load.latency, 6),
        "backing_up": load.backing_up,
    }


def read_host(text: str, platform: str) -> HostReport:
    """Read what ``host_document`` gives; the machines are of the platform with that URI.

    Raises:
        ValueError: it is something else.
    """
    try:
        fields = msgspec.json.decode(text)
        machines = [machine_of(one, platform) for one in fields["machines"]]
        pools = {str(one["id"]): frozenset(map(str, one["pools"])) for one in fields["machines"]}
        load = fields["load"]
        if load is not None:
            load = LoadSample(**{**load, "at": datetime.fromisoformat(load["at"])})
        offers = msgspec.convert(fields["offers"], Offers)
    except (KeyError, TypeError, msgspec.MsgspecError) as error:
        raise ValueError(str(error)) from error
    return HostReport(machines, pools, load, offers)
