"""The parts of JSON documents, and the words for the same things in text.

docs/json-output.md describes every document; a test compares it with what commands print. A field is
never renamed or removed without a higher ``v``; programs must put up with fields that are added.
"""

from typing import Any

from hotspare.catalog.rows import RunRow
from hotspare.cli import output
from hotspare.cli.output import print_table, utc_time
from hotspare.events import HeldBack
from hotspare.platforms.platform import Machine
from hotspare.repository.point import PointDisk, PointFileSystem, RestorePoint
from hotspare.units import format_bytes, format_duration


def print_point_disks(point: RestorePoint) -> None:
    """Print the table of a restore point's disks: how each was read, and what it took."""
    rows = [
        (
            disk.name,
            format_bytes(disk.size),
            disk.mode,
            format_bytes(disk.bytes_read),
            format_bytes(disk.bytes_read - disk.bytes_new),
            format_bytes(disk.bytes_stored),
            disk.full_because or "",
        )
        for disk in point.disks
    ]
    header = ("DISK", "SIZE", "MODE", "READ", "DEDUPLICATED", "STORED", "FULL BECAUSE")
    print_table(header, rows, right=("SIZE", "READ", "DEDUPLICATED", "STORED"), indent="  ")


def print_file_systems(point: RestorePoint) -> None:
    """Print what was found inside the disks, and what of it was left out."""
    if not point.file_systems:
        return
    rows = [
        (
            one.volume,
            one.kind or "?",
            format_bytes(one.size),
            format_bytes(one.size - one.free - one.scratch) if one.kept_because is None else "-",
            format_bytes(one.free + one.scratch) if one.kept_because is None else "0 B",
            "; ".join((*([one.kept_because] if one.kept_because else []), *one.remarks)),
        )
        for one in point.file_systems
    ]
    header = ("VOLUME", "FILE SYSTEM", "SIZE", "NEEDED", "LEFT OUT", "REMARKS")
    print_table(header, rows, right=("SIZE", "NEEDED", "LEFT OUT"), indent="  ")


def print_left_out(point: RestorePoint) -> None:
    """Print what else of the machine the point holds, and which disks it does not."""
    for state in point.state:
        output.print_text(f"  {state.name}: {format_bytes(state.size)}")
    for reason in left_out(point):
        output.print_text(f"  left out: {reason}")


def left_out(point: RestorePoint) -> list[str]:
    """Give the machine's disks that the point does not hold, each with the reason."""
    return [str(reason) for reason in point.machine.get("left_out", ())]


def point_mode(point: RestorePoint) -> str:
    """Tell how a point's disks were read: ``full``, ``increment`` or ``mixed``."""
    modes = {disk.mode for disk in point.disks}
    return modes.pop() if len(modes) == 1 else "mixed"


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


def held_back_fields(held_back: HeldBack) -> dict[str, Any]:
    """Describe how a backup was slowed down for the guest."""
    return {
        "seconds": round(held_back.seconds, 3),
        "latency_factor": round(held_back.latency_factor, 3),
        "worst_latency_factor": round(held_back.worst_latency_factor, 3),
    }


def held_back_words(held_back: HeldBack) -> str:
    """Say the same to people."""
    return (
        f"reading waited {format_duration(held_back.seconds)} for the guest, whose disk I/O took"
        f" {held_back.latency_factor:.1f} times as long as usual"
        f" ({held_back.worst_latency_factor:.1f} times at the worst moment)"
    )


def machine_fields(machine: Machine) -> dict[str, Any]:
    """Describe a machine; its native definition is left out, which may be long."""
    return {
        "id": machine.id,
        "name": machine.name,
        "platform": machine.platform,
        "state": machine.state.value,
        "cpus": machine.cpus,
        "memory": machine.memory,
        "firmware": machine.firmware,
        "disks": [
            {
                "name": disk.name,
                "size": disk.size,
                "format": disk.format,
                "source": disk.source,
                "serial": disk.serial,
                "labels": list(disk.labels),
            }
            for disk in machine.disks
        ],
        "title": machine.title,
        "tags": list(machine.marks.tags),
        "excluded_disks": list(machine.marks.excluded_disks),
        "hooks": list(machine.marks.hooks),
        "checks": list(machine.marks.checks),
        "left_out": list(machine.left_out),
    }


def run_fields(run: RunRow) -> dict[str, Any]:
    """Describe a run."""
    return {
        "id": run.id,
        "kind": run.kind,
        "machine": run.machine,
        "platform": run.platform,
        "repository": run.repository,
        "started_at": utc_time(run.started_at),
        "finished_at": utc_time(run.finished_at) if run.finished_at else None,
        "outcome": run.outcome,
        "error_code": run.error_code,
        "error": run.error,
        "point": run.point,
        "bytes_read": run.bytes_read,
        "bytes_stored": run.bytes_stored,
        "held_back_seconds": run.held_back_seconds,
        "latency_factor": run.latency_factor,
        "policy": run.policy,
    }
