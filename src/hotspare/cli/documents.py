"""The words for what JSON documents tell, and the parts of them that only commands print.

docs/json-output.md describes every document; a test compares it with what commands print.
"""

from typing import Any

from hotspare.cli import output
from hotspare.cli.output import print_table
from hotspare.documents.machine import machine_fields
from hotspare.documents.point import left_out, point_fields
from hotspare.documents.run import run_fields
from hotspare.events import HeldBack
from hotspare.repository.point import RestorePoint
from hotspare.units import format_bytes, format_duration

__all__ = [
    "held_back_fields",
    "held_back_words",
    "left_out",
    "machine_fields",
    "point_fields",
    "point_mode",
    "print_file_systems",
    "print_left_out",
    "print_point_disks",
    "run_fields",
]


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


def point_mode(point: RestorePoint) -> str:
    """Tell how a point's disks were read: ``full``, ``increment`` or ``mixed``."""
    modes = {disk.mode for disk in point.disks}
    return modes.pop() if len(modes) == 1 else "mixed"


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
