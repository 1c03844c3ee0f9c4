"""How replication is shown: rows for people, fields for programs."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hotspare.cli.output import utc_time
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.groups.order import membership
from hotspare.replication.groups.service import GroupStatus
from hotspare.replication.groups.whole import GroupPoint
from hotspare.replication.model import Lag, Peer, Phase, Status
from hotspare.units import format_bytes, format_duration


def peer_fields(peer: Peer) -> dict[str, Any]:
    """Describe a host that this one was paired with."""
    return {"id": peer.id, "name": peer.name, "address": peer.address, "port": peer.port}


def status_fields(status: Status) -> dict[str, Any]:
    """Describe how one protection goes."""
    protection, lag = status.protection, status.lag
    return {
        "id": protection.id,
        "machine": protection.machine,
        "group": protection.group.name if protection.group else None,
        "mode": protection.mode.value,
        "source": protection.source,
        "standby": protection.standby,
        "witness": protection.witness or None,
        "phase": status.phase.value,
        "since": utc_time(datetime.fromtimestamp(status.since, UTC)),
        "reason": status.reason or None,
        "lag_bytes": lag.bytes if lag else None,
        "lag_seconds": round(lag.seconds, 3) if lag else None,
        "epoch": status.tenure.epoch if status.tenure else None,
        "points": status.points,
        "newest_point": status.newest_point or None,
        "bytes_sent": status.bytes_sent,
        "bytes_compared": status.bytes_compared,
        "paused_seconds": round(status.paused_seconds, 3),
        "disks": [
            {
                "name": disk.name,
                "size": disk.size,
                "bytes_done": disk.bytes_done,
                "bytes_to_do": disk.bytes_to_do,
            }
            for disk in status.disks
        ],
    }


def status_rows(statuses: Sequence[Status]) -> list[tuple[str, ...]]:
    """Give a row of ``replica list`` for each."""
    return [
        (
            status.protection.machine,
            status.protection.group.name if status.protection.group else "-",
            status.protection.mode.value,
            status.phase.value,
            format_duration(max(0.0, time.time() - status.since)),
            _lag_words(status.lag),
            str(status.points),
            status.newest_point or "-",
            _detail(status),
        )
        for status in statuses
    ]


def _lag_words(lag: Lag | None) -> str:
    if lag is None:
        return "-"
    if not lag.bytes and not lag.seconds:
        return "none"
    return f"{format_bytes(lag.bytes)}, {format_duration(lag.seconds)}"


def _detail(status: Status) -> str:
    copying = status.phase in {Phase.SEEDING, Phase.SYNCING, Phase.RESYNCING}
    done, to_do = (
        sum(getattr(disk, name) for disk in status.disks) for name in ("bytes_done", "bytes_to_do")
    )
    if copying and to_do:
        return f"{format_bytes(done)} of {format_bytes(to_do)}"
    return status.reason


def point_fields(point: ReplicaPoint) -> dict[str, Any]:
    """Describe a point of a replica."""
    return {
        "id": point.id,
        "taken_at": utc_time(point.taken_at),
        "finished_at": utc_time(point.finished_at),
        "consistency": point.consistency,
        "machine": point.machine.name,
        "disks": [
            {"name": disk.name, "size": disk.size, "bytes_sent": disk.bytes_sent} for disk in point.disks
        ],
        "state": [{"name": state.name, "size": len(state.content)} for state in point.state],
        "warnings": list(point.warnings),
        "group": point.group.name if point.group else None,
    }


def group_fields(group: GroupStatus) -> dict[str, Any]:
    """Describe a group and how it goes with it."""
    place = membership(group.members[0])
    return {
        "name": group.name,
        "here": group.here,
        "interval": place.interval,
        "retention": place.retention,
        "pause_limit": place.pause_limit,
        "points": group.points,
        "newest_point": group.newest_point or None,
        "paused_seconds": group.paused_seconds,
        "longest_pause": group.longest_pause,
        "problem": group.problem or None,
        "machines": [
            {
                "machine": one.machine,
                "protection": one.id,
                "wait": membership(one).wait,
                "wait_timeout": membership(one).wait_seconds,
                "delay": membership(one).delay,
            }
            for one in group.members
        ],
    }


def group_rows(groups: Sequence[GroupStatus]) -> list[tuple[str, ...]]:
    """Give a row of ``replica group list`` for each."""
    return [
        (
            group.name,
            ", ".join(one.machine for one in group.members),
            format_duration(membership(group.members[0]).interval),
            str(group.points),
            group.newest_point or "-",
            "-" if group.paused_seconds is None else f"{group.paused_seconds:.3f} s",
            group.problem,
        )
        for group in groups
    ]


def group_point_fields(point: GroupPoint) -> dict[str, Any]:
    """Describe a point of a group."""
    return {
        "id": point.id,
        "group": point.group,
        "taken_at": utc_time(point.taken_at),
        "paused_seconds": point.paused_seconds,
        "members": list(point.members),
    }
