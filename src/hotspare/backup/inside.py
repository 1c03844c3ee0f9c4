"""Looking into a snapshot for what need not be stored, and keeping a record of what was found."""

from contextlib import ExitStack, closing

import msgspec

from hotspare import events
from hotspare.guest.unused.machine import MachineUnused, VolumeReport, find_unused
from hotspare.guest.unused.unused import Quiet
from hotspare.platforms.platform import Consistency, Snapshot
from hotspare.repository.point import PointFileSystem

_QUIET = {
    Consistency.FILESYSTEM: Quiet.FROZEN,
    Consistency.APPLICATION: Quiet.FROZEN,
    Consistency.OFFLINE: Quiet.OFFLINE,
}
"""Why file systems stand still; with ``CRASH`` they do not."""


def look_inside(snapshot: Snapshot, listener: events.Listener) -> MachineUnused:
    """Find what no file system in a snapshot needs. Raises ``SourceLost``."""
    listener(events.PhaseStarted(snapshot.machine.name, "look-inside"))
    with ExitStack() as stack:
        readers = {
            disk.name: stack.enter_context(closing(snapshot.reader(disk.name))) for disk in snapshot.disks
        }
        return find_unused(readers, _QUIET.get(snapshot.consistency))


def file_system_of(report: VolumeReport) -> PointFileSystem:
    """Give what is noted down of a volume in the restore point."""
    described = PointFileSystem(
        volume=report.name,
        kind=report.content,
        size=report.size,
        label=report.label,
        kept_because=report.kept_because,
    )
    unused = report.unused
    if unused is None:
        return described
    return msgspec.structs.replace(
        described,
        kind=unused.file_system,
        free=unused.free.total,
        scratch=unused.scratch.total,
        remarks=unused.remarks,
    )
