"""Restore points."""

from typing import Any

from hotspare.documents.form import utc_time
from hotspare.repository.point import PointDisk, PointFileSystem, RestorePoint


def point_fields(point: RestorePoint) -> dict[str, Any]:
    """Describe a restore point."""
    return {
        "id": point.id,
        "machine": point.machine_name,
        "machine_id": point.machine_id,
        "platform": point.platform,
        "started_at": utc_time(point.started_at),
        "finished_at": utc_time(point.finished_at),
        "consistency": point.consistency,
        "frozen_seconds": point.frozen_seconds,
        "parent": point.parent,
        "warnings": list(point.warnings),
        "size": sum(disk.size for disk in point.disks),
        "bytes_read": sum(disk.bytes_read for disk in point.disks),
        "bytes_new": sum(disk.bytes_new for disk in point.disks),
        "bytes_stored": sum(disk.bytes_stored for disk in point.disks),
        "disks": [_point_disk_fields(disk) for disk in point.disks],
        "state": [{"name": state.name, "size": state.size} for state in point.state],
        "left_out": left_out(point),
        "bytes_unused": sum(disk.bytes_unused for disk in point.disks),
        "file_systems": [_file_system_fields(one) for one in point.file_systems],
    }


def _file_system_fields(one: PointFileSystem) -> dict[str, Any]:
    return {
        "volume": one.volume,
        "kind": one.kind,
        "label": one.label,
        "size": one.size,
        "free": one.free,
        "scratch": one.scratch,
        "kept_because": one.kept_because,
        "remarks": list(one.remarks),
    }


def _point_disk_fields(disk: PointDisk) -> dict[str, Any]:
    return {
        "name": disk.name,
        "size": disk.size,
        "mode": disk.mode,
        "full_because": disk.full_because,
        "bytes_processed": disk.bytes_processed,
        "bytes_read": disk.bytes_read,
        "bytes_new": disk.bytes_new,
        "bytes_stored": disk.bytes_stored,
        "bytes_unused": disk.bytes_unused,
        "tracking_compared": disk.tracking_compared,
        "tracking_wrong": disk.tracking_wrong,
    }


def left_out(point: RestorePoint) -> list[str]:
    """Give the machine's disks that the point does not hold, each with the reason."""
    return [str(reason) for reason in point.machine.get("left_out", ())]
